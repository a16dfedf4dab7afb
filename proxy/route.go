package proxy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// ownRoute is a Route element, or Request-URI, that names this edge.
type ownRoute struct {
	token FlowToken
	ws    bool // the entry that faces the WIC
}

// ownRoute reads a Route element and reports whether it names us.
func (p *Proxy) ownRoute(element string) (ownRoute, bool) {
	u, ok := parseURI(element)
	if !ok || !p.isOurHost(&u) {
		return ownRoute{}, false
	}
	transport, _ := u.UriParams.Get("transport")
	return ownRoute{token: FlowToken(u.User), ws: strings.EqualFold(transport, "ws")}, true
}

// isOurHost reports whether a SIP URI's host and port are those of CoreAddr or CoreHost.
func (p *Proxy) isOurHost(u *sip.Uri) bool {
	if u.Scheme != "sip" && u.Scheme != "sips" {
		return false
	}
	port := u.Port
	if port == 0 {
		port = sip.DefaultUdpPort
	}
	if port != int(p.cfg.CoreAddr.Port()) {
		return false
	}
	if p.cfg.CoreHost != "" && strings.EqualFold(u.Host, p.cfg.CoreHost) {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(u.Host, "[]"))
	return err == nil && a.Unmap() == p.cfg.CoreAddr.Addr().Unmap()
}

// coreParams are the URI parameters by which the core reaches us over its transport.
func (p *Proxy) coreParams() string {
	if p.cfg.NextHops[0].Transport == "tcp" {
		return ";transport=tcp;lr"
	}
	return ";lr"
}

// path is our Path value (RFC 3327 §5.2; RFC 5626 §5.1: the token, and ob).
func (p *Proxy) path(f *Flow) string {
	return fmt.Sprintf("<sip:%s@%s%s;ob>", f.token, p.hostPort(), p.coreParams())
}

// dialogForming are the methods that make dialogs, so their path must lead through us.
var dialogForming = []sip.RequestMethod{sip.INVITE, sip.SUBSCRIBE, sip.REFER, sip.NOTIFY, sip.UPDATE}

// recordRoute adds the two entries of RFC 5658 §3, one for each side: the WIC's client
// sends to a WebSocket URI, the core cannot. The upper one faces where the request goes.
func (p *Proxy) recordRoute(req *sip.Request, f *Flow, towardWIC bool) {
	if !slices.Contains(dialogForming, req.Method) {
		return
	}
	wic := sip.NewHeader("Record-Route", fmt.Sprintf("<sip:%s@%s;transport=ws;lr>", f.token, p.hostPort()))
	core := sip.NewHeader("Record-Route", fmt.Sprintf("<sip:%s%s>", p.hostPort(), p.coreParams()))
	if towardWIC {
		req.PrependHeader(wic, core)
	} else {
		req.PrependHeader(core, wic)
	}
}

// fromWIC forwards a request of a registered WIC to the core (TS 24.229 5.2.6.3).
func (p *Proxy) fromWIC(t *serverTx) {
	if r := p.prepareFromWIC(t.from.flow, t.req); r != nil {
		t.refuse(r)
		return
	}
	to, err := p.core.peerFor(p.nextHop(t.req))
	if err != nil {
		t.undeliverable(peer{}, err)
		return
	}
	p.forward(t, to, nil)
}

// prepareFromWIC rewrites a request of a WIC for the core, or says why not.
func (p *Proxy) prepareFromWIC(f *Flow, req *sip.Request) *refusal {
	reg := f.registrationFor(aor(&req.From().Address))
	if reg == nil {
		return &refusal{status: sip.StatusForbidden, phrase: "Not registered on this flow"}
	}
	preferred := elements(req, "P-Preferred-Identity")
	fromUE(req)
	sipext.Strip(req, "P-Preferred-Identity")
	if toTag(req) != "" {
		if r := p.popRoutesFromWIC(req); r != nil {
			return r
		}
	} else {
		// The stored Service-Route, whatever Route the client has chosen or left out: JsSIP
		// and SIP.js ignore Service-Route (RFC 3608 §6.1; TS 24.229 5.2.6.3.3).
		setRows(req, "Route", reg.serviceRoute...)
		// RFC 3325 §5: we assert who sent this, from the registration and never from From.
		reg.vouch(req, preferred)
		req.AppendHeader(sip.NewHeader("P-Charging-Vector", p.chargingVector()))
	}
	decrementHops(req)
	p.recordRoute(req, f, false)
	return nil
}

