package proxy

import (
	"slices"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// serveWithToken serves a request of a WIC, other than REGISTER, ACK and CANCEL, once its token
// has been checked. A WIC has it in Authorization (TS 24.371 7.2.1, known to us by digests), or
// after a proxy's challenge in Proxy-Authorization (RFC 8898 §2.3). A call for help needs none.
func (p *Proxy) serveWithToken(t *serverTx, m *sipext.Message) {
	token, err := bearerOf(m, sipext.Authorization, sipext.ProxyAuthorization)
	switch {
	case err == nil && token == "" && !p.wantsToken(t), p.routesEmergency(t.req):
		p.serve(t)
	case err != nil:
		t.refuse(p.malformedToken(err))
	case token == "":
		p.metrics.tokens.WithLabelValues(tokenMissing).Inc()
		t.refuse(p.challenge(sip.StatusProxyAuthRequired, ""))
	default:
		p.verify(token, func(c TokenClaims, err error) { p.serveVerified(t, c, err) })
	}
}

// wantsToken reports whether a request without a token is refused: that of a WIC which has
// registered with one, where every request must have it.
func (p *Proxy) wantsToken(t *serverTx) bool {
	if !p.cfg.Bearer.EveryRequest || !t.from.flow.standsOnToken() {
		return false
	}
	d := p.dialogs.find(idFromWIC(t.req), p.cfg.Now())
	return d == nil || !d.emergency
}

func (p *Proxy) serveVerified(t *serverTx, c TokenClaims, err error) {
	switch {
	case err != nil:
		refused, _ := p.badToken(err, func(problem string) *refusal { return p.challenge(sip.StatusProxyAuthRequired, problem) })
		t.refuse(refused)
	case t.from.flow.isOthers(p.cfg.impi(string(c.IMPI))):
		p.metrics.tokens.WithLabelValues(tokenForeign).Inc()
		t.answer(sip.StatusForbidden, "Token of another user")
	default:
		p.metrics.tokens.WithLabelValues(tokenAccepted).Inc()
		p.serve(t)
	}
}

// standsOnToken reports whether a registration of the flow stands on a token.
func (f *Flow) standsOnToken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.regs, func(r *Registration) bool { return r.identity().token != nil })
}

// isOthers reports whether the flow is registered, and not for that user.
func (f *Flow) isOthers(id turncred.IMPI) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.regs) > 0 && !slices.ContainsFunc(f.regs, func(r *Registration) bool { return r.identity().impi == id })
}
