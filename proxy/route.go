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
	if port != int(p.cfg.CoreAddr.Port()) && (p.cfg.Core.TLS == nil || port != int(p.cfg.Core.TLSPort)) {
		return false
	}
	if p.cfg.CoreHost != "" && strings.EqualFold(u.Host, p.cfg.CoreHost) {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(u.Host, "[]"))
	return err == nil && a.Unmap() == p.cfg.CoreAddr.Addr().Unmap()
}

// coreTransport is the transport by which the core reaches us, before a hop is chosen.
func (p *Proxy) coreTransport() string { return p.nextURI.plainTransport() }

// coreURI is the URI by which the core reaches us over a transport; user may be empty.
func (p *Proxy) coreURI(user, transport string) string {
	at, param := "", ""
	if user != "" {
		at = "@"
	}
	if transport == "udp" {
		transport = ""
	} else {
		param = ";transport="
	}
	return "sip:" + user + at + p.sentBy(transport).text + param + transport
}

// pathOver is our Path value (RFC 3327 §5.2; RFC 5626 §5.1: the token, and ob).
func (p *Proxy) pathOver(f *Flow, transport string) string {
	return "<" + p.coreURI(string(f.token), transport) + ";lr;ob>"
}

// recordRouteOver is the Record-Route entry that faces the core.
func (p *Proxy) recordRouteOver(transport string) string {
	return "<" + p.coreURI("", transport) + ";lr>"
}

// dialogForming are the methods that make dialogs, so their path must lead through us.
var dialogForming = []sip.RequestMethod{sip.INVITE, sip.SUBSCRIBE, sip.REFER, sip.NOTIFY, sip.UPDATE}

// recordRoute adds the two entries of RFC 5658 §3, one for each side: the WIC's client
// sends to a WebSocket URI, the core cannot. The upper one faces where the request goes.
func (p *Proxy) recordRoute(req *sip.Request, f *Flow, towardWIC bool) {
	if !slices.Contains(dialogForming, req.Method) {
		return
	}
	wic := sip.NewHeader("Record-Route", fmt.Sprintf("<sip:%s@%s;transport=ws;lr>", f.token, p.plain.text))
	transport := p.coreTransport()
	if towardWIC {
		transport = strings.ToLower(req.Via().Transport) // as the core has come
	}
	core := sip.NewHeader("Record-Route", p.recordRouteOver(transport))
	if towardWIC {
		req.PrependHeader(wic, core)
	} else {
		req.PrependHeader(core, wic)
	}
}

// onward says how a WIC's request goes on.
type onward struct {
	emergency bool    // to the emergency route, not to the core
	watch     watcher // of its responses; may be nil
}

// fromWIC forwards a request of a registered WIC to the core (TS 24.229 5.2.6.3).
func (p *Proxy) fromWIC(t *serverTx) {
	on, r := p.prepareFromWIC(t.from.flow, t.req)
	t.watch = on.watch
	if r != nil {
		t.refuse(r)
		return
	}
	if on.emergency {
		t.from.flow.sawRegister.Store(true) // who calls for help need not register in time
	}
	p.toCore(t, p.hopsFor(t.req, on.emergency), nil)
}

// prepareFromWIC rewrites a request of a WIC for the core, or says why not.
func (p *Proxy) prepareFromWIC(f *Flow, req *sip.Request) (onward, *refusal) {
	if toTag(req) != "" {
		return p.prepareWithin(f, req)
	}
	on := onward{emergency: p.routesEmergency(req)}
	reg := f.registrationFor(aor(&req.From().Address))
	if reg == nil && !on.emergency {
		return on, &refusal{status: sip.StatusForbidden, phrase: "Not registered on this flow"}
	}
	route, r := p.initialRoute(req, reg, on.emergency)
	if r != nil {
		return on, r
	}
	if makesDialogs(req.Method) {
		w, r := p.form(f, req, true)
		if r != nil {
			return on, r
		}
		w.emergency = on.emergency
		if reg != nil {
			w.binding = reg.identity().key()
		}
		on.watch = w
	}
	preferred := elements(req, "P-Preferred-Identity")
	fromUE(req)
	sipext.Strip(req, "P-Preferred-Identity", "Record-Route") // a WIC is no proxy
	setRows(req, "Route", route...)
	if reg != nil {
		// RFC 3325 §5: we assert who sent this, from the registration and never from From.
		reg.vouch(req, preferred)
	}
	req.AppendHeader(sip.NewHeader("P-Charging-Vector", p.chargingVector()))
	decrementHops(req)
	p.recordRoute(req, f, false)
	return on, nil
}

