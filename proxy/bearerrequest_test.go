package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// TestTokenInRequests: a token in a request that is no REGISTER is checked where it is sent,
// at once and after waiting, and goes no further.
func TestTokenInRequests(t *testing.T) {
	waf := newWAF(time.Hour)
	waf.errs["scope"] = fmt.Errorf("%w: too little", ErrTokenScope)
	waf.errs["asleep"] = fmt.Errorf("no answer")
	for _, waits := range []bool{false, true} {
		r := newRig(t, trustingCore(t), func(c *Config) {
			if withBearer(waf)(c); !waits {
				c.Bearer.Verifier = atOnce{waf}
			}
		})
		alice, bob := r.dial("alice"), r.dial("bob")
		alice.mustBearer()
		bob.mustRegister() // by Digest
		for _, tt := range []struct {
			rows  []string
			want  int
			error string
		}{
			{nil, 200, ""},
			{[]string{"Authorization: Bearer token-alice"}, 200, ""},
			{[]string{"Proxy-Authorization: Bearer token-alice"}, 200, ""},
			{[]string{"Authorization: Bearer token-alice", `Proxy-Authorization: Bearer access_token="token-alice"`}, 200, ""},
			{[]string{"Authorization: Bearer token-alice", "Proxy-Authorization: Bearer token-bob"}, 400, ""},
			{[]string{"Authorization: Bearer bad"}, 407, "invalid_token"},
			{[]string{"Proxy-Authorization: Bearer scope"}, 407, "invalid_scope"},
			{[]string{"Authorization: Bearer token-bob"}, 403, ""},
			{[]string{"Authorization: Bearer asleep"}, 503, ""},
		} {
			alice.send(alice.request("MESSAGE", bob.aor(), tt.rows...))
			if tt.want == 200 {
				msg := bob.incoming(sip.MESSAGE)
				if strings.Contains(msg.String(), "token-") {
					t.Errorf("%q crosses:\n%s", tt.rows, msg)
				}
				bob.respond(msg, 200, "OK")
			}
			res := alice.response(sip.MESSAGE)
			got := first(res, "Proxy-Authenticate")
			if res.StatusCode != tt.want || (tt.error != "") != (got != "") || tt.error != "" && !strings.HasSuffix(got, `, error="`+tt.error+`"`) {
				t.Errorf("%q: got %d %s, challenge %q, want %d %s", tt.rows, res.StatusCode, res.Reason, got, tt.want, tt.error)
			}
		}
	}
}

// TestTokenInEveryRequest: proxy.token_every_request, with 407 (RFC 8898 §2.3). A WIC that has
// registered by Digest has no token, and is not asked for one.
func TestTokenInEveryRequest(t *testing.T) {
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(newWAF(time.Hour))(c)
		c.Bearer.EveryRequest = true
	})
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustBearer()
	bob.mustRegister()
	const token = "Authorization: Bearer token-alice"
	alice.send(alice.request("INVITE", bob.aor()))
	refused := alice.status(407)
	if got, want := first(refused, "Proxy-Authenticate"), `Bearer realm="ims.test", authz_server="https://waf.ims.test", scope="webrtc-ims-client-access-to-ims"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	alice.newCall()
	alice.send(alice.request("INVITE", bob.aor(), token))
	inv := bob.incoming(sip.INVITE)
	answer := bob.respond(inv, 200, "OK")
	ok := alice.status(200)
	caller, callee := callerLeg(t, alice, ok), calleeLeg(t, bob, inv, answer)
	caller.ack(ok) // which nobody can refuse (RFC 3261 §22.1)
	bob.incoming(sip.ACK)
	callee.to(alice, sip.INFO)
	caller.send("BYE")
	if res := alice.response(sip.BYE); res.StatusCode != 407 {
		t.Errorf("BYE without a token got %d, want 407", res.StatusCode)
	}
	caller.send("BYE", token)
	bob.respond(bob.incoming(sip.BYE), 200, "OK")
	if res := alice.response(sip.BYE); res.StatusCode != 200 {
		t.Errorf("BYE with a token got %d, want 200", res.StatusCode)
	}
	if got := r.metric("epcscf_tokens_total", "result="+tokenMissing); got != 2 {
		t.Errorf("%v counted, want 2", got)
	}
}

// TestCancelWhileVerified: a CANCEL that overtakes the verdict on its INVITE is not lost.
func TestCancelWhileVerified(t *testing.T) {
	waf := newWAF(time.Hour)
	r := newRig(t, trustingCore(t), withBearer(waf))
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustBearer()
	bob.mustRegister()
	waf.wait = make(chan struct{})
	alice.newCall()
	invite := alice.request("INVITE", bob.aor(), "Authorization: Bearer token-alice")
	alice.send(invite)
	alice.status(100)
	alice.send(strings.ReplaceAll(invite, "INVITE", "CANCEL"))
	alice.status(200)
	close(waf.wait)
	inv := bob.incoming(sip.INVITE)
	bob.respond(inv, 180, "Ringing")
	bob.respond(bob.incoming(sip.CANCEL), 200, "OK")
	bob.respond(inv, 487, "Request Terminated")
	if res := alice.response(sip.INVITE); res.StatusCode != 487 {
		t.Errorf("INVITE got %d, want 487", res.StatusCode)
	}
}

// TestVerdictAfterTheFlow: a WIC that is gone when the verdict comes is not registered.
func TestVerdictAfterTheFlow(t *testing.T) {
	waf := newWAF(time.Hour)
	waf.wait = make(chan struct{})
	core, addr := startStub(t)
	r := newRig(t, addr, withBearer(waf))
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Authorization: Bearer token-alice"))
	eventually(t, "the REGISTER read", func() bool { return r.metric("epcscf_sip_requests_total", "from=wic", "method=REGISTER") == 1 })
	_ = w.ws.Close()
	eventually(t, "the flow ended", func() bool { return r.metric("epcscf_flows") == 0 })
	close(waf.wait)
	eventually(t, "the refusal", func() bool { return r.metric("epcscf_sip_responses_total", "to=wic", "class=4xx") == 1 })
	select {
	case m := <-core.in:
		t.Errorf("the core got\n%s", m)
	default:
	}
}
