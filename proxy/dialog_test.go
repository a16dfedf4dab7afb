package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// call is an answered call between a WIC and the stub, as both ends know it.
type call struct {
	r        *rig
	core     *stub
	w        *wic
	route    []string // the WIC's Route rows
	back     []string // the core's Route rows
	local    string   // the WIC's party, with tag
	remote   string   // the core's
	coreSeq  int
	invite   *sip.Request // as it reached the callee
	answered *sip.Response
}

const coreRoute = "<sip:scscf.ims.test;lr>"

// recorded are the rows of a core that stays in the route of what came to it.
func recorded(req *sip.Request) []string {
	rows := []string{"Record-Route: " + coreRoute}
	for _, e := range elements(req, "Record-Route") {
		rows = append(rows, "Record-Route: "+e)
	}
	return rows
}

// callOut lets the WIC call the core.
func callOut(t *testing.T, r *rig, core *stub, w *wic, rows ...string) *call {
	t.Helper()
	w.send(w.request("INVITE", "sip:bob@ims.test", rows...))
	inv := core.request(sip.INVITE)
	core.respond(r.edge, inv, 200, append(recorded(inv), "Contact: <sip:bob@192.0.2.1>")...)
	ok := w.status(200)
	c := &call{r: r, core: core, w: w, invite: inv, answered: ok, local: ok.From().Value(), remote: ok.To().Value(), coreSeq: 100}
	c.route = routeSet(ok, true)
	for _, e := range elements(inv, "Record-Route") {
		c.back = append(c.back, "Route: "+e)
	}
	c.send("ACK", "CSeq: "+fmt.Sprint(inv.CSeq().SeqNo)+" ACK")
	core.request(sip.ACK)
	return c
}

// callIn lets the core call the WIC, whose Path is known.
func callIn(t *testing.T, r *rig, core *stub, w *wic, path string, rows ...string) *call {
	t.Helper()
	core.send(r.edge, core.ask("INVITE", w.contact(), append([]string{"Route: " + path, "Contact: <sip:bob@192.0.2.1>", "Record-Route: " + coreRoute}, rows...)...))
	inv := w.incoming(sip.INVITE)
	w.respond(inv, 200, "OK")
	ok := core.response(200)
	c := &call{r: r, core: core, w: w, invite: inv, answered: ok, local: ok.To().Value(), remote: ok.From().Value(), coreSeq: 100}
	w.callID = inv.CallID().Value()
	c.route = routeSet(inv, false)
	rows = nil
	for _, e := range elements(ok, "Record-Route") {
		if e != coreRoute {
			rows = append([]string{"Route: " + e}, rows...)
		}
	}
	c.back = rows
	core.send(r.edge, c.fromCore("ACK", "CSeq: 1 ACK"))
	w.incoming(sip.ACK)
	return c
}

// within writes a request of the WIC in the call; rows replace the usual ones.
func (c *call) within(method string, rows ...string) string {
	all := append([]string{"From: " + c.local, "To: " + c.remote, "Call-ID: " + c.invite.CallID().Value()}, rows...)
	if !slices.ContainsFunc(rows, func(s string) bool { return strings.HasPrefix(s, "Route:") }) {
		all = append(all, c.route...)
	}
	// Later rows win over earlier ones of the same name.
	var kept []string
	for i, row := range all {
		name, _, _ := strings.Cut(row, ":")
		if name == "Route" || !slices.ContainsFunc(all[i+1:], func(s string) bool { return strings.HasPrefix(s, name+":") }) {
			kept = append(kept, row)
		}
	}
	return c.w.request(method, "sip:bob@192.0.2.1", kept...)
}

func (c *call) send(method string, rows ...string) {
	c.w.t.Helper()
	c.w.send(c.within(method, rows...))
}

// fromCore writes a request of the core in the call.
func (c *call) fromCore(method string, rows ...string) []byte {
	c.coreSeq++
	all := []string{
		"From: " + c.remote, "To: " + c.local, "Call-ID: " + c.invite.CallID().Value(), fmt.Sprintf("CSeq: %d %s", c.coreSeq, method),
		"Max-Forwards: 70", "Content-Length: 0",
	}
	if !slices.ContainsFunc(rows, func(s string) bool { return strings.HasPrefix(s, "Route:") }) {
		all = append(all, c.back...)
	}
	for _, row := range rows {
		name, _, _ := strings.Cut(row, ":")
		all = slices.DeleteFunc(all, func(s string) bool { return name != "Route" && strings.HasPrefix(s, name+":") })
		all = append(all, row)
	}
	start := []string{method + " " + c.w.contact() + " SIP/2.0", "Via: SIP/2.0/UDP " + c.core.conn.LocalAddr().String() + ";branch=" + newBranch()}
	return []byte(lines(append(start, all...)...))
}