// initialRoute is the Route of a request outside dialogs: the stored Service-Route, whatever
// the client has chosen or left out, or 400 (RFC 3608 §6.1; TS 24.229 5.2.6.3.3, 5.2.6.3.7,
// known to us by digests). Without a Service-Route there is none, and the next hop decides.
func (p *Proxy) initialRoute(req *sip.Request, reg *Registration, emergency bool) ([]string, *refusal) {
	if emergency {
		return []string{p.emergencyRoute()}, nil
	}
	if p.cfg.RouteMismatch == RouteReject && !sameRoutes(p.beyondOutboundProxy(elements(req, "Route")), reg.serviceRoute) {
		return nil, p.wrongRoute("Route is not the Service-Route")
	}
	return reg.serviceRoute, nil
}

func (p *Proxy) wrongRoute(text string) *refusal {
	return &refusal{status: sip.StatusBadRequest, phrase: text, extra: []sip.Header{p.warning(text)}}
}

// beyondOutboundProxy takes this edge off the top of a preloaded Route: as the core knows it,
// or as WICs do, by whatever name they have reached it, which is a WebSocket URI.
func (p *Proxy) beyondOutboundProxy(routes []string) []string {
	if len(routes) == 0 {
		return routes
	}
	if _, own := p.ownRoute(routes[0]); own {
		return routes[1:]
	}
	u, _ := parseURI(routes[0])
	if transport, _ := u.UriParams.Get("transport"); strings.EqualFold(transport, "ws") || strings.EqualFold(transport, "wss") {
		return routes[1:]
	}
	return routes
}

// prepareWithin rewrites a WIC's request within a dialog (TS 24.229 5.2.6.3.5, known to us by
// digests): only who takes part may send one, and only by the dialog's route. The dialog
// itself is the permission, so that a BYE passes after the registration has ended.
func (p *Proxy) prepareWithin(f *Flow, req *sip.Request) (onward, *refusal) {
	given := elements(req, "Route")
	if len(given) > 0 {
		if own, ok := p.ownRoute(given[0]); ok && own.ws {
			if _, err := p.tokens.open(own.token); errors.Is(err, errTokenForged) {
				return onward{}, &refusal{status: sip.StatusForbidden, phrase: "Forged flow token"}
			}
		}
	}
	d, route, r := p.dialogFromWIC(f, req)
	if r != nil {
		return onward{}, r
	}
	if p.cfg.RouteMismatch == RouteReject && !sameRoutes(p.beyondUs(given), route) {
		return onward{}, p.wrongRoute("Route is not the dialog's")
	}
	on := onward{emergency: d.emergency}
	if req.Method != sip.ACK {
		on.watch = p.watchWithin(d, req, true)
	}
	fromUE(req)
	sipext.Strip(req, "P-Preferred-Identity", "Record-Route")
	setRows(req, "Route", route...)
	decrementHops(req)
	p.recordRoute(req, f, false)
	return on, nil
}

// chargingVector opens a charging correlation (RFC 7315 §4.6; type 1 orig-ioi).
func (p *Proxy) chargingVector() string {
	return `icid-value="` + rand.Text() + `";icid-generated-at=` + p.plain.host + `;orig-ioi=` + p.origIOI
}

