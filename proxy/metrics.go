package proxy

import (
	"epcscf/sipext"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a WebSocket upgrade was refused.
const (
	refusedTLS         = "not-tls"
	refusedOrigin      = "origin"
	refusedNoOrigin    = "no-origin"
	refusedSubprotocol = "subprotocol"
	refusedFlows       = "flow-limit"
	refusedAddress     = "address-limit"
	refusedDraining    = "shutting-down"
	refusedHandshake   = "handshake"
)

// Why a flow ended.
const (
	closedByPeer     = "peer"
	closedShutdown   = "shutdown"
	closedSlow       = "slow-reader"
	closedWrite      = "write-error"
	closedIdle       = "idle"
	closedSlowWrite  = "slow-writer"
	closedFlood      = "flood"
	closedOversize   = "oversize"
	closedMalformed  = "malformed"
	closedUnregister = "no-register"
	closedUTF8       = "bad-utf8"
	closedNetwork    = "deregistered" // by the core
	closedToken      = "bad-token"
	closedRevoked    = "revoked" // by the WAF
)

// Why a message was dropped without an answer.
const (
	dropStray       = "stray-response"
	dropMalformed   = "malformed-response"
	dropUnroutable  = "unroutable-ack"
	dropBacklog     = "transaction-backlog"
	dropCoreInvalid = "malformed-from-core"
)

const otherMethod = "other"

var methodLabels = []string{
	"REGISTER", "INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "MESSAGE", "SUBSCRIBE",
	"NOTIFY", "REFER", "INFO", "PRACK", "UPDATE", "PUBLISH", otherMethod,
}

var credentialLabels = []string{"issued", "relay-unreachable", "limit", "disabled", "not-authorized", "error"}

var revocationLabels = []string{causeDeregistered, causeExpired, causeFlowLost, causeNetwork, causeToken}

type metrics struct {
	flows         prometheus.Gauge
	registrations prometheus.Gauge
	dialogs       prometheus.Gauge
	upgrades      prometheus.Counter
	refused       *prometheus.CounterVec // reason
	closed        *prometheus.CounterVec // reason
	malformed     *prometheus.CounterVec // fault
	requests      *prometheus.CounterVec // from, method
	responses     *prometheus.CounterVec // to, class
	answered      *prometheus.CounterVec // status: refusals of our own
	dropped       *prometheus.CounterVec // reason
	credentials   *prometheus.CounterVec // result
	revocations   *prometheus.CounterVec // cause, result
	untold        prometheus.Gauge
	tokens        *prometheus.CounterVec // result

	regSubscriptions prometheus.Gauge
	regSubscribes    *prometheus.CounterVec // result
	regNotifies      *prometheus.CounterVec // result
	networkEnds      *prometheus.CounterVec // event
	limited          *prometheus.CounterVec // reason
	released         prometheus.Counter
	core             coreMetrics

	// What every message looks up is looked up once: by side, then by method, class and result.
	byMethod map[string]map[string]prometheus.Counter
	byClass  map[string]*[6]prometheus.Counter
	byResult map[string]prometheus.Counter
}

var classLabels = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx", "6xx"}

// request counts one that was received. The label set is fixed, whatever methods peers invent.
func (m *metrics) request(side, method string) {
	c := m.byMethod[side][method]
	if c == nil {
		c = m.byMethod[side][otherMethod]
	}
	c.Inc()
}

// response counts one that is sent.
func (m *metrics) response(side string, status int) { m.byClass[side][status/100-1].Inc() }

// credential counts an answer to a wish for one.
func (m *metrics) credential(result string) { m.byResult[result].Inc() }

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "epcscf_" + name, Help: help}, labels)
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		flows:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "epcscf_flows", Help: "Live WebSocket flows."}),
		registrations: prometheus.NewGauge(prometheus.GaugeOpts{Name: "epcscf_registrations", Help: "Live registrations on flows."}),
		dialogs:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "epcscf_dialogs", Help: "Dialogs of WICs that the edge keeps a record of."}),
		upgrades:      prometheus.NewCounter(prometheus.CounterOpts{Name: "epcscf_upgrades_total", Help: "WebSocket upgrades accepted."}),
		refused:       counter("upgrades_refused_total", "WebSocket upgrades refused.", "reason"),
		closed:        counter("flows_closed_total", "Flows ended.", "reason"),
		malformed:     counter("sip_malformed_total", "SIP messages from WICs refused by the strict checks.", "fault"),
		requests:      counter("sip_requests_total", "SIP requests received.", "from", "method"),
		responses:     counter("sip_responses_total", "SIP responses sent, forwarded ones included.", "to", "class"),
		answered:      counter("sip_refused_total", "SIP requests that the edge itself answered with an error.", "status"),
		dropped:       counter("sip_dropped_total", "SIP messages dropped without an answer.", "reason"),
		credentials:   counter("credentials_total", "Answers to requests for a TURN credential.", "result"),
		revocations:   counter("revocations_total", "Revocations told to the relay.", "cause", "result"),
		untold:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "epcscf_revocations_untold", Help: "Revocations that the relay has not heard yet."}),

		tokens: counter("tokens_total", "Access tokens that WICs have shown, or should have.", "result"),

		regSubscriptions: prometheus.NewGauge(prometheus.GaugeOpts{Name: "epcscf_regevent_subscriptions", Help: "Live subscriptions to registration state."}),
		regSubscribes:    counter("regevent_subscribes_total", "Answers to subscriptions to registration state.", "result"),
		regNotifies:      counter("regevent_notifies_total", "Notifications of registration state.", "result"),
		networkEnds:      counter("registrations_ended_by_core_total", "Registrations that the core has ended or shortened.", "event"),
		limited:          counter("sip_limited_total", "SIP messages of WICs that a limit refused.", "reason"),
		released:         prometheus.NewCounter(prometheus.CounterOpts{Name: "epcscf_calls_released_total", Help: "Calls that the edge ended with BYE."}),
	}
	m.core = newCoreMetrics()
	m.zero()
	if reg == nil {
		return m, nil
	}
	for _, c := range append(m.core.collectors(),
		m.flows, m.registrations, m.upgrades, m.refused, m.closed, m.malformed, m.requests,
		m.responses, m.answered, m.dropped, m.credentials, m.revocations, m.untold, m.tokens,
		m.regSubscriptions, m.regSubscribes, m.regNotifies, m.networkEnds,
		m.limited, m.released, m.dialogs,
	) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// zero creates every label value, so that a rate over a counter sees its first event.
