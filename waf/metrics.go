package waf

import "github.com/prometheus/client_golang/prometheus"

// metrics count what is issued and what is refused; every label is there from the start.
type metrics struct {
	issued    *prometheus.CounterVec // by kind
	refusals  *prometheus.CounterVec // by error
	signIns   *prometheus.CounterVec // by result
	throttled prometheus.Counter
}

// What epcscf_waf_issued_total and epcscf_waf_sign_ins_total count by.
const (
	issuedTURN         = "turn"
	issuedRegistration = "registration"

	signInOK        = "ok"
	signInWrong     = "wrong"
	signInThrottled = "throttled"
	signInProvider  = "provider"
	signInRefused   = "refused" // by the provider, or of a user that is unknown here
)

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		issued:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "epcscf_waf_issued_total", Help: "Tokens issued, by kind."}, []string{"kind"}),
		refusals:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "epcscf_waf_refused_total", Help: "OAuth requests refused, by error."}, []string{"error"}),
		signIns:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "epcscf_waf_sign_ins_total", Help: "Attempts to sign in, by result."}, []string{"result"}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{Name: "epcscf_waf_throttled_total", Help: "Requests refused because too many came from their address."}),
	}
	for _, kind := range []string{issuedTURN, issuedRegistration} {
		m.issued.WithLabelValues(kind)
	}
	for _, code := range []ErrorCode{
		InvalidRequest, InvalidClient, InvalidGrant, UnauthorizedClient, UnsupportedGrantType, UnsupportedResponseType, InvalidScope,
		AccessDenied, ServerError, TemporarilyUnavailable, InvalidTarget, InvalidRedirectURI, InvalidClientMetadata, InvalidToken,
	} {
		m.refusals.WithLabelValues(string(code))
	}
	for _, result := range []string{signInOK, signInWrong, signInThrottled, signInProvider, signInRefused} {
		m.signIns.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(m.issued, m.refusals, m.signIns, m.throttled)
	}
	return m
}

func (m metrics) refused(code ErrorCode) { m.refusals.WithLabelValues(string(code)).Inc() }
