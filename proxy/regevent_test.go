package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// watched is a registered WIC whose registration the edge watches at a stub.
type watched struct {
	*rig
	core  *stub
	wic   *wic
	relay *relayStub
	sub   *sip.Request // the SUBSCRIBE
	tag   string       // the core's
	seq   int
}

// watch registers alice, and accepts the SUBSCRIBE unless status says otherwise.
func watch(t *testing.T, status int, extra ...string) *watched {
	t.Helper()
	relay := &relayStub{}
	core, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.RegEvent, c.AllowUnauthorized, c.Provisioner = true, true, sharedKey(t, relay) })
	r.proxy.events.mu.Lock()
	r.proxy.events.pause = 20 * time.Millisecond
	r.proxy.events.mu.Unlock()
	w := &watched{rig: r, core: core, wic: r.dial("alice"), relay: relay, tag: newTag()}
	w.register(w.wic, 600)
	w.sub = core.request(sip.SUBSCRIBE)
	w.answer(w.sub, status, extra...)
	return w
}

func (w *watched) register(on *wic, expires int) {
	w.t.Helper()
	contact := "<" + on.contact() + ">"
	on.send(on.request("REGISTER", "sip:"+testDomain, "To: <"+on.aor()+">", "Contact: "+contact, fmt.Sprint("Expires: ", expires), askHeader))
	req := w.core.request(sip.REGISTER)
	w.core.respond(w.edge, req, 200, "Contact: "+contact+";expires="+strconv.Itoa(expires),
		"P-Associated-URI: <sip:alice@ims.test>, <tel:+15551234>, <sip:alias@ims.test>")
	if res := on.response(sip.REGISTER); res.StatusCode != 200 {
		w.t.Fatalf("REGISTER got %d", res.StatusCode)
	}
}

