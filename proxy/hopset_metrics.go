package proxy

import "github.com/prometheus/client_golang/prometheus"

// coreMetrics tell of the next hops.
type coreMetrics struct {
	up        *prometheus.GaugeVec   // next_hop: those that DNS names now
	failovers *prometheus.CounterVec // reason
	unserved  *prometheus.CounterVec // reason
	overTCP   prometheus.Counter
}

// What became of a request that no next hop has answered.
const (
	coreDown       = "all-down"
	coreUnanswered = "no-answer"
	coreRefused    = "refused"
)

func newCoreMetrics() coreMetrics {
	m := coreMetrics{
		up:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "epcscf_core_next_hop_up", Help: "Whether a next hop is in use (1) or put aside (0)."}, []string{"next_hop"}),
		failovers: counter("core_failovers_total", "Requests that went to another next hop, by what the one before did.", "reason"),
		unserved:  counter("core_unserved_total", "Requests that no next hop has served.", "reason"),
		overTCP:   prometheus.NewCounter(prometheus.CounterOpts{Name: "epcscf_core_long_requests_total", Help: "Requests too long for UDP that went by TCP."}),
	}
	for _, r := range []string{hopSilent, hopUnreachable, hopRefused} {
		m.failovers.WithLabelValues(r)
	}
	for _, r := range []string{coreDown, coreUnanswered, coreRefused} {
		m.unserved.WithLabelValues(r)
	}
	return m
}

func (m *coreMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.up, m.failovers, m.unserved, m.overTCP}
}