// chargingVector opens a charging correlation (RFC 7315 §4.6; type 1 orig-ioi).
func (p *Proxy) chargingVector() string {
	host, _ := p.sentBy()
	return fmt.Sprintf(`icid-value="%s";icid-generated-at=%s;orig-ioi="Type 1%s"`, rand.Text(), host, p.cfg.VisitedNetwork)
}

// popRoutesFromWIC removes our two Record-Route entries from the top of a dialog's route
// set: the one that faces the WIC and its twin. Not more: in a call between two WICs of
// this edge through a core that stays out of the route, the next entries are ours as well,
// of the other leg.
func (p *Proxy) popRoutesFromWIC(req *sip.Request) *refusal {
	routes := elements(req, "Route")
	rest := routes
	if len(rest) > 0 {
		if own, ok := p.ownRoute(rest[0]); ok && own.ws {
			if _, err := p.tokens.open(own.token); errors.Is(err, errTokenForged) {
				return &refusal{status: sip.StatusForbidden, phrase: "Forged flow token"}
			}
			rest = rest[1:]
		}
	}
	if len(rest) > 0 && len(rest) < len(routes) {
		if own, ok := p.ownRoute(rest[0]); ok && !own.ws && own.token == "" {
			rest = rest[1:]
		}
	}
	setRows(req, "Route", rest...)
	return nil
}

// nextHop is the core, always: a WIC that writes its own Route or Request-URI must not
// make us send to an address of its choice. The one exception is a route that leads back
// to ourselves, see popRoutesFromWIC.
func (p *Proxy) nextHop(req *sip.Request) NextHop {
	if routes := elements(req, "Route"); len(routes) > 0 {
		if own, ok := p.ownRoute(routes[0]); ok && !own.ws {
			return NextHop{Transport: p.cfg.NextHops[0].Transport, Addr: p.cfg.CoreAddr.String()}
		}
	}
	return p.cfg.NextHops[0]
}

// toWIC forwards a request of the core to a WIC, by flow token (RFC 5626 §5.3).
func (p *Proxy) toWIC(t *serverTx) {
	if t.req.Method == sip.OPTIONS && p.isForUs(t.req) && len(elements(t.req, "Route")) == 0 {
		t.answer(sip.StatusOK, "OK", capabilities()...) // the core asks whether we live
		return
	}
	to, r := p.prepareToWIC(t.req)
	if r != nil {
		t.refuse(r)
		return
	}
	t.called = to.flow.calledParty(t.req)
	p.forward(t, to, nil)
}

// prepareToWIC finds the flow and rewrites a request of the core for it. A WIC's contact
// is something.invalid, so there is nothing to look up: no token, no way.
func (p *Proxy) prepareToWIC(req *sip.Request) (peer, *refusal) {
	token, rest := p.popRoutesFromCore(elements(req, "Route"))
	if token == "" {
		return peer{}, &refusal{status: sip.StatusNotFound, phrase: "No flow token in Route"}
	}
	id, err := p.tokens.open(token)
	switch {
	case errors.Is(err, errTokenForged):
		return peer{}, &refusal{status: sip.StatusForbidden, phrase: "Forged flow token"}
	case err != nil:
		return peer{}, &refusal{status: statusFlowFailed, phrase: "Flow Failed"}
	}
	f := p.flows.get(id)
	if f == nil || f.isEnding() {
		return peer{}, &refusal{status: statusFlowFailed, phrase: "Flow Failed"}
	}
	setRows(req, "Route", rest...)
	toUE(req)
	decrementHops(req)
	p.recordRoute(req, f, true)
	return peer{flow: f, conn: f, transport: "WSS"}, nil
}

// popRoutesFromCore takes our Path, or our two Record-Route entries, from the top.
func (p *Proxy) popRoutesFromCore(routes []string) (FlowToken, []string) {
	for i, r := range routes {
		own, ok := p.ownRoute(r)
		if !ok || i > 1 {
			break
		}
		if own.token != "" {
			return own.token, routes[i+1:]
		}
	}
	return "", nil
}

// isForUs reports whether a request is addressed to the home domain or to this edge
// itself, outside a dialog and to no user.
func (p *Proxy) isForUs(req *sip.Request) bool {
	u := &req.Recipient
	if u.User != "" || toTag(req) != "" || u.Scheme != "sip" && u.Scheme != "sips" {
		return false
	}
	return strings.EqualFold(u.Host, p.cfg.Domain) || p.isOurHost(u)
}
