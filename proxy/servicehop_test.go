package proxy

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// TestServiceRouteIsFollowed: REGISTERs go to the next hop, what follows to the host that the
// Service-Route names (RFC 3608 §6.1), and requests within a dialog to it too. A far end that
// writes a host of its own into the dialog's route set does not make us send there.
func TestServiceRouteIsFollowed(t *testing.T) {
	icscf, addr := startStub(t)
	scscf, saddr := startStub(t)
	elsewhere, eaddr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Core.FollowServiceRoute = true })
	w := r.dial("alice")
	service := "<sip:orig@" + saddr.String() + ";lr>"
	register := func() {
		t.Helper()
		w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
		req := icscf.request(sip.REGISTER)
		icscf.respond(r.edge, req, 200, "Contact: "+first(req, "Contact")+";expires=600", "Service-Route: "+service)
		w.response(sip.REGISTER)
	}
	register()
	register() // a refresh goes to the next hop too

	w.send(w.request("MESSAGE", "sip:bob@ims.test"))
	msg := scscf.request(sip.MESSAGE)
	if got := elements(msg, "Route"); len(got) != 1 || got[0] != service {
		t.Errorf("Route = %q, want the Service-Route", got)
	}
	scscf.respond(r.edge, msg, 200)
	w.response(sip.MESSAGE)

	for _, tt := range []struct {
		name  string
		route string
		to    *stub
	}{
		{"by the S-CSCF", service, scscf},
		{"by a host that the far end has named", "<sip:" + eaddr.String() + ";lr>", icscf},
	} {
		w.newCall()
		w.send(w.request("INVITE", "sip:bob@ims.test"))
		inv := scscf.request(sip.INVITE)
		scscf.respond(r.edge, inv, 200, "Contact: <sip:bob@192.0.2.1>",
			"Record-Route: "+tt.route, "Record-Route: "+strings.Join(elements(inv, "Record-Route"), ", "))
		ok := w.status(200)
		caller := callerLeg(t, w, ok)
		caller.ack(ok)
		if ack := tt.to.request(sip.ACK); first(ack, "Route") != tt.route {
			t.Errorf("%s: Route of the ACK = %q", tt.name, first(ack, "Route"))
		}
		caller.send("BYE")
		tt.to.respond(r.edge, tt.to.request(sip.BYE), 200)
		w.response(sip.BYE)
	}
	if n := len(elsewhere.in); n != 0 {
		t.Errorf("%d messages went where the far end pointed", n)
	}
}

func TestHopOf(t *testing.T) {
	for route, want := range map[string]string{
		"<sip:orig@scscf.ims.test;lr>":         "sip:scscf.ims.test",
		"<sip:SCSCF.ims.test:5080;lr>":         "sip:scscf.ims.test:5080",
		"<sip:192.0.2.1;transport=TCP;lr>":     "tcp:192.0.2.1",
		"<sip:[2001:db8::1]:5060;lr>":          "sip:[2001:db8::1]:5060",
		"<sip:[2001:db8::1];transport=udp;lr>": "udp:[2001:db8::1]",
		"<sips:scscf.ims.test;lr>":             "sips:scscf.ims.test",
		"<tel:+15551234>":                      "",
		"<sip:scscf.ims.test;transport=ws;lr>": "ws:scscf.ims.test", // Core.checkHop refuses it
	} {
		n, ok := hopOf(route)
		if got := n.String(); ok != (want != "") || ok && got != want {
			t.Errorf("hopOf(%s) = %q, %v, want %q", route, got, ok, want)
		}
	}
}