func pathOf(reg *sip.Request) string { return elements(reg, "Path")[0] }

// TestRequestsWithinADialog: TS 24.229 5.2.6.3.5 and RFC 3261 §12.2, both ways, for calls in
// both directions.
func TestRequestsWithinADialog(t *testing.T) {
	for _, dir := range []string{"out", "in"} {
		for _, mismatch := range []RouteMismatch{RouteReplace, RouteReject} {
			t.Run(dir+"/"+string(mismatch), func(t *testing.T) {
				r, core, w, reg := registered(t, func(c *Config) { c.RouteMismatch = mismatch })
				rows := []string{}
				var c *call
				if dir == "out" {
					if mismatch == RouteReject {
						rows = []string{"Route: <sip:orig@scscf.ims.test;lr>, <sip:second.ims.test;lr>"}
					}
					c = callOut(t, r, core, w, rows...)
				} else {
					c = callIn(t, r, core, w, pathOf(reg))
				}
				wrong := 0 // status for a Route that is not the dialog's
				if mismatch == RouteReject {
					wrong = 400
				}
				for _, tt := range []struct {
					clause string
					rows   []string
					want   int // 0: forwarded
				}{
					{"the dialog's route passes: RFC 3261 §12.2.1.1", nil, 0},
					{"no Route: TS 24.229 5.2.6.3.5", []string{"Route:"}, wrong},
					{"a Route of its own choice: TS 24.229 5.2.6.3.5", []string{c.route[0], c.route[1], "Route: <sip:evil.example;lr>"}, wrong},
					{"one more element: TS 24.229 5.2.6.3.5", append(slices.Clone(c.route), "Route: <sip:evil.example;lr>"), wrong},
					{"a forged flow token: RFC 5626 §5.3.1", []string{strings.Replace(c.route[0], "sip:", "sip:A", 1)}, 403},
					{"another remote tag: RFC 3261 §12.2.2", []string{"To: <sip:bob@ims.test>;tag=no"}, 481},
					{"another local tag: RFC 3261 §12.2.2", []string{"From: <" + w.aor() + ">;tag=no"}, 481},
					{"another Call-ID: RFC 3261 §12.2.2", []string{"Call-ID: no"}, 481},
				} {
					c.send("INFO", tt.rows...)
					if tt.want == 0 {
						info := core.request("INFO")
						if got := elements(info, "Route"); !slices.Equal(got, []string{coreRoute}) {
							t.Errorf("%s: Route %q, want the dialog's", tt.clause, got)
						}
						core.respond(r.edge, info, 200)
					}
					res := w.response("INFO")
					if want := max(tt.want, 200); res.StatusCode != want {
						t.Errorf("%s: got %d %s, want %d", tt.clause, res.StatusCode, res.Reason, want)
					}
					if tt.want == 400 && !strings.HasPrefix(first(res, "Warning"), "399 ") {
						t.Errorf("%s: Warning %q, want 399", tt.clause, first(res, "Warning"))
					}
				}
				testStrangers(t, c, reg)
				testEnd(t, c)
			})
		}
	}
}

