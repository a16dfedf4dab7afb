package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/proxy/minicore"
	"epcscf/sipext"
	"epcscf/turncred"
)

const askHeader = sipext.TurnCredHeader + ": request"

func TestCredentialOnRegister(t *testing.T) {
	relay := &relayStub{}
	byPush, table := pushed(t, relay)
	for _, tt := range []struct {
		name string
		prov turncred.Provisioner
		ask  string
	}{
		{"shared-key", sharedKey(t, relay), askHeader},
		{"push", byPush, "Supported: path, " + sipext.OptionTag},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, startMinicore(t, nil), func(c *Config) { c.Provisioner = tt.prov })
			w := r.dial("alice")
			c := w.credential(w.mustRegister(tt.ask))
			if c.Kind != sipext.KindCredential || c.Approach != tt.name || c.TTL != 600*time.Second || len(c.URIs) != 2 {
				t.Errorf("credential %v approach %q ttl %v uris %v, want one by %s for 600 s with two URIs", c, c.Approach, c.TTL, c.URIs, tt.name)
			}
			if got := r.metric("epcscf_credentials_total", "result=issued"); got != 1 {
				t.Errorf("issued counter = %v, want 1", got)
			}
		})
	}
	if table.Len() != 1 {
		t.Errorf("push table has %d records, want 1", table.Len())
	}
}

func TestNoWishNoCredential(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), func(c *Config) { c.Provisioner = sharedKey(t, &relayStub{}) })
	res := r.dial("alice").mustRegister()
	if _, ok, _ := sipext.TurnCredOf(res); ok {
		t.Errorf("credential on a 200 that did not ask:\n%s", res)
	}
}

func TestOfferAlways(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), func(c *Config) {
		c.Provisioner, c.Offer = sharedKey(t, &relayStub{}), OfferAlways
	})
	w := r.dial("alice")
	w.credential(w.mustRegister())
}

func TestRenewalByOptions(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), func(c *Config) { c.Provisioner = sharedKey(t, &relayStub{}) })
	w := r.dial("alice")
	w.send(w.request("OPTIONS", "sip:"+testDomain, askHeader))
	if res := w.response(sip.OPTIONS); res.StatusCode != 403 {
		t.Errorf("OPTIONS before REGISTER got %d, want 403", res.StatusCode)
	}
	one := w.credential(w.mustRegister(askHeader))
	// JsSIP sends a Content-Type without a body.
	w.send(w.request("OPTIONS", "sip:"+testDomain, askHeader, "Content-Type: application/sdp"))
	two := w.credential(w.response(sip.OPTIONS))
	if two.Kind != sipext.KindCredential || two.Tid == one.Tid {
		t.Errorf("OPTIONS gave %v after %v, want a new credential", two, one)
	}
	w.send(w.request("OPTIONS", "sip:bob@"+testDomain, askHeader))
	res := w.response(sip.OPTIONS)
	if _, ok, _ := sipext.TurnCredOf(res); ok || res.StatusCode == 200 {
		t.Errorf("OPTIONS to bob got %d with credential %v, want the core's answer without", res.StatusCode, ok)
	}
}

// failing is a Provisioner whose relay does not answer.
type failing struct{ turncred.Provisioner }

func (failing) Provision(context.Context, turncred.Request) (turncred.Credential, error) {
	return turncred.Credential{}, &turncred.UnavailableError{
		Reason: turncred.ReasonRelayUnreachable, RetryAfter: 30 * time.Second, Err: errors.New("connection refused"),
	}
}

func TestUnavailable(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		change       func(*Config)
	}{
		{"relay down", "relay-unreachable", func(c *Config) { c.Provisioner = failing{} }},
		{"no provisioner", "disabled", func(*Config) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, startMinicore(t, nil), tt.change)
			w := r.dial("alice")
			c := w.credential(w.mustRegister(askHeader))
			if c.Kind != sipext.KindUnavailable || c.Reason != tt.reason {
				t.Errorf("got %v, want unavailable with reason %s", c, tt.reason)
			}
			if got := r.metric("epcscf_credentials_total", "result="+tt.reason); got != 1 {
				t.Errorf("counter = %v, want 1", got)
			}
		})
	}
}

// TestDeregistrationRevokes: before the 200 leaves, for this binding only.
func TestDeregistrationRevokes(t *testing.T) {
	relay := &relayStub{}
	_, codec := newMinter(t, relay)
	for _, tt := range []struct {
		name string
		rows []string
		all  bool
	}{
		{"Expires 0", nil, false},
		{"all contacts", []string{"Contact: *"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, startMinicore(t, nil), func(c *Config) { c.Provisioner = sharedKey(t, relay) })
			w := r.dial("alice")
			w.mustRegister(askHeader)
			before := len(relay.all())
			var res *sip.Response
			if tt.rows == nil {
				res = w.register(0)
			} else {
				rows := append([]string{"To: <" + w.aor() + ">", "Expires: 0"}, tt.rows...)
				w.send(w.request("REGISTER", "sip:"+testDomain, rows...))
				res = w.response(sip.REGISTER)
				w.send(w.request("REGISTER", "sip:"+testDomain, append(rows, w.authorization(res))...))
				res = w.response(sip.REGISTER)
			}
			got := relay.all()[before:]
			if res.StatusCode != 200 || len(got) != 1 {
				t.Fatalf("de-registration: %d, revocations %+v, want 200 and one", res.StatusCode, got)
			}
			want := turncred.BindingOf(w.instance, "1")
			if got[0].Subject != codec.Subject("alice@ims.test") || got[0].KeepLive || (got[0].Binding == nil) != tt.all ||
				!tt.all && *got[0].Binding != want {
				t.Errorf("revocation %+v, want alice's binding %v (all: %v)", got[0], want, tt.all)
			}
			w.send(w.request("OPTIONS", "sip:"+testDomain, askHeader))
			if res := w.response(sip.OPTIONS); res.StatusCode != 403 {
				t.Errorf("OPTIONS after de-registration got %d, want 403", res.StatusCode)
			}
		})
	}
}