// answer answers a SUBSCRIBE in the dialog of w.tag.
func (w *watched) answer(sub *sip.Request, status int, extra ...string) {
	w.t.Helper()
	re := newReply(sub)
	re.tag = w.tag
	res := re.response(status, "Reason")
	if status < 300 {
		extra = append([]string{"Contact: <sip:notifier@" + w.rig.core.String() + ">", "Record-Route: <sip:one.ims.test;lr>, <sip:two.ims.test;lr>"}, extra...)
	}
	for _, e := range extra {
		name, value, _ := strings.Cut(e, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	w.core.send(w.edge, encode(res))
}

// notify sends a NOTIFY in the dialog and returns the status of the answer; rows may
// replace the usual ones.
func (w *watched) notify(body string, rows ...string) int {
	w.t.Helper()
	w.seq++
	usual := []string{
		"Via: SIP/2.0/UDP " + w.rig.core.String() + ";branch=" + newBranch(), "Max-Forwards: 70",
		"From: <sip:alice@ims.test>;tag=" + w.tag, "To: " + first(w.sub, "From"), "Call-ID: " + w.sub.CallID().Value(),
		fmt.Sprintf("CSeq: %d NOTIFY", w.seq), "Contact: <sip:notifier@" + w.rig.core.String() + ">",
		"Event: reg", "Subscription-State: active;expires=1200", "Content-Type: application/reginfo+xml",
	}
	var all []string
	for _, u := range usual {
		name, _, _ := strings.Cut(u, ":")
		replaced := false
		for _, r := range rows {
			replaced = replaced || strings.HasPrefix(r, name+":")
		}
		if !replaced {
			all = append(all, u)
		}
	}
	all = append(append([]string{"NOTIFY " + contactURI(w.sub) + " SIP/2.0"}, append(all, rows...)...), "Content-Length: "+strconv.Itoa(len(body)))
	w.core.send(w.edge, []byte(lines(all...)+body))
	for {
		if res, ok := w.core.next().(*sip.Response); ok && res.CSeq().MethodName == sip.NOTIFY {
			return res.StatusCode
		}
	}
}

// stands reports whether alice may still use her flow.
func (w *watched) stands(on *wic) bool {
	w.t.Helper()
	on.send(on.request("OPTIONS", "sip:"+testDomain))
	return on.response(sip.OPTIONS).StatusCode == 200
}

// entries counts what the edge keeps of subscriptions.
func (w *watched) entries() (byAOR, byCallID int) {
	e := &w.proxy.events
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.byAOR), len(e.byCallID)
}

// ended waits for the end of the connection.
func (w *wic) ended() ending {
	w.t.Helper()
	select {
	case end := <-w.closed:
		return end
	case <-time.After(patience):
		w.t.Fatalf("%s: the connection is still open", w.user)
		return ending{}
	}
}

func TestRegEventSubscribe(t *testing.T) {
	w := watch(t, 200, "Expires: 1")
	edge := "sip:" + w.edge.String()
	for _, tt := range []struct{ clause, name, want string }{
		{"24.229 5.2.3", "From", "<" + edge + ">;tag=" + partyTag(w.sub, "From")},
		{"24.229 5.2.3", "To", "<sip:alice@ims.test>"},
		{"24.229 5.2.3", "P-Asserted-Identity", "<" + edge + ">"},
		{"RFC 3680 §4.1", "Event", "reg"},
		{"RFC 3680 §4.4", "Accept", "application/reginfo+xml"},
		{"RFC 6665 §4.1.2.1", "Contact", "<sip:reg-event@" + w.edge.String() + ">"},
		{"24.229 5.2.3: beyond the registration's", "Expires", "1199"},
		{"no Service-Route: that is the user's", "Route", ""},
	} {
		got := first(w.sub, tt.name)
		if tt.name == "Expires" && seconds(got) > 600 && seconds(got) <= 1200 {
			continue
		}
		if got != tt.want {
			t.Errorf("%s: %s = %q, want %q", tt.clause, tt.name, got, tt.want)
		}
	}
	if got := w.sub.Recipient.String(); got != "sip:alice@ims.test" {
		t.Errorf("24.229 5.2.3: Request-URI = %s, want the default identity", got)
	}
	// The refresh, at half time, stays in the dialog (RFC 6665 §4.1.2.2).
	refresh := w.core.request(sip.SUBSCRIBE)
	if partyTag(refresh, "To") != w.tag || refresh.CallID().Value() != w.sub.CallID().Value() || refresh.CSeq().SeqNo != w.sub.CSeq().SeqNo+1 {
		t.Errorf("refresh is out of the dialog:\n%s", refresh)
	}
	if got := strings.Join(elements(refresh, "Route"), ", "); got != "<sip:two.ims.test;lr>, <sip:one.ims.test;lr>" {
		t.Errorf("RFC 3261 §12.1.2: Route = %q, want Record-Route reversed", got)
	}
	if refresh.Recipient.User != "notifier" {
		t.Errorf("RFC 3261 §12.2.1.1: Request-URI = %s, want the notifier's contact", refresh.Recipient.String())
	}
	// A dialog that the core has forgotten is made anew (RFC 5057 §5.1).
	w.answer(refresh, 481)
	again := w.core.request(sip.SUBSCRIBE)
	if toTag(again) != "" || again.CallID().Value() == w.sub.CallID().Value() {
		t.Errorf("after 481, want a new dialog:\n%s", again)
	}
}

// TestRegEventRefused: the registration stands, and is not asked about again.
func TestRegEventRefused(t *testing.T) {
	for _, status := range []int{401, 403, 404, 405, 420, 480, 481, 489, 501, 603} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			w := watch(t, status)
			eventually(t, "the refusal counted", func() bool { return w.metric("epcscf_regevent_subscribes_total", "result="+subscribeRefused) == 1 })
			w.register(w.wic, 600)
			if !w.stands(w.wic) {
				t.Error("the registration has gone")
			}
			// A new registration is another matter.
			w.register(w.wic, 0)
			w.register(w.wic, 600)
			if sub := w.core.request(sip.SUBSCRIBE); sub.CallID().Value() == w.sub.CallID().Value() {
				t.Error("the SUBSCRIBE of a new registration is the old one")
			}
		})
	}
}

