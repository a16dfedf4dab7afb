package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
)

// leave closes a WIC's connection as a page does that is closed, with a close frame.
func (w *wic) leave() {
	w.t.Helper()
	frame := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	if err := w.ws.WriteControl(websocket.CloseMessage, frame, time.Now().Add(time.Second)); err != nil {
		w.t.Fatal(err)
	}
	<-w.closed
}

// released waits for the edge's BYE at the core and checks it against the call.
func released(t *testing.T, c *call) {
	t.Helper()
	bye := c.core.request(sip.BYE)
	if got := first(bye, "Reason"); got != reasonFlowLost {
		t.Errorf("Reason = %q, want %q", got, reasonFlowLost)
	}
	if bye.From().Value() != c.local || bye.To().Value() != c.remote || first(bye, "Route") != coreRoute ||
		bye.Recipient.String() != "sip:bob@192.0.2.1" || bye.CallID().Value() != c.invite.CallID().Value() {
		t.Errorf("the BYE is not of the call:\n%s", bye)
	}
	if last := c.invite.CSeq().SeqNo; bye.CSeq().SeqNo <= last && c.answered.From().Value() == c.local {
		t.Errorf("CSeq %d of the BYE, want more than %d (RFC 3261 §12.2.1.1)", bye.CSeq().SeqNo, last)
	}
	c.core.respond(c.r.edge, bye, 200)
}

// TestLostFlowReleasesCalls: TS 24.229 5.2.8, for a page that was closed and for a network
// that has failed, for calls in both directions.
func TestLostFlowReleasesCalls(t *testing.T) {
	for _, tt := range []struct {
		name  string
		grace time.Duration
		lose  func(*wic)
	}{
		{"page closed: at once", time.Hour, (*wic).leave},
		{"network lost: after the grace", 20 * time.Millisecond, func(w *wic) { _ = w.ws.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, core, w, _ := registered(t, func(c *Config) { c.FlowGrace = tt.grace })
			out := callOut(t, r, core, w)
			tt.lose(w)
			released(t, out)

			r, core, w, reg := registered(t, func(c *Config) { c.FlowGrace = tt.grace })
			in := callIn(t, r, core, w, pathOf(reg))
			tt.lose(w)
			released(t, in)
			if got := r.metric("epcscf_calls_released_total"); got != 1 {
				t.Errorf("%v calls released, want 1", got)
			}
		})
	}
}

// TestReconnectKeepsTheCall: the same instance on a new flow goes on with the call (RFC 5626
// §4.2, §4.5): its requests pass with the old route set, and the core's find it by the old
// token. The old flow may still stand, as after a change of networks.
func TestReconnectKeepsTheCall(t *testing.T) {
	for _, lost := range []bool{true, false} {
		contact := "Contact: <sip:alice@alice1.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:1>\""
		r, core, old, _ := registered(t, nil, contact)
		c := callOut(t, r, core, old)
		if lost {
			_ = old.ws.Close()
			eventually(t, "the flow ended", func() bool { return r.metric("epcscf_flows") == 0 })
			core.send(r.edge, c.fromCore("INFO"))
			core.response(430) // RFC 5626 §5.3.1: nobody is there yet
		}
		w := r.dial("alice")
		w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", contact))
		core.accept(r.edge)
		w.response(sip.REGISTER)

		if !lost {
			c.send("INFO")
			if res := old.response("INFO"); res.StatusCode != 403 {
				t.Errorf("an INFO by the flow of before got %d, want 403", res.StatusCode)
			}
		}
		c.w = w
		c.send("UPDATE")
		core.respond(r.edge, core.request(sip.UPDATE), 200)
		if res := w.response(sip.UPDATE); res.StatusCode != 200 {
			t.Errorf("an UPDATE over the new flow got %d, want 200", res.StatusCode)
		}
		core.send(r.edge, c.fromCore("BYE"))
		w.respond(w.incoming(sip.BYE), 200, "OK")
		core.response(200)
	}
}

// TestLostCallerIsHungUp: a 2xx that comes after the caller has gone gets its ACK and a BYE
// (RFC 3261 §13.2.2.4); the CANCEL before it said why (RFC 3326 §2).
func TestLostCallerIsHungUp(t *testing.T) {
	r, core, w, _ := registered(t, nil)
	w.send(w.request("INVITE", "sip:bob@ims.test"))
	inv := core.request(sip.INVITE)
	core.respond(r.edge, inv, 180)
	w.status(180)
	_ = w.ws.Close()
	cancel := core.request(sip.CANCEL)
	if got := first(cancel, "Reason"); got != reasonFlowLost {
		t.Errorf("Reason = %q of the CANCEL, want %q", got, reasonFlowLost)
	}
	core.respond(r.edge, cancel, 200)
	core.respond(r.edge, inv, 200, append(recorded(inv), "Contact: <sip:bob@192.0.2.1>")...) // they crossed
	ack := core.request(sip.ACK)
	bye := core.request(sip.BYE)
	for _, req := range []*sip.Request{ack, bye} {
		if first(req, "Route") != coreRoute || req.Recipient.String() != "sip:bob@192.0.2.1" || toTag(req) == "" {
			t.Errorf("%s is not of the call:\n%s", req.Method, req)
		}
	}
	if ack.CSeq().SeqNo != inv.CSeq().SeqNo || bye.CSeq().SeqNo != inv.CSeq().SeqNo+1 {
		t.Errorf("CSeq %v and %v, want that of the INVITE and the next", ack.CSeq(), bye.CSeq())
	}
	core.respond(r.edge, bye, 200)
}

// TestReleaseBothSides: the calls of a registration that the core has taken back end on both
// sides (TS 24.229 5.2.5.2, known to us by digests).
func TestReleaseBothSides(t *testing.T) {
	r, core, w, reg := registered(t, nil)
	c := callIn(t, r, core, w, pathOf(reg))
	const reason = reasonDeregistered
	r.proxy.endedByNetwork(r.proxy.flows.all()[0].registrationsOf("sip:alice@ims.test")[0], eventDeactivated)
	for side, bye := range map[string]*sip.Request{"core": core.request(sip.BYE), "WIC": w.incoming(sip.BYE)} {
		if got := first(bye, "Reason"); got != reason {
			t.Errorf("%s: Reason = %q, want %q", side, got, reason)
		}
		if side == "WIC" {
			if bye.From().Value() != c.remote || bye.To().Value() != c.local || !strings.Contains(bye.Recipient.String(), "alice1.invalid") {
				t.Errorf("the WIC's BYE is not of the call:\n%s", bye)
			}
			w.respond(bye, 200, "OK")
		} else {
			core.respond(r.edge, bye, 200)
		}
	}
	if n := r.metric("epcscf_dialogs"); n != 0 {
		t.Errorf("%v dialogs left", n)
	}
}
