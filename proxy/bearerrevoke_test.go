package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/proxy/minicore"
)

// TestRevokeToken: a revoked token, by its own name or its grant's, ends the registration at
// the edge and in the core, its call, its TURN credential and the WebSocket. Nobody else's.
func TestRevokeToken(t *testing.T) {
	for _, id := range []string{"jti-alice", "grant-alice"} {
		t.Run(id, func(t *testing.T) {
			relay := &relayStub{}
			r := newRig(t, trustingCore(t), func(c *Config) {
				withBearer(newWAF(time.Hour))(c)
				c.Provisioner = sharedKey(t, relay)
			})
			alice, bob := r.dial("alice"), r.dial("bob")
			alice.mustBearer(askHeader)
			bob.mustBearer(askHeader)
			alice.send(alice.request("INVITE", bob.aor()))
			inv := bob.incoming(sip.INVITE)
			bob.respond(inv, 200, "OK")
			alice.status(200)

			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if n, err := r.proxy.RevokeToken(ctx, "another"); n != 0 || err != nil {
				t.Errorf("another token: %d, %v", n, err)
			}
			if n, err := r.proxy.RevokeToken(ctx, id); n != 1 || err != nil {
				t.Errorf("RevokeToken: %d, %v, want 1", n, err)
			}
			if got := relay.all(); len(got) != 1 || got[0].KeepLive {
				t.Errorf("revocations %+v, want alice's, with what is live", got)
			}
			for _, w := range []*wic{alice, bob} {
				bye := w.incoming(sip.BYE)
				if got := first(bye, "Reason"); w == bob && got != reasonRevoked {
					t.Errorf("Reason = %q, want %q", got, reasonRevoked)
				}
				if w == bob {
					bob.respond(bye, 200, "OK")
				}
			}
			var closed *websocket.CloseError
			if end := alice.ended(); !errors.As(end.err, &closed) || closed.Code != websocket.ClosePolicyViolation {
				t.Errorf("closed with %v, want %d", end.err, websocket.ClosePolicyViolation)
			}
			eventually(t, "the core knows", func() bool {
				bob.newCall()
				bob.send(bob.request("MESSAGE", alice.aor()))
				return bob.response(sip.MESSAGE).StatusCode == 480
			})
			if got := r.proxy.Flows(); len(got) != 1 || len(got[0].Registrations) != 1 {
				t.Errorf("flows %+v, want bob's", got)
			}
			if res := r.dial("alice").bearer("600", "Authorization: Bearer token-alice"); res.StatusCode != 401 {
				t.Errorf("the same token again got %d, want 401", res.StatusCode)
			}
		})
	}
}

// TestRevokeWhileRegistering: a token that is revoked while its REGISTER is on the way, before
// the verdict and while the core thinks, leaves no registration and no credential.
func TestRevokeWhileRegistering(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("at the core: %v", late), func(t *testing.T) {
			relay := &relayStub{}
			waf := newWAF(time.Hour)
			core, addr := startStub(t)
			r := newRig(t, addr, func(c *Config) {
				withBearer(waf)(c)
				c.Provisioner = sharedKey(t, relay)
			})
			if !late {
				waf.wait = make(chan struct{})
			}
			w := r.dial("alice")
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Authorization: Bearer token-alice", askHeader))
			var req *sip.Request
			if late {
				req = core.request(sip.REGISTER)
			} else {
				eventually(t, "the REGISTER read", func() bool { return r.metric("epcscf_sip_requests_total", "from=wic", "method=REGISTER") == 1 })
			}
			if _, err := r.proxy.RevokeToken(t.Context(), "grant-alice"); err != nil {
				t.Fatal(err)
			}
			if !late {
				close(waf.wait)
				if res := w.response(sip.REGISTER); res.StatusCode != 401 {
					t.Errorf("got %d, want 401", res.StatusCode)
				}
				return
			}
			core.respond(r.edge, req, 200, "Contact: "+first(req, "Contact")+";expires=600")
			res := w.response(sip.REGISTER)
			if c := w.credential(res); c.Reason != reasonNotAuthorized {
				t.Errorf("a credential after the revocation: %v", c)
			}
			w.ended()
			if gone := core.request(sip.REGISTER); first(gone, "Expires") != "0" {
				t.Errorf("the core was told\n%s", gone)
			}
			eventually(t, "the end", func() bool { return r.metric("epcscf_registrations") == 0 && len(relay.all()) > 0 })
		})
	}
}

