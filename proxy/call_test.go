package proxy

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/proxy/minicore"
	"epcscf/sipext"
)

// routeSet returns a dialog's Route rows: the Record-Route of the response reversed for
// the caller, as it stands for the callee (RFC 3261 §12.1).
func routeSet(m sipext.HeaderFields, caller bool) []string {
	var rows []string
	for _, e := range elements(m, "Record-Route") {
		if caller {
			rows = append([]string{"Route: " + e}, rows...)
		} else {
			rows = append(rows, "Route: "+e)
		}
	}
	return rows
}

// target returns the remote target: the URI of Contact.
func target(t *testing.T, m sipext.HeaderFields) string {
	t.Helper()
	all := sipext.Addresses(m, "Contact")
	if len(all) == 0 {
		t.Fatalf("no Contact in\n%s", m)
	}
	return all[0].URI
}

// TestCall: two WICs of this edge through a core that stays in the route, or not.
func TestCall(t *testing.T) {
	for _, tt := range []struct {
		name        string
		recordRoute bool
	}{{"core in the route", true}, {"core out of the route", false}} {
		t.Run(tt.name, func(t *testing.T) {
			core := startMinicore(t, func(c *minicore.Config) { c.RecordRoute = tt.recordRoute })
			r := newRig(t, core, nil)
			alice, bob := r.dial("alice"), r.dial("bob")
			alice.mustRegister()
			bob.mustRegister()

			const sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"
			alice.send(alice.request("INVITE", bob.aor(), "Content-Type: application/sdp", "\n"+sdp))
			alice.status(100)
			inv := bob.incoming(sip.INVITE)
			if string(inv.Body()) != sdp {
				t.Errorf("bob got body %q, want %q", inv.Body(), sdp)
			}
			if got := first(inv, "P-Asserted-Identity"); got != "<"+alice.aor()+">" {
				t.Errorf("P-Asserted-Identity = %q, want alice's", got)
			}
			bob.respond(inv, 180, "Ringing")
			alice.status(180)
			bob.respond(inv, 200, "OK")
			ok := alice.status(200)
			if !strings.Contains(first(ok, "Record-Route")+routeSet(ok, true)[0], ";transport=ws") {
				t.Errorf("alice's route set does not lead back over her WebSocket: %v", routeSet(ok, true))
			}

			inDialog := append([]string{"To: " + ok.To().Value()}, routeSet(ok, true)...)
			alice.send(alice.request("ACK", target(t, ok), append(inDialog, "CSeq: 1 ACK")...))
			bob.incoming(sip.ACK)

			// re-INVITE from alice, BYE from bob.
			alice.send(alice.request("INVITE", target(t, ok), inDialog...))
			re := bob.incoming(sip.INVITE)
			bob.respond(re, 488, "Not Acceptable Here")
			alice.status(488)

			back := append([]string{
				"From: " + inv.To().Value() + ";tag=" + bob.fromTag, "To: " + inv.From().Value(),
				"Call-ID: " + inv.CallID().Value(),
			}, routeSet(inv, false)...)
			bob.send(bob.request("BYE", target(t, inv), back...))
			alice.respond(alice.incoming(sip.BYE), 200, "OK")
			if res := bob.response(sip.BYE); res.StatusCode != 200 {
				t.Errorf("BYE got %d, want 200", res.StatusCode)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), nil)
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister()
	bob.mustRegister()
	invite := alice.request("INVITE", bob.aor())
	alice.send(invite)
	inv := bob.incoming(sip.INVITE)
	bob.respond(inv, 180, "Ringing")
	alice.status(180)

	cancel := strings.ReplaceAll(invite, "INVITE", "CANCEL")
	carol := r.dial("carol") // knows alice's branch, and cannot use it
	carol.send(cancel)
	if res := carol.response(sip.CANCEL); res.StatusCode != 481 {
		t.Errorf("carol's CANCEL of alice's call got %d, want 481", res.StatusCode)
	}

	alice.send(cancel)
	if res := alice.response(sip.CANCEL); res.StatusCode != 200 {
		t.Errorf("CANCEL got %d, want 200", res.StatusCode)
	}
	bob.respond(bob.incoming(sip.CANCEL), 200, "OK")
	bob.respond(inv, 487, "Request Terminated")
	if res := alice.response(sip.INVITE); res.StatusCode != 487 {
		t.Errorf("INVITE got %d, want 487", res.StatusCode)
	}
	if ack := bob.incoming(sip.ACK); len(sipext.Rows(ack, "Via")) != 1 {
		t.Errorf("ACK of a non-2xx has %d Vias, want 1", len(sipext.Rows(ack, "Via")))
	}
}

func TestMessageAndFailures(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), nil)
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister()
	bob.mustRegister()

	alice.send(alice.request("MESSAGE", bob.aor(), "Content-Type: text/plain", "\nhello"))
	msg := bob.incoming(sip.MESSAGE)
	if string(msg.Body()) != "hello" {
		t.Errorf("body %q, want hello", msg.Body())
	}
	bob.respond(msg, 200, "OK")
	for _, tt := range []struct {
		name, uri string
		want      int
		rows      []string
	}{
		{"delivered", "", 200, nil},
		{"unknown user", "sip:nobody@" + testDomain, 404, nil},
		{"not registered", "sip:carol@" + testDomain, 480, nil},
		{"no hops left", bob.aor(), 483, []string{"Max-Forwards: 0"}},
		{"Proxy-Require", bob.aor(), 420, []string{"Proxy-Require: teleport"}},
		{"unknown scheme", "nobody:knows", 416, nil},
	} {
		if tt.uri != "" {
			alice.send(alice.request("MESSAGE", tt.uri, tt.rows...))
		}
		res := alice.response(sip.MESSAGE)
		if res.StatusCode != tt.want {
			t.Errorf("%s: got %d %s, want %d", tt.name, res.StatusCode, res.Reason, tt.want)
		}
		if tt.want == 420 && first(res, "Unsupported") != "teleport" {
			t.Errorf("420 without Unsupported:\n%s", res)
		}
	}
	carol := r.dial("carol")
	carol.send(carol.request("MESSAGE", bob.aor()))
	if res := carol.response(sip.MESSAGE); res.StatusCode != 403 {
		t.Errorf("unregistered MESSAGE got %d, want 403", res.StatusCode)
	}
}

// TestLostCallerCancels: the callee stops ringing when the caller's page is closed.
func TestLostCallerCancels(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), nil)
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister()
	bob.mustRegister()
	alice.send(alice.request("INVITE", bob.aor()))
	bob.respond(bob.incoming(sip.INVITE), 180, "Ringing")
	alice.status(180)
	_ = alice.ws.Close()
	bob.respond(bob.incoming(sip.CANCEL), 200, "OK")
}