func TestRegEventTooBrief(t *testing.T) {
	w := watch(t, 423, "Min-Expires: 7200")
	if sub := w.core.request(sip.SUBSCRIBE); first(sub, "Expires") != "7200" {
		t.Errorf("RFC 6665 §4.1.2.1: after 423 Expires = %s, want 7200", first(sub, "Expires"))
	}
}

// TestRegEventNotify: what each document does.
func TestRegEventNotify(t *testing.T) {
	const alice = "sip:alice@ims.test"
	self := "sip:alice@alice1.invalid;transport=ws"
	for _, tt := range []struct {
		name, clause string
		body         string
		stands       bool
		close        int    // code, where the socket is closed
		event        string // counted
	}{
		{"nothing new", "RFC 3680 §5.2", document(0, alice, "active", contactXML(self, "active", `event="registered"`)), true, 0, ""},
		{"unregistered", "24.229 5.2.5.2", document(0, alice, "active", contactXML(self, "terminated", `event="unregistered"`)), false, 1000, "unregistered"},
		{"expired", "24.229 5.2.5.2", document(0, alice, "active", contactXML(self, "terminated", `event="expired"`)), false, 1000, "expired"},
		{"rejected", "24.229 5.2.5.2", document(0, alice, "active", contactXML(self, "terminated", `event="rejected"`)), false, 1008, "rejected"},
		{"deactivated", "24.229 5.2.5.2", document(0, alice, "active", contactXML(self, "terminated", `event="deactivated"`)), false, 1000, "deactivated"},
		{"probation", "24.229 5.2.5.2", document(0, alice, "active", contactXML(self, "terminated", `event="probation" retry-after="9"`)), false, 1000, "probation"},
		{"the registration as a whole", "24.229 5.2.5.2", document(0, alice, "terminated", ""), false, 1000, "unregistered"},
		{"as a whole, with the reason", "24.229 5.2.5.2", document(0, alice, "terminated", contactXML(self, "terminated", `event="rejected"`)), false, 1008, "rejected"},
		{"another contact", "RFC 3680 §5.1", document(0, alice, "active", contactXML("sip:alice@other.invalid", "terminated", `event="rejected"`)), true, 0, ""},
		{"another user", "RFC 3680 §5.1", document(0, "sip:bob@ims.test", "terminated", ""), true, 0, ""},
		{"one identity of the set", "24.229 5.2.5.2", document(0, "sip:alias@ims.test", "terminated", ""), true, 0, ""},
		{"full state without us", "registrars differ", document(0, alice, "active", ""), true, 0, ""},
		{"init", "RFC 3680 §3.2", document(0, alice, "init", ""), true, 0, ""},
		{"shortened", "RFC 3680 §5.1", document(0, alice, "active", contactXML(self, "active", `event="shortened" expires="0"`)), false, 0, "shortened"},
		{"shortened to longer", "RFC 3680 §5.1", document(0, alice, "active", contactXML(self, "active", `event="shortened" expires="9999"`)), true, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, 200, "Expires: 1200")
			if status := w.notify(tt.body); status != 200 {
				t.Fatalf("NOTIFY got %d, want 200", status)
			}
			if tt.stands {
				if !w.stands(w.wic) || len(w.relay.all()) != 0 {
					t.Errorf("%s: stands %v, revoked %d, want it to stand", tt.clause, w.stands(w.wic), len(w.relay.all()))
				}
				return
			}
			eventually(t, "the revocation", func() bool { return len(w.relay.all()) == 1 })
			if got := w.relay.all()[0]; got.KeepLive || got.Binding == nil {
				t.Errorf("%s: revocation %+v, want this binding's, live allocations too", tt.clause, got)
			}
			if got := w.metric("epcscf_registrations_ended_by_core_total", "event="+tt.event); got != 1 {
				t.Errorf("%s: counted %v, want 1", tt.clause, got)
			}
			if tt.close == 0 {
				if w.stands(w.wic) {
					t.Errorf("%s: the registration stands", tt.clause)
				}
				return
			}
			var closed *websocket.CloseError
			if end := w.wic.ended(); !errors.As(end.err, &closed) || closed.Code != tt.close {
				t.Errorf("%s: closed with %v, want %d", tt.clause, end.err, tt.close)
			}
		})
	}
}