// testStrangers: who is no participant gets 403 where the dialog is, and the core must come
// by the dialog's own flow.
func testStrangers(t *testing.T, c *call, reg *sip.Request) {
	r, core := c.r, c.core
	carol := r.dial("carol")
	carol.send(carol.request("REGISTER", "sip:"+testDomain, "To: <"+carol.aor()+">"))
	carolReg := core.accept(r.edge)
	carol.response(sip.REGISTER)
	stranger := *c
	stranger.w = carol
	stranger.send("BYE")
	if res := carol.response(sip.BYE); res.StatusCode != 403 {
		t.Errorf("a BYE of a registered stranger got %d, want 403", res.StatusCode)
	}
	dropped := r.metric("epcscf_sip_dropped_total", "reason="+dropUnroutable)
	stranger.send("ACK")
	eventually(t, "a stranger's ACK dropped", func() bool {
		return r.metric("epcscf_sip_dropped_total", "reason="+dropUnroutable) == dropped+1
	})
	for _, tt := range []struct {
		clause string
		rows   []string
		want   int
	}{
		{"within no dialog: RFC 3261 §12.2.2", []string{"Call-ID: no"}, 481},
		{"by another's flow: RFC 5626 §5.3.1", []string{"Route: " + pathOf(carolReg)}, 481},
		{"without a flow: RFC 5626 §5.3.1", []string{"Route: <sip:" + r.edge.String() + ";lr>"}, 404},
		{"by a flow that is gone: RFC 5626 §5.3.1", []string{"Route: " + strings.Replace(pathOf(reg), string(tokenOf(t, pathOf(reg))), string(r.proxy.tokens.seal(99)), 1)}, 481},
	} {
		core.send(r.edge, c.fromCore("INFO", tt.rows...))
		if res := finalAt(core); res.StatusCode != tt.want {
			t.Errorf("core %s: got %d %s, want %d", tt.clause, res.StatusCode, res.Reason, tt.want)
		}
	}
	core.send(r.edge, c.fromCore("INFO"))
	c.w.respond(c.w.incoming("INFO"), 200, "OK")
	core.response(200)
}

// finalAt returns the next final response at the core.
func finalAt(s *stub) *sip.Response {
	s.t.Helper()
	for {
		if res, ok := s.next().(*sip.Response); ok && res.StatusCode >= 200 {
			return res
		}
	}
}

// testEnd: after the BYE there is no dialog (RFC 3261 §15.1.2).
func testEnd(t *testing.T, c *call) {
	c.core.send(c.r.edge, c.fromCore("BYE"))
	c.w.respond(c.w.incoming(sip.BYE), 200, "OK")
	c.core.response(200)
	c.send("INFO")
	if res := c.w.response("INFO"); res.StatusCode != 481 {
		t.Errorf("after the BYE an INFO got %d, want 481", res.StatusCode)
	}
	if n := c.r.metric("epcscf_dialogs"); n != 0 {
		t.Errorf("%v dialogs after the BYE, want none", n)
	}
}

