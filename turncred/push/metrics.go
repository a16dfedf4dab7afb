package push

import (
	"net/http"
	"strconv"
	"time"

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

// fleetMetrics count what an edge writes.
type fleetMetrics struct {
	writes    *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	snapshots *prometheus.CounterVec
	lost      *prometheus.CounterVec
	registry  prometheus.Registerer // nil: none
	prefix    string                // of names
}

// newFleetMetrics keeps what a WAF writes apart from what an edge in its process does.
func newFleetMetrics(reg prometheus.Registerer, role Role, ms []*member, now func() time.Time) *fleetMetrics {
	prefix := "epcscf_push_"
	if role == RoleWAF {
		prefix = "epcscf_waf_push_"
	}
	f := &fleetMetrics{
		prefix: prefix,
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "writes_total", Help: "Credentials written to a relay, by result: acknowledged or failed.",
		}, []string{"relay", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "write_seconds", Help: "Time until a relay has acknowledged a credential.", Buckets: writeBuckets,
		}, []string{"relay"}),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "snapshots_total", Help: "Snapshots sent to a relay that lacked something.",
		}, []string{"relay"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "revocations_lost_total", Help: "Revocations that a relay was never told before what they hit had expired.",
		}, []string{"relay"}),
	}
	if f.registry = reg; reg != nil {
		reg.MustRegister(f.writes, f.seconds, f.snapshots, f.lost)
	}
	for _, m := range ms {
		f.add(m, now)
	}
	return f
}

// add begins to count for a relay.
func (f *fleetMetrics) add(m *member, now func() time.Time) {
	for _, result := range []string{"acknowledged", "failed"} {
		f.writes.WithLabelValues(m.Name, result)
	}
	f.seconds.WithLabelValues(m.Name)
	f.snapshots.WithLabelValues(m.Name)
	f.lost.WithLabelValues(m.Name)
	if f.registry != nil {
		m.register(f.registry, f.prefix, now)
	}
}

// remove ends that.
func (f *fleetMetrics) remove(m *member) {
	relay := prometheus.Labels{"relay": m.Name}
	f.writes.DeletePartialMatch(relay)
	f.seconds.DeletePartialMatch(relay)
	f.snapshots.DeletePartialMatch(relay)
	f.lost.DeletePartialMatch(relay)
	for _, g := range m.gauges {
		f.registry.Unregister(g)
	}
}

func (f *fleetMetrics) wrote(relay string, err error, d time.Duration) {
	if err != nil {
		f.writes.WithLabelValues(relay, "failed").Inc()
		return
	}
	f.writes.WithLabelValues(relay, "acknowledged").Inc()
	f.seconds.WithLabelValues(relay).Observe(d.Seconds())
}

// register has the gauges of one relay read when they are asked for.
func (m *member) register(reg prometheus.Registerer, prefix string, now func() time.Time) {
	gauge := func(name, help string, value func() float64) {
		g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + name, Help: help, ConstLabels: prometheus.Labels{"relay": m.Name},
		}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return value()
		})
		reg.MustRegister(g)
		m.gauges = append(m.gauges, g)
	}
	gauge("relay_up", "1 while the relay answers at its credential interface.", func() float64 {
		if m.up {
			return 1
		}
		return 0
	})
	gauge("clock_skew_seconds", "The relay's clock less ours; over 5 either way wants an operator.", func() float64 { return m.skew.Seconds() })
	gauge("revocations_pending", "Revocations in the journal that the relay has yet to be told.", func() float64 { return float64(len(m.owed)) })
	gauge("revocation_oldest_seconds", "How long the oldest of them has waited; those of an earlier life count from the start.", func() float64 {
		if len(m.owed) == 0 {
			return 0
		}
		return now().Sub(m.owed[0].since).Seconds()
	})
}