// TestRegEventOneOfTwo: the socket stays while another registration is on it.
func TestRegEventOneOfTwo(t *testing.T) {
	w := watch(t, 200, "Expires: 1200")
	w.wic.user = "bob"
	w.register(w.wic, 600) // its implicit set is alice's too: no second subscription
	w.wic.user = "alice"
	if byAOR, _ := w.entries(); byAOR != 1 {
		t.Errorf("%d subscriptions for one address of record, want 1", byAOR)
	}
	w.notify(document(0, "sip:alice@ims.test", "active", contactXML(w.wic.contact(), "terminated", `event="deactivated"`)))
	eventually(t, "one registration left", func() bool { return w.metric("epcscf_registrations") == 1 })
	if !w.stands(w.wic) {
		t.Error("the other registration has gone with the first")
	}
}

// TestRegEventDisowned: an identity that the core has ended is asserted no more.
func TestRegEventDisowned(t *testing.T) {
	w := watch(t, 200, "Expires: 1200")
	w.notify(document(0, "sip:alias@ims.test", "terminated", ""))
	w.wic.send(w.wic.request("MESSAGE", "sip:bob@ims.test", "P-Preferred-Identity: <sip:alias@ims.test>"))
	if got := first(w.core.request(sip.MESSAGE), "P-Asserted-Identity"); got != "<sip:alice@ims.test>" {
		t.Errorf("P-Asserted-Identity = %s, want the default", got)
	}
}

// TestRegEventOrder: dialog and document versions.
func TestRegEventOrder(t *testing.T) {
	gone := document(3, "sip:alice@ims.test", "terminated", "")
	w := watch(t, 200, "Expires: 1200")
	for _, tt := range []struct {
		name, clause string
		body         string
		rows         []string
		want         int
	}{
		{"first", "RFC 3680 §5.2", document(5, "sip:alice@ims.test", "active", ""), nil, 200},
		{"an older document", "RFC 3680 §5.2", gone, nil, 200},
		{"the same version in part", "RFC 3680 §5.2", strings.NewReplacer(`"3"`, `"5"`, `"full"`, `"partial"`).Replace(gone), nil, 200},
		{"no document", "RFC 6665 §4.1.3", "", nil, 200},
		{"of another fork", "RFC 6665 §4.4.1", gone, []string{"From: <sip:alice@ims.test>;tag=other"}, 481},
		{"of no subscription", "RFC 6665 §4.1.3", gone, []string{"Call-ID: stranger"}, 481},
		{"for another tag", "RFC 6665 §4.1.3", gone, []string{"To: <sip:x@y>;tag=stranger"}, 481},
		{"another event", "RFC 6665 §8.2.1", gone, []string{"Event: presence"}, 489},
		{"another type", "RFC 3261 §21.4.13", gone, []string{"Content-Type: application/pidf+xml"}, 415},
		{"malformed", "RFC 3680 §5.1", gone + "x", nil, 400},
		{"no Subscription-State", "RFC 6665 §8.2.3", gone, []string{"Subscription-State: ;"}, 400},
		{"an older request", "RFC 3261 §12.2.2", gone, []string{"CSeq: 1 NOTIFY"}, 500},
	} {
		if got := w.notify(tt.body, tt.rows...); got != tt.want {
			t.Errorf("%s: %s: %d, want %d", tt.clause, tt.name, got, tt.want)
		}
	}
	if !w.stands(w.wic) {
		t.Error("what was stale or refused has ended the registration")
	}
	for _, result := range []string{notifyStale, notifyMalformed, notifyUnknown, notifyApplied} {
		if w.metric("epcscf_regevent_notifies_total", "result="+result) == 0 {
			t.Errorf("none counted as %s", result)
		}
	}
	// One that was skipped is made up for by a refresh.
	partial := strings.Replace(document(9, "sip:alice@ims.test", "active", ""), `"full"`, `"partial"`, 1)
	w.notify(partial)
	if sub := w.core.request(sip.SUBSCRIBE); toTag(sub) != w.tag {
		t.Errorf("RFC 3680 §5.2: want a refresh after a gap, got\n%s", sub)
	}
}