func (m *metrics) zero() {
	each := func(v *prometheus.CounterVec, labels ...string) {
		for _, l := range labels {
			v.WithLabelValues(l)
		}
	}
	each(m.refused, refusedTLS, refusedOrigin, refusedNoOrigin, refusedSubprotocol, refusedFlows, refusedAddress, refusedDraining, refusedHandshake)
	each(m.closed, closedByPeer, closedShutdown, closedSlow, closedWrite, closedIdle, closedSlowWrite, closedFlood, closedOversize, closedMalformed, closedUnregister, closedUTF8, closedNetwork, closedToken, closedRevoked)
	each(m.dropped, dropStray, dropMalformed, dropUnroutable, dropBacklog, dropCoreInvalid)
	each(m.regSubscribes, subscribeAccepted, subscribeRefused, subscribeFailed, subscribeLost)
	each(m.regNotifies, notifyApplied, notifyStale, notifyMalformed, notifyUnknown)
	each(m.networkEnds, string(eventShortened), string(eventExpired), string(eventDeactivated),
		string(eventProbation), string(eventUnregistered), string(eventRejected))
	each(m.limited, limitLabels...)
	each(m.tokens, tokenLabels...)
	for _, f := range sipext.Faults {
		m.malformed.WithLabelValues(string(f))
	}
	m.byMethod, m.byClass, m.byResult = map[string]map[string]prometheus.Counter{}, map[string]*[6]prometheus.Counter{}, map[string]prometheus.Counter{}
	for _, side := range []string{"wic", "core"} {
		m.byMethod[side], m.byClass[side] = map[string]prometheus.Counter{}, &[6]prometheus.Counter{}
		for _, l := range methodLabels {
			m.byMethod[side][l] = m.requests.WithLabelValues(side, l)
		}
		for i, l := range classLabels {
			m.byClass[side][i] = m.responses.WithLabelValues(side, l)
		}
	}
	for _, l := range credentialLabels {
		m.byResult[l] = m.credentials.WithLabelValues(l)
	}
	for _, l := range revocationLabels {
		for _, result := range []string{revokedAtOnce, revokedLate, revokedLost} {
			m.revocations.WithLabelValues(l, result)
		}
	}
}
