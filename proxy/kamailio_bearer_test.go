package proxy

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// TestBearerThroughACore: registration by web authentication from the WIC to a registrar that
// trusts the edge, the miniature one and Kamailio: register, call, refresh, the token's end and
// its revocation.
func TestBearerThroughACore(t *testing.T) {
	for _, name := range []string{"minicore", "kamailio"} {
		t.Run(name, func(t *testing.T) {
			waf := newWAF(time.Hour)
			var r *rig
			if name == "minicore" {
				r = newRig(t, trustingCore(t), withBearer(waf))
			} else {
				k := newKamailio(t)
				k.args = []string{"-A", `TRUSTED_EDGES="127.0.0.1/32"`}
				k.start()
				r = newRig(t, k.addr, withBearer(waf))
			}
			alice, bob := r.dial("alice"), r.dial("bob")
			alice.mustBearer()
			bob.mustBearer()
			call := func() {
				t.Helper()
				alice.newCall()
				alice.send(alice.request("INVITE", bob.aor(), "Authorization: Bearer token-alice"))
				inv := bob.incoming(sip.INVITE)
				answer := bob.respond(inv, 200, "OK")
				ok := alice.status(200)
				caller, callee := callerLeg(t, alice, ok), calleeLeg(t, bob, inv, answer)
				caller.ack(ok)
				bob.incoming(sip.ACK)
				callee.to(alice, sip.BYE)
			}
			call()
			alice.mustBearer() // a refresh
			call()

			// Of another user, the core takes no Digest for it either.
			if res := r.dial("carol").bearer("600", "Authorization: Bearer token-alice"); res.StatusCode != 403 {
				t.Errorf("carol with alice's token got %d, want 403", res.StatusCode)
			}

			if n, err := r.proxy.RevokeToken(t.Context(), "grant-bob"); n != 1 || err != nil {
				t.Fatalf("RevokeToken: %d, %v", n, err)
			}
			bob.ended()
			gone := func(what string, status int) {
				t.Helper()
				eventually(t, what, func() bool {
					alice.newCall()
					alice.send(alice.request("INVITE", bob.aor()))
					return alice.response(sip.INVITE).StatusCode == status
				})
			}
			gone("the core has let go of bob", 480)

			soon := claimsOf("bob", time.Now().Add(2500*time.Millisecond))
			soon.ID, soon.Grant = "next", "next"
			waf.set("token-next", soon)
			bob = r.dial("bob")
			if res := bob.bearer("600", "Authorization: Bearer token-next"); res.StatusCode != 200 {
				t.Fatalf("bob with a new token got %d %s", res.StatusCode, res.Reason)
			}
			eventually(t, "bob's registration has ended with the token", func() bool { return r.metric("epcscf_registrations") == 1 })
			bob.send(bob.request("MESSAGE", alice.aor()))
			if res := bob.response(sip.MESSAGE); res.StatusCode != 403 {
				t.Errorf("bob after the token's end got %d, want 403", res.StatusCode)
			}
			flows := r.metric("epcscf_flows")
			_ = bob.ws.Close() // nobody would answer a call that is faster than the word to the core
			eventually(t, "bob's flow has ended", func() bool { return r.metric("epcscf_flows") < flows })
			gone("in the core too", 480)
		})
	}
}

// TestKamailioIgnoresTheWord: a core that does not trust the edge challenges the user, who has
// no password: the 401 passes, nothing is registered.
func TestKamailioIgnoresTheWord(t *testing.T) {
	k := newKamailio(t)
	k.start()
	r := newRig(t, k.addr, withBearer(newWAF(time.Hour)))
	w := r.dial("alice")
	if res := w.bearer("600", "Authorization: Bearer token-alice"); res.StatusCode != 401 || isBearer(first(res, "WWW-Authenticate")) {
		t.Errorf("got %d, %q, want the core's challenge", res.StatusCode, first(res, "WWW-Authenticate"))
	}
	if got := r.metric("epcscf_registrations"); got != 0 {
		t.Errorf("%v registrations, want none", got)
	}
}

// TestKamailioSnippetOfTheREADME: what the README shows is what the tests run.
func TestKamailioSnippetOfTheREADME(t *testing.T) {
	words := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
	readme, config := words("../README.md"), words("../docs/kamailio/registrar.cfg")
	_, snippet, _ := strings.Cut(readme, "``` $var(impi)")
	snippet, _, ok := strings.Cut(snippet, " ```")
	if !ok || !strings.Contains(config, "$var(impi)"+snippet) {
		t.Errorf("docs/kamailio/registrar.cfg does not have the README's $var(impi)%s", snippet)
	}
}
