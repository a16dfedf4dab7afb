package relay

import (
	"fmt"
	"strconv"

	"github.com/pion/stun/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// dropReason says why something was thrown away in silence.
type dropReason uint8

const (
	dropMalformed     dropReason = iota // neither STUN nor ChannelData, or not whole
	dropFingerprint                     // FINGERPRINT is wrong or not last
	dropUnsupported                     // a method or class that is not for us
	dropLoop                            // from a relayed address of ours to a listener
	dropNoAllocation                    // data without an allocation
	dropNoChannel                       // ChannelData on an unbound channel
	dropNoPermission                    // to or from a peer without permission
	dropDeniedPeer                      // to or from a peer that the policy denies
	dropOversize                        // a peer's datagram that did not fit
	dropWrite                           // the socket or stream did not take it
	dropPending                         // a stream too many without an allocation
	dropTimeout                         // a stream without an allocation in time
	dropHandshake                       // a TLS handshake that failed
	dropChallengeRate                   // a stranger's datagram beyond Config.ChallengeRate
	dropAmplification                   // an answer to a stranger that would have been too long
	dropByteQuota                       // beyond Config.BytesPerSecond
	dropReasons
)

var dropNames = [dropReasons]string{
	"malformed", "fingerprint", "unsupported", "loop", "no_allocation", "no_channel",
	"no_permission", "denied_peer", "oversize", "write", "pending", "timeout", "handshake",
	"challenge_rate", "amplification", "byte_quota",
}

// answerCodes are all codes that an answer can have; 0 stands for success.
var answerCodes = []stun.ErrorCode{
	0, stun.CodeBadRequest, stun.CodeUnauthorized, stun.CodeForbidden, stun.CodeUnknownAttribute,
	stun.CodeAllocMismatch, stun.CodeStaleNonce, stun.CodeAddrFamilyNotSupported,
	stun.CodeWrongCredentials, stun.CodeUnsupportedTransProto, stun.CodePeerAddrFamilyMismatch,
	stun.CodeAllocQuotaReached, stun.CodeServerError, stun.CodeInsufficientCapacity,
}

type answerKey struct {
	method stun.Method
	code   stun.ErrorCode
}

// metrics are the relay's counters, each made at zero so that a rate has a beginning.
type metrics struct {
	drops       [dropReasons]prometheus.Counter
	answers     map[answerKey]prometheus.Counter
	made        prometheus.Counter
	refreshed   prometheus.Counter
	ended       map[EndReason]prometheus.Counter
	eventsLost  prometheus.Counter
	revocations prometheus.Counter
	// revocationsUnkept hold, but RevocationLog did not take them.
	revocationsUnkept prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "epcscf_relay_drops_total", Help: "What the relay threw away in silence, by reason.",
	}, []string{"reason"})
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "epcscf_relay_responses_total", Help: "Answers to STUN and TURN requests, by method and error code, or success.",
	}, []string{"method", "code"})
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "epcscf_relay_allocations_ended_total", Help: "Allocations that ended, by reason.",
	}, []string{"reason"})
	m := &metrics{
		answers: map[answerKey]prometheus.Counter{},
		ended:   map[EndReason]prometheus.Counter{},
		made: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "epcscf_relay_allocations_made_total", Help: "Allocations made.",
		}),
		refreshed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "epcscf_relay_allocations_refreshed_total", Help: "Refreshes of allocations that were granted.",
		}),
		eventsLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "epcscf_relay_events_lost_total", Help: "Events of allocations that found the queue to log and listeners full.",
		}),
		revocations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "epcscf_relay_revocations_total", Help: "Revocations received.",
		}),
		revocationsUnkept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "epcscf_relay_revocations_unkept_total", Help: "Revocations that hold, but could not be kept for a restart; the edge is told to try again.",
		}),
	}
	for i, name := range dropNames {
		m.drops[i] = drops.WithLabelValues(name)
	}
	for method, name := range methodNames {
		for _, code := range answerCodes {
			label := "success"
			if code != 0 {
				label = strconv.Itoa(int(code))
			}
			m.answers[answerKey{method, code}] = answers.WithLabelValues(name, label)
		}
	}
	for _, r := range endReasons {
		m.ended[r] = ended.WithLabelValues(string(r))
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{drops, answers, m.made, m.refreshed, ended, m.eventsLost, m.revocations, m.revocationsUnkept, newTrafficCollector(s)} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("relay: register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) drop(r dropReason) { m.drops[r].Inc() }

func (m *metrics) event(kind EventKind, why EndReason) {
	switch kind {
	case EventMade:
		m.made.Inc()
	case EventRefreshed:
		m.refreshed.Inc()
	case EventEnded:
		m.ended[why].Inc()
	}
}

func (m *metrics) answered(method stun.Method, code stun.ErrorCode) {
	if c := m.answers[answerKey{method, code}]; c != nil {
		c.Inc()
	}
}

// trafficCollector adds up what the allocations count for themselves. One counter for all
// would be a cache line that every packet of every core fights for.
type trafficCollector struct {
	s                           *Server
	allocations, packets, bytes *prometheus.Desc
}

func newTrafficCollector(s *Server) *trafficCollector {
	return &trafficCollector{
		s:           s,
		allocations: prometheus.NewDesc("epcscf_relay_allocations", "Live allocations.", nil, nil),
		packets:     prometheus.NewDesc("epcscf_relay_relayed_packets_total", "Packets relayed.", []string{"direction"}, nil),
		bytes:       prometheus.NewDesc("epcscf_relay_relayed_bytes_total", "Payload bytes relayed.", []string{"direction"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *trafficCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.allocations
	ch <- c.packets
	ch <- c.bytes
}

// Collect implements prometheus.Collector.
func (c *trafficCollector) Collect(ch chan<- prometheus.Metric) {
	live, toPeer, toClient := c.s.totals()
	ch <- prometheus.MustNewConstMetric(c.allocations, prometheus.GaugeValue, float64(live))
	for _, d := range []struct {
		direction string
		t         traffic
	}{{"to_peer", toPeer}, {"to_client", toClient}} {
		ch <- prometheus.MustNewConstMetric(c.packets, prometheus.CounterValue, float64(d.t.Packets), d.direction)
		ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(d.t.Bytes), d.direction)
	}
}