// TestRegEventEarlyNotify: a NOTIFY may come before the 2xx (RFC 6665 §4.4.1).
func TestRegEventEarlyNotify(t *testing.T) {
	w := watch(t, 100)
	self := contactXML(w.wic.contact(), "terminated", `event="rejected"`)
	if got := w.notify(document(0, "sip:alice@ims.test", "active", self)); got != 200 {
		t.Fatalf("NOTIFY got %d, want 200", got)
	}
	eventually(t, "the registration gone", func() bool { return w.metric("epcscf_registrations") == 0 })
}

// TestRegEventTerminated: by the reason of RFC 6665 §4.1.3 the edge subscribes anew or not.
// The registration stands either way.
func TestRegEventTerminated(t *testing.T) {
	for reason, anew := range map[string]bool{
		"deactivated": true, "timeout": true, "giveup;retry-after=1": true, "probation;retry-after=1": true, "": true,
		"rejected": false, "noresource": false, "invariant": false,
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			w := watch(t, 200, "Expires: 1200")
			state := "Subscription-State: terminated"
			if reason != "" {
				state += ";reason=" + reason
			}
			w.notify("", state)
			if !w.stands(w.wic) {
				t.Error("the registration has gone with the subscription")
			}
			if !anew {
				eventually(t, "the end counted", func() bool { return w.metric("epcscf_regevent_subscriptions") == 0 })
				if got := w.metric("epcscf_regevent_subscribes_total", "result="+subscribeRefused); got != 1 {
					t.Errorf("refused = %v, want 1", got)
				}
				return
			}
			if sub := w.core.request(sip.SUBSCRIBE); toTag(sub) != "" {
				t.Errorf("want a new dialog, got\n%s", sub)
			}
		})
	}
}

// TestRegEventLeave: with the last registration the subscription ends, and its last NOTIFY
// is answered.
func TestRegEventLeave(t *testing.T) {
	w := watch(t, 200, "Expires: 1200")
	second := w.dial("alice")
	second.host = "second.invalid"
	w.register(second, 600)
	w.register(w.wic, 0)
	w.register(second, 600)
	if got := w.metric("epcscf_regevent_subscriptions"); got != 1 {
		t.Errorf("subscriptions = %v while one binding is left, want 1", got)
	}
	w.register(second, 0)
	sub := w.core.request(sip.SUBSCRIBE)
	if first(sub, "Expires") != "0" || toTag(sub) != w.tag {
		t.Errorf("RFC 6665 §4.1.2.3: want Expires: 0 in the dialog, got\n%s", sub)
	}
	w.answer(sub, 200, "Expires: 0")
	if got := w.notify("", "Subscription-State: terminated;reason=timeout"); got != 200 {
		t.Errorf("last NOTIFY got %d, want 200", got)
	}
	if got := w.notify("", "Subscription-State: terminated;reason=timeout"); got != 481 {
		t.Errorf("NOTIFY after the end got %d, want 481", got)
	}
	if byAOR, byCallID := w.entries(); byAOR+byCallID != 0 {
		t.Errorf("%d and %d entries are left", byAOR, byCallID)
	}
}

// TestRegEventLoop: a core without the package sends the SUBSCRIBE on to the user.
func TestRegEventLoop(t *testing.T) {
	w := watch(t, 100)
	loop := w.sub.Clone()
	loop.PrependHeader(sip.NewHeader("Via", "SIP/2.0/UDP "+w.rig.core.String()+";branch="+newBranch()))
	sipext.Strip(loop, "Route")
	w.core.send(w.edge, encode(loop))
	if res := w.core.response(482); res.CSeq().MethodName != sip.SUBSCRIBE {
		t.Errorf("got\n%s", res)
	}
	select {
	case m := <-w.wic.in:
		t.Errorf("the WIC got\n%s", m)
	case <-time.After(0):
	}
}