// TestRevokeAfterTheFlow: what a lost flow has left for its grace ends too.
func TestRevokeAfterTheFlow(t *testing.T) {
	relay := &relayStub{}
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(newWAF(time.Hour))(c)
		c.Provisioner, c.FlowGrace = sharedKey(t, relay), time.Hour
	})
	w := r.dial("alice")
	w.mustBearer(askHeader)
	_ = w.ws.Close()
	eventually(t, "the flow ended", func() bool { return r.metric("epcscf_flows") == 0 })
	if n, err := r.proxy.RevokeToken(t.Context(), "jti-alice"); n != 1 || err != nil || len(relay.all()) != 1 {
		t.Errorf("RevokeToken: %d, %v, revocations %+v, want 1", n, err, relay.all())
	}
}

// TestRevokeAfterRenewal: the device has gone on with another token, so the old one is nobody's.
func TestRevokeAfterRenewal(t *testing.T) {
	relay := &relayStub{}
	waf := newWAF(time.Hour)
	next := claimsOf("alice", time.Now().Add(time.Hour))
	next.ID = "jti-next"
	waf.set("token-next", next)
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(waf)(c)
		c.Provisioner = sharedKey(t, relay)
	})
	w := r.dial("alice")
	w.mustBearer(askHeader)
	if res := w.bearer("600", "Authorization: Bearer token-next"); res.StatusCode != 200 {
		t.Fatalf("refresh got %d", res.StatusCode)
	}
	if n, err := r.proxy.RevokeToken(t.Context(), "jti-alice"); n != 0 || err != nil || len(relay.all()) != 0 {
		t.Errorf("the old token: %d, %v, %+v, want nothing", n, err, relay.all())
	}
	if n, err := r.proxy.RevokeToken(t.Context(), "jti-next"); n != 1 || err != nil || len(relay.all()) != 1 {
		t.Errorf("the new token: %d, %v, %+v, want 1", n, err, relay.all())
	}
}

// TestTokenEnds: a registration ends with its token, whatever the core has granted.
func TestTokenEnds(t *testing.T) {
	relay := &relayStub{}
	r := newRig(t, startMinicore(t, func(c *minicore.Config) { c.TrustedEdges = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }), func(c *Config) {
		withBearer(newWAF(2 * time.Second))(c)
		c.Provisioner = sharedKey(t, relay)
	})
	w := r.dial("alice")
	w.mustBearer(askHeader)
	eventually(t, "the end", func() bool { return r.metric("epcscf_registrations") == 0 && len(relay.all()) == 1 })
}

// TestGrantEndedIsTold: when the last registration on a grant has ended by itself, and not
// when there is another, nor when the WAF has ended it.
func TestGrantEndedIsTold(t *testing.T) {
	told := make(chan string, 8)
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(newWAF(time.Hour))(c)
		c.Bearer.Ended = func(_ context.Context, grant string) { told <- grant }
		c.FlowGrace = 10 * time.Millisecond
	})
	const token = "Authorization: Bearer token-alice"
	one, two := r.dial("alice"), r.dial("alice")
	one.mustBearer()
	two.mustBearer()
	if got := r.proxy.Flows()[0].Registrations[0]; got.TokenID != "jti-alice" || got.WWSF != "https://wwsf.test" || got.WAF != testWAF {
		t.Errorf("an operator sees %+v", got)
	}
	if res := one.bearer("0", token); res.StatusCode != 200 {
		t.Fatalf("de-registration got %d", res.StatusCode)
	}
	bob, carol := r.dial("bob"), r.dial("carol")
	bob.mustBearer()
	carol.mustBearer()
	if _, err := r.proxy.RevokeToken(t.Context(), "grant-bob"); err != nil {
		t.Fatal(err)
	}
	_ = carol.ws.Close() // after its grace
	if got := <-told; got != "grant-carol" {
		t.Errorf("told of %s first, want grant-carol: alice has a device left, bob was revoked", got)
	}
	if res := two.bearer("0", token); res.StatusCode != 200 {
		t.Fatalf("de-registration got %d", res.StatusCode)
	}
	if got := <-told; got != "grant-alice" {
		t.Errorf("told of %s, want grant-alice", got)
	}
}

// TestRevokedTokensForget: names are kept for a while, and the number of them is bounded.
func TestRevokedTokensForget(t *testing.T) {
	var s revokedTokens
	now := time.Now()
	s.add("a", now)
	s.add("b", now.Add(revokedFor))
	if !s.has(TokenClaims{ID: "a"}) || !s.has(TokenClaims{Grant: "b"}) || s.has(TokenClaims{ID: "c"}) || s.has(TokenClaims{}) {
		t.Error("a and b, and nobody else, are remembered")
	}
	s.add("c", now.Add(2*revokedFor))
	if s.has(TokenClaims{ID: "a"}) || !s.has(TokenClaims{ID: "b"}) {
		t.Error("a is forgotten, b is not")
	}
	for i := range 3 * maxRevoked {
		s.add(fmt.Sprint(i), now)
	}
	if n := len(s.young) + len(s.old); n > 2*maxRevoked {
		t.Errorf("%d names are kept, want %d at most", n, 2*maxRevoked)
	}
}