func TestExpiryRevokes(t *testing.T) {
	relay := &relayStub{}
	core := startMinicore(t, func(c *minicore.Config) { c.MaxExpires = time.Second })
	r := newRig(t, core, func(c *Config) { c.Provisioner = sharedKey(t, relay) })
	w := r.dial("alice")
	w.mustRegister(askHeader)
	eventually(t, "a revocation", func() bool { return len(relay.all()) == 1 })
	if got := relay.all()[0]; got.KeepLive {
		t.Errorf("revocation %+v leaves live allocations, want them ended", got)
	}
	if got := r.metric("epcscf_registrations"); got != 0 {
		t.Errorf("registrations = %v, want 0", got)
	}
}

func TestLostFlow(t *testing.T) {
	relay := &relayStub{}
	core := startMinicore(t, nil)
	r := newRig(t, core, func(c *Config) {
		c.Provisioner, c.FlowGrace = sharedKey(t, relay), 50*time.Millisecond
	})
	t.Run("grace over", func(t *testing.T) {
		w := r.dial("alice")
		w.mustRegister(askHeader)
		_ = w.ws.Close()
		eventually(t, "a revocation", func() bool { return len(relay.all()) == 1 })
		if got := relay.all()[0]; !got.KeepLive {
			t.Errorf("revocation %+v ends live allocations, want them kept", got)
		}
	})
	t.Run("registered on another flow", func(t *testing.T) {
		old, fresh := r.dial("bob"), r.dial("bob")
		fresh.instance = old.instance
		old.mustRegister(askHeader)
		fresh.mustRegister(askHeader)
		_ = old.ws.Close()
		eventually(t, "the old flow gone", func() bool { return r.metric("epcscf_flows") == 1 })
		// The fresh flow goes too: its revocation, and no other, is bob's.
		_ = fresh.ws.Close()
		eventually(t, "bob's revocation", func() bool { return len(relay.all()) >= 2 })
		if got := len(relay.all()); got != 2 {
			t.Errorf("%d revocations, want 2: the superseded flow must not revoke", got)
		}
	})
}

// TestLostFlowMovesToAnotherEdge: what an edge takes back after the grace is what it issued,
// and not what the device has got from the edge that it moved to.
func TestLostFlowMovesToAnotherEdge(t *testing.T) {
	relay := &relayStub{}
	core := startMinicore(t, nil)
	var issued [2]*lastIssued
	var wics [2]*wic
	for i := range wics {
		issued[i] = &lastIssued{Provisioner: sharedKey(t, relay)}
		r := newRig(t, core, func(c *Config) { c.Provisioner, c.FlowGrace = issued[i], 50*time.Millisecond })
		wics[i] = r.dial("alice")
	}
	wics[1].instance = wics[0].instance
	wics[0].mustRegister(askHeader)
	eventually(t, "another issue time", func() bool { return turncred.IssueTimeAt(time.Now()) > issued[0].cred.Identity.Issued })
	wics[1].mustRegister(askHeader)
	_ = wics[0].ws.Close()
	eventually(t, "a revocation", func() bool { return len(relay.all()) == 1 })
	first, second, got := issued[0].cred, issued[1].cred, relay.all()[0]
	if !got.Hits(first.Tid, first.Identity) || got.Hits(second.Tid, second.Identity) {
		t.Errorf("revocation %+v, want it to hit %+v and spare %+v", got, first.Identity, second.Identity)
	}
}

// lastIssued remembers a credential.
type lastIssued struct {
	turncred.Provisioner
	cred turncred.Credential
}

func (l *lastIssued) Provision(ctx context.Context, r turncred.Request) (_ turncred.Credential, err error) {
	l.cred, err = l.Provisioner.Provision(ctx, r)
	return l.cred, err
}

// TestRetransmittedRegister: the same request again gets the same answer.
func TestRetransmittedRegister(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), func(c *Config) { c.Provisioner = sharedKey(t, &relayStub{}) })
	w := r.dial("alice")
	rows := []string{"To: <" + w.aor() + ">", "Expires: 600", askHeader}
	w.send(w.request("REGISTER", "sip:"+testDomain, rows...))
	req := w.request("REGISTER", "sip:"+testDomain, append(rows, w.authorization(w.response(sip.REGISTER)))...)
	w.send(req)
	one := w.credential(w.response(sip.REGISTER))
	w.send(req)
	two := w.credential(w.response(sip.REGISTER))
	if one.Tid != two.Tid {
		t.Errorf("retransmission made a second credential: %v, %v", one, two)
	}
	if got := r.metric("epcscf_credentials_total", "result=issued"); got != 1 {
		t.Errorf("issued = %v, want 1", got)
	}
}

func TestMalformedWish(t *testing.T) {
	r := newRig(t, startMinicore(t, nil), nil)
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", askHeader, askHeader))
	if res := w.response(sip.REGISTER); res.StatusCode != 400 || !strings.Contains(res.Reason, sipext.TurnCredHeader) {
		t.Errorf("repeated header got %d %s, want 400 that names it", res.StatusCode, res.Reason)
	}
}
