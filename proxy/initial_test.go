package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// TestInitialRoute: TS 24.229 5.2.6.3.3 and 5.2.6.3.7, RFC 3608 §6.1.
func TestInitialRoute(t *testing.T) {
	service := []string{"<sip:orig@scscf.ims.test;lr>", "<sip:second.ims.test;lr>"}
	proxyRoute := "Route: <sip:edge.example:443;transport=ws;lr>"
	for _, tt := range []struct {
		clause string
		route  []string
		right  bool
	}{
		{"the Service-Route, in one row: RFC 3608 §6.1", []string{"Route: " + strings.Join(service, ", ")}, true},
		{"in two rows: RFC 3261 §7.3.1", []string{"Route: " + service[0], "Route: " + service[1]}, true},
		{"host without case: RFC 3261 §19.1.4", []string{"Route: <sip:orig@SCSCF.ims.test;lr>, <sip:second.ims.test;LR>"}, true},
		{"this edge before it: RFC 3261 §16.4", []string{proxyRoute, "Route: " + strings.Join(service, ", ")}, true},
		{"absent", nil, false},
		{"this edge alone", []string{proxyRoute}, false},
		{"user with another case: RFC 3261 §19.1.4", []string{"Route: <sip:ORIG@scscf.ims.test;lr>, <sip:second.ims.test;lr>"}, false},
		{"another port", []string{"Route: <sip:orig@scscf.ims.test:5070;lr>, <sip:second.ims.test;lr>"}, false},
		{"another order", []string{"Route: " + service[1], "Route: " + service[0]}, false},
		{"too short", []string{"Route: " + service[0]}, false},
		{"another parameter", []string{"Route: <sip:orig@scscf.ims.test;lr;x>, <sip:second.ims.test;lr>"}, false},
	} {
		for _, mismatch := range []RouteMismatch{"", RouteReject} {
			t.Run(tt.clause+"/"+string(mismatch), func(t *testing.T) {
				r, core, w, _ := registered(t, func(c *Config) { c.RouteMismatch = mismatch })
				w.send(w.request("MESSAGE", "sip:bob@ims.test", tt.route...))
				if mismatch == RouteReject && !tt.right {
					if res := w.response(sip.MESSAGE); res.StatusCode != 400 || !strings.HasPrefix(first(res, "Warning"), "399 ") {
						t.Errorf("got %d with Warning %q, want 400 with 399", res.StatusCode, first(res, "Warning"))
					}
					return
				}
				msg := core.request(sip.MESSAGE)
				if got := elements(msg, "Route"); !slices.Equal(got, service) {
					t.Errorf("Route = %q, want the Service-Route", got)
				}
				core.respond(r.edge, msg, 200)
				w.response(sip.MESSAGE)
			})
		}
	}
}

// TestEveryMethodPasses: RFC 3261 §16.1, a proxy need not know a method. Dialogs lead
// through us, and what comes without Service-Route and P-Associated-URI goes to the next hop
// in the name of the address of record.
func TestEveryMethodPasses(t *testing.T) {
	core, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Core.Probe = -1 })
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	reg := core.request(sip.REGISTER)
	core.respond(r.edge, reg, 200, "Contact: "+first(reg, "Contact")+";expires=600")
	w.response(sip.REGISTER)
	for _, method := range []string{"INVITE", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "REFER", "INFO", "UPDATE", "OPTIONS", "TELEPORT"} {
		w.send(w.request(method, "sip:bob@ims.test"))
		req := core.request(sip.RequestMethod(method))
		if got := first(req, "P-Asserted-Identity"); got != "<sip:alice@ims.test>" {
			t.Errorf("%s: P-Asserted-Identity = %q, want To of the REGISTER", method, got)
		}
		if got := elements(req, "Route"); len(got) != 0 {
			t.Errorf("%s: Route = %q, want none", method, got)
		}
		if !strings.HasPrefix(first(req, "P-Charging-Vector"), "icid-value=") {
			t.Errorf("%s: no P-Charging-Vector", method)
		}
		core.respond(r.edge, req, 404)
		if res := w.response(sip.RequestMethod(method)); res.StatusCode != 404 {
			t.Errorf("%s got %d, want 404", method, res.StatusCode)
		}
	}
}

