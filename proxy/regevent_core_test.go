package proxy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// TestTerminatedByCore: an operator of the core ends or shortens a registration.
func TestTerminatedByCore(t *testing.T) {
	for _, tt := range []struct {
		event string
		close int
	}{{"rejected", websocket.ClosePolicyViolation}, {"deactivated", websocket.CloseNormalClosure}, {"probation", websocket.CloseNormalClosure}} {
		t.Run(tt.event, func(t *testing.T) {
			t.Parallel()
			relay := &relayStub{}
			core, addr := runMinicore(t, nil)
			r := newRig(t, addr, func(c *Config) { c.RegEvent, c.Provisioner = true, sharedKey(t, relay) })
			w := r.dial("alice")
			w.mustRegister(askHeader)
			eventually(t, "the first NOTIFY", func() bool { return r.metric("epcscf_regevent_notifies_total", "result=applied") > 0 })

			// The WIC watches itself too, and hears of it before its socket is closed.
			w.callID = newTag()
			w.send(w.request("SUBSCRIBE", w.aor(), "Event: reg", "Accept: application/reginfo+xml", "Expires: 600"))
			hear := func(want string) {
				t.Helper()
				notify := w.incoming(sip.NOTIFY)
				if body := string(notify.Body()); !strings.Contains(body, want) {
					t.Errorf("the WIC was told\n%s\nwant %s", body, want)
				}
				w.respond(notify, 200, "OK")
			}
			hear(`state="active"`)

			if err := core.Terminate("sip:alice@ims.test", tt.event); err != nil {
				t.Fatal(err)
			}
			hear(`event="` + tt.event + `"`)
			var closed *websocket.CloseError
			if end := w.ended(); !errors.As(end.err, &closed) || closed.Code != tt.close {
				t.Errorf("closed with %v, want %d", end.err, tt.close)
			}
			if got := len(relay.all()); got != 1 || relay.all()[0].KeepLive {
				t.Errorf("revocations %+v, want alice's, with what is live", relay.all())
			}
		})
	}
}

func TestShortenedByCore(t *testing.T) {
	core, addr := runMinicore(t, nil)
	r := newRig(t, addr, func(c *Config) { c.RegEvent = true })
	w := r.dial("alice")
	w.mustRegister()
	eventually(t, "the first NOTIFY", func() bool { return r.metric("epcscf_regevent_notifies_total", "result=applied") > 0 })
	if err := core.Shorten("sip:alice@ims.test", time.Minute); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shorter end", func() bool {
		return time.Until(r.proxy.Flows()[0].Registrations[0].Expires) <= time.Minute
	})
	// What the WIC does itself is no end by the core.
	if res := w.register(0); res.StatusCode != 200 {
		t.Fatalf("de-registration got %d", res.StatusCode)
	}
	eventually(t, "the subscription's end", func() bool { return r.metric("epcscf_regevent_subscriptions") == 0 })
	for _, event := range []string{"unregistered", "expired", "rejected"} {
		if got := r.metric("epcscf_registrations_ended_by_core_total", "event="+event); got != 0 {
			t.Errorf("%s counted %v, want 0", event, got)
		}
	}
}

// TestReloadIsNoEnd: a page that is loaded again registers the same device on a new flow.
func TestReloadIsNoEnd(t *testing.T) {
	relay := &relayStub{}
	_, addr := runMinicore(t, nil)
	r := newRig(t, addr, func(c *Config) { c.RegEvent, c.Provisioner = true, sharedKey(t, relay) })
	old, fresh := r.dial("alice"), r.dial("alice")
	fresh.instance, fresh.host = old.instance, "reloaded.invalid"
	old.mustRegister(askHeader)
	fresh.mustRegister(askHeader)
	eventually(t, "the NOTIFY of the change", func() bool { return r.metric("epcscf_regevent_notifies_total", "result=applied") >= 2 })
	fresh.send(fresh.request("OPTIONS", "sip:"+testDomain, askHeader))
	if c := fresh.credential(fresh.response(sip.OPTIONS)); c.Kind != sipext.KindCredential || len(relay.all()) != 0 {
		t.Errorf("after the reload: %v, revocations %+v, want a credential and none", c, relay.all())
	}
}