// beyondUs takes our two Record-Route entries off the top of a WIC's route set: the one
// that faces the WIC and its twin. Not more: in a call between two WICs of this edge through
// a core that stays out of the route, the next entries are ours as well, of the other leg.
func (p *Proxy) beyondUs(routes []string) []string {
	rest := routes
	if len(rest) > 0 {
		if own, ok := p.ownRoute(rest[0]); ok && own.ws {
			rest = rest[1:]
		}
	}
	if len(rest) > 0 && len(rest) < len(routes) {
		if own, ok := p.ownRoute(rest[0]); ok && !own.ws && own.token == "" {
			rest = rest[1:]
		}
	}
	return rest
}

// toWIC forwards a request of the core to a WIC, by flow token (RFC 5626 §5.3).
func (p *Proxy) toWIC(t *serverTx) {
	if t.req.Method == sip.OPTIONS && p.isForUs(t.req) && len(elements(t.req, "Route")) == 0 {
		t.answer(sip.StatusOK, "OK", capabilities()...) // the core asks whether we live
		return
	}
	to, watch, r := p.prepareToWIC(t.req)
	t.watch = watch
	if r != nil {
		t.refuse(r)
		return
	}
	t.called = to.flow.calledParty(t.req)
	p.forward(t, to, nil)
}

// prepareToWIC finds the flow and rewrites a request of the core for it. A WIC's contact
// is something.invalid, so there is nothing to look up: no token, no way.
func (p *Proxy) prepareToWIC(req *sip.Request) (peer, watcher, *refusal) {
	routes := elements(req, "Route")
	token, rest := p.popRoutesFromCore(routes)
	if token == "" {
		if p.leadsToSibling(routes) {
			return peer{}, nil, &refusal{status: statusFlowFailed, phrase: "Flow of another node"}
		}
		return peer{}, nil, &refusal{status: sip.StatusNotFound, phrase: "No flow token in Route"}
	}
	id, err := p.tokens.open(token)
	switch {
	case errors.Is(err, errTokenForged):
		return peer{}, nil, &refusal{status: sip.StatusForbidden, phrase: "Forged flow token"}
	case err != nil:
		return peer{}, nil, &refusal{status: statusFlowFailed, phrase: "Flow Failed"}
	}
	f, d := p.flows.get(id), (*dialog)(nil)
	if toTag(req) != "" {
		var r *refusal
		if f, d, r = p.dialogToWIC(id, req); r != nil {
			return peer{}, nil, r
		}
	}
	if f == nil || f.isEnding() {
		return peer{}, nil, &refusal{status: statusFlowFailed, phrase: "Flow Failed"}
	}
	var watch watcher
	var forms *forming
	switch {
	case d != nil && req.Method != sip.ACK:
		watch = p.watchWithin(d, req, false)
	case d == nil && makesDialogs(req.Method):
		w, r := p.form(f, req, false)
		if r != nil {
			return peer{}, nil, r
		}
		w.route, w.binding = elements(req, "Record-Route"), f.bindingOf(req)
		watch, forms = w, w
	}
	setRows(req, "Route", rest...)
	toUE(req)
	decrementHops(req)
	p.recordRoute(req, f, true)
	if forms != nil {
		forms.recorded = elements(req, "Record-Route")
	}
	return peer{flow: f, conn: f, transport: "WSS"}, watch, nil
}

// bindingOf is the device that a request toward a WIC is for.
func (f *Flow) bindingOf(req *sip.Request) bindingKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.regs {
		if sameURI(r.contact, req.Recipient.String()) {
			return r.identity().key()
		}
	}
	if len(f.regs) > 0 {
		return f.regs[0].identity().key()
	}
	return bindingKey{}
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

// leadsToSibling reports whether Route names a flow of another node of this edge, as where the
// core reached us by a name that the nodes share: its Path, or its two Record-Route entries. A
// node knows another's token by the key that they share too. 430 has the core try another flow
// of the device (RFC 5626 §5.3.1), which 404 would not.
func (p *Proxy) leadsToSibling(routes []string) bool {
	for _, r := range routes[:min(2, len(routes))] {
		if u, ok := parseURI(r); ok {
			if _, err := p.tokens.open(FlowToken(u.User)); !errors.Is(err, errTokenForged) {
				return true
			}
		}
	}
	return false
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