// TestLoops: RFC 3261 §16.3 step 4 and RFC 5393 §4.2: what comes again by the same way is a
// loop, what comes by another is a spiral.
func TestLoops(t *testing.T) {
	r, core, w, reg := registered(t, nil)
	ask := string(core.ask("MESSAGE", w.contact(), "Route: "+pathOf(reg)))
	core.send(r.edge, []byte(ask))
	msg := w.incoming(sip.MESSAGE)
	var vias string
	for _, v := range msg.GetHeaders("Via")[:1] {
		vias += "Via: " + v.Value() + "\r\n"
	}
	w.respond(msg, 200, "OK")
	core.response(200)
	again := strings.Replace(ask, "Via: ", vias+"Via: ", 1)
	again = strings.Replace(again, "\r\nVia: ", "\r\nVia: SIP/2.0/UDP "+core.conn.LocalAddr().String()+";branch="+newBranch()+"\r\nVia: ", 1)
	core.send(r.edge, []byte(again))
	if res := finalAt(core); res.StatusCode != 482 {
		t.Errorf("the same request again got %d, want 482", res.StatusCode)
	}
	spiral := strings.Replace(again, w.contact()+" SIP/2.0", "sip:alice@other.invalid;transport=ws SIP/2.0", 1)
	spiral = strings.Replace(spiral, "branch=z9hG4bK", "branch=z9hG4bKs", 1)
	core.send(r.edge, []byte(spiral))
	w.respond(w.incoming(sip.MESSAGE), 200, "OK")
	core.response(200)
}

// TestEmergency: TS 24.229 5.2.10 and RFC 5031 §4.2.
func TestEmergency(t *testing.T) {
	for _, tt := range []struct {
		name, method, uri string
		route             bool // an emergency route is configured
		registered        bool
		want              int // 0: the emergency route; 1: the core
	}{
		{"a stranger's call", "INVITE", "urn:service:sos", true, false, 0},
		{"of a sub-service", "INVITE", "URN:Service:SOS.police", true, false, 0},
		{"a registered user's call", "INVITE", "urn:service:sos.fire", true, true, 0},
		{"a text", "MESSAGE", "urn:service:sos", true, false, 0},
		{"no route, a stranger", "INVITE", "urn:service:sos", false, false, 403},
		{"no route, registered", "INVITE", "urn:service:sos", false, true, 1},
		{"another service", "INVITE", "urn:service:counseling", true, false, 403},
		{"no service of that name", "INVITE", "urn:service:sosx", true, false, 403},
		{"a subscription", "SUBSCRIBE", "urn:service:sos", true, false, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			help, helpAddr := startStub(t)
			core, addr := startStub(t)
			r := newRig(t, addr, func(c *Config) {
				if tt.route {
					c.EmergencyRoute = &NextHop{"udp", helpAddr.String()}
				}
			})
			w := r.dial("alice")
			if tt.registered {
				w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
				core.accept(r.edge)
				w.response(sip.REGISTER)
			}
			w.send(w.request(tt.method, tt.uri, "P-Asserted-Identity: <sip:president@ims.test>", "P-Preferred-Identity: <sip:president@ims.test>"))
			if tt.want >= 400 {
				if res := w.response(sip.RequestMethod(tt.method)); res.StatusCode != tt.want {
					t.Errorf("got %d, want %d", res.StatusCode, tt.want)
				}
				return
			}
			asserted, at, route := "", help, fmt.Sprintf("<sip:%s;transport=udp;lr>", helpAddr)
			if tt.registered {
				asserted = "<sip:alice@ims.test>"
			}
			if tt.want == 1 {
				at, route = core, "<sip:orig@scscf.ims.test;lr>"
			}
			req := at.request(sip.RequestMethod(tt.method))
			if got := first(req, "P-Asserted-Identity"); got != asserted {
				t.Errorf("P-Asserted-Identity = %q, want %q", got, asserted)
			}
			if got := elements(req, "Route"); len(got) == 0 || got[0] != route {
				t.Errorf("Route = %q, want %q first", got, route)
			}
			if !strings.EqualFold(req.Recipient.String(), tt.uri) {
				t.Errorf("Request-URI %q, want %q", req.Recipient.String(), tt.uri)
			}
			if tt.method != "INVITE" {
				at.respond(r.edge, req, 200)
				w.status(200)
				return
			}
			at.respond(r.edge, req, 200, append(recorded(req), "Contact: <sip:psap@192.0.2.1>")...)
			ok := w.status(200)
			w.send(w.request("BYE", "sip:psap@192.0.2.1", append(routeSet(ok, true), "To: "+ok.To().Value())...))
			bye := at.request(sip.BYE) // to where the call went, though nobody is registered
			at.respond(r.edge, bye, 200)
			if res := w.response(sip.BYE); res.StatusCode != 200 {
				t.Errorf("BYE got %d, want 200", res.StatusCode)
			}
		})
	}
}