// TestEarlyDialogs: each fork that answers makes one; a failure ends them all (RFC 3261
// §12.1, §12.3). PRACK (RFC 3262 §3), UPDATE (RFC 3311 §5.1) and session timers (RFC 4028
// §8) pass through them untouched.
func TestEarlyDialogs(t *testing.T) {
	r, core, w, _ := registered(t, nil)
	w.send(w.request("INVITE", "sip:bob@ims.test", "Supported: 100rel, timer", "Session-Expires: 1800;refresher=uac", "Min-SE: 90"))
	inv := core.request(sip.INVITE)
	for name, want := range map[string]string{"Session-Expires": "1800;refresher=uac", "Min-SE": "90", "Supported": "100rel, timer"} {
		if got := first(inv, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	var forks []*sip.Response
	for i := range 2 { // newReply makes another tag each time
		core.respond(r.edge, inv, 183, append(recorded(inv), "Require: 100rel", fmt.Sprintf("RSeq: %d", i+1), "Contact: <sip:bob@192.0.2.1>")...)
		forks = append(forks, w.status(183))
	}
	if got := first(forks[1], "RSeq"); got != "2" {
		t.Errorf("RSeq = %q, want 2", got)
	}
	for i, fork := range forks {
		for _, method := range []string{"PRACK", "UPDATE"} {
			rack := fmt.Sprintf("RAck: %d %d INVITE", i+1, inv.CSeq().SeqNo)
			w.send(w.request(method, "sip:bob@192.0.2.1", append(routeSet(fork, true), "To: "+fork.To().Value(), rack, "Session-Expires: 1800;refresher=uac")...))
			req := core.request(sip.RequestMethod(method))
			if toTag(req) != toTag(fork) || "RAck: "+first(req, "RAck") != rack {
				t.Errorf("%s reached the core as\n%s", method, req)
			}
			core.respond(r.edge, req, 200, "Session-Expires: 1800;refresher=uas")
			if got := first(w.response(req.Method), "Session-Expires"); got != "1800;refresher=uas" {
				t.Errorf("%s: Session-Expires = %q in the 200", method, got)
			}
		}
	}
	if n := r.metric("epcscf_dialogs"); n != 2 {
		t.Errorf("%v dialogs of two forks", n)
	}
	core.respond(r.edge, inv, 422, "Min-SE: 3600")
	if got := first(w.status(422), "Min-SE"); got != "3600" {
		t.Errorf("Min-SE = %q in the 422, want 3600 (RFC 4028 §6)", got)
	}
	w.send(w.request("PRACK", "sip:bob@192.0.2.1", append(routeSet(forks[0], true), "To: "+forks[0].To().Value())...))
	if res := w.response("PRACK"); res.StatusCode != 481 {
		t.Errorf("a PRACK after the call failed got %d, want 481", res.StatusCode)
	}
	if n := r.metric("epcscf_dialogs"); n != 0 {
		t.Errorf("%v dialogs left by a failed call", n)
	}
}

// TestRecordRouteOfWIC: a WIC's response cannot bend the route of the other side's requests.
func TestRecordRouteOfWIC(t *testing.T) {
	r, core, w, reg := registered(t, nil)
	core.send(r.edge, core.ask("INVITE", w.contact(), "Route: "+pathOf(reg), "Contact: <sip:bob@192.0.2.1>", "Record-Route: "+coreRoute))
	inv := w.incoming(sip.INVITE)
	sipext.Strip(inv, "Record-Route")
	w.respond(inv, 180, "Ringing", "Record-Route: <sip:evil.example;lr>")
	if got := elements(core.response(180), "Record-Route"); len(got) != 3 || got[2] != coreRoute || strings.Contains(strings.Join(got, " "), "evil") {
		t.Errorf("Record-Route = %q, want ours two and the core's", got)
	}
	w.respond(inv, 486, "Busy Here")
	core.response(486)
}

// TestSubscriptions: the dialog is there for a NOTIFY that overtakes the 200, and ends with
// the last NOTIFY (RFC 6665 §4.1.3, §4.4.1); that of a REFER outlives the call's BYE (RFC
// 5057 §3.1).
func TestSubscriptions(t *testing.T) {
	r, core, w, reg := registered(t, nil)
	w.send(w.request("SUBSCRIBE", "sip:bob@ims.test", "Event: presence", "Expires: 600"))
	sub := core.request(sip.SUBSCRIBE)
	notify := func(tag, state string) []byte {
		rows := []string{"From: " + first(sub, "To") + ";tag=" + tag, "To: " + first(sub, "From"), "Call-ID: " + sub.CallID().Value(),
			"CSeq: 1 NOTIFY", "Event: presence", "Subscription-State: " + state, "Max-Forwards: 70", "Contact: <sip:n@192.0.2.9>"}
		for _, e := range elements(sub, "Record-Route") {
			rows = append(rows, "Route: "+e)
		}
		return []byte(lines(append([]string{"NOTIFY " + w.contact() + " SIP/2.0",
			"Via: SIP/2.0/UDP " + core.conn.LocalAddr().String() + ";branch=" + newBranch()}, rows...)...))
	}
	core.send(r.edge, notify("n1", "active;expires=600")) // before the 200, of a fork
	w.respond(w.incoming(sip.NOTIFY), 200, "OK")
	core.response(200)
	core.respond(r.edge, sub, 200, append(recorded(sub), "Expires: 600", "Contact: <sip:m@192.0.2.9>")...)
	w.response(sip.SUBSCRIBE)
	if n := r.metric("epcscf_dialogs"); n != 2 {
		t.Errorf("%v dialogs of two notifiers", n)
	}
	core.send(r.edge, notify("n1", "terminated;reason=timeout"))
	w.respond(w.incoming(sip.NOTIFY), 200, "OK")
	core.response(200)
	eventually(t, "one dialog left", func() bool { return r.metric("epcscf_dialogs") == 1 })

	c := callIn(t, r, core, w, pathOf(reg))
	core.send(r.edge, c.fromCore("REFER", "Refer-To: <sip:carol@ims.test>", "Contact: <sip:bob@192.0.2.1>"))
	w.respond(w.incoming(sip.REFER), 202, "Accepted")
	core.response(202)
	core.send(r.edge, c.fromCore("BYE"))
	w.respond(w.incoming(sip.BYE), 200, "OK")
	core.response(200)
	c.send("NOTIFY", "Event: refer", "Subscription-State: terminated;reason=noresource")
	core.respond(r.edge, core.request(sip.NOTIFY), 200)
	if res := w.response(sip.NOTIFY); res.StatusCode != 200 {
		t.Errorf("the NOTIFY of a REFER after the BYE got %d, want 200", res.StatusCode)
	}
	eventually(t, "the REFER's dialog ended", func() bool { return r.metric("epcscf_dialogs") == 1 })
}
