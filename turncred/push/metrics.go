package push

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// serverMetrics count what a relay is asked.
type serverMetrics struct {
	requests *prometheus.CounterVec
	kept     prometheus.Histogram
}

// serverStatuses are those that a request can end with.
var serverStatuses = []int{
	http.StatusOK, http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusConflict,
	http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable,
}

// writeBuckets are in seconds, for what should take a millisecond.
var writeBuckets = []float64{.00025, .0005, .001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	m := &serverMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "epcscf_push_requests_total", Help: "Requests at the credential interface, by operation and status; 200 is any success.",
		}, []string{"op", "status"}),
		kept: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "epcscf_push_kept_seconds", Help: "Time to keep the credentials of a request, on disk where there is one.", Buckets: writeBuckets,
		}),
	}
	for _, rt := range routes {
		for _, st := range serverStatuses {
			m.requests.WithLabelValues(rt.op, strconv.Itoa(st))
		}
	}
	for _, st := range []int{http.StatusNotFound, http.StatusMethodNotAllowed} {
		m.requests.WithLabelValues("other", strconv.Itoa(st))
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.kept)
	}
	return m
}

func (m *serverMetrics) count(op string, status int) {
	m.requests.WithLabelValues(op, strconv.Itoa(status)).Inc()
}
