package proxy

import (
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"
)

// forming is a request without a To tag that may make dialogs: each response with a tag
// makes one (RFC 3261 §12.1, forks included), and each NOTIFY of a subscription.
type forming struct {
	p       *Proxy
	flow    *Flow
	fromWIC bool
	method  sip.RequestMethod
	callID  string
	tag     string // of From
	from    string
	to      string
	event   string // the usage that it asks for
	contact string // of the sender
	seq     uint32
	// route is the Record-Route of a request toward the WIC, as it came.
	route []string
	// recorded is what it held when it left: the WIC's responses must repeat it.
	recorded  []string
	binding   bindingKey
	emergency bool

	// What follows is guarded by dialogTable.mu.
	made   []*dialog
	ended  []dialogID // hung up for a caller that had gone
	closed bool       // no more than the NOTIFYs of forks are expected
	freed  bool
}

var _ watcher = (*forming)(nil)

// maxForks bounds the dialogs that one request makes.
const maxForks = 16

// form starts to watch a dialog-forming request, as it came. The WIC's flow must have room.
func (p *Proxy) form(f *Flow, req *sip.Request, fromWIC bool) (*forming, *refusal) {
	if fromWIC && tooLong(req) {
		return nil, &refusal{status: sip.StatusMessageTooLarge, phrase: "Message Too Large: dialog identifiers"}
	}
	if !p.dialogs.reserve(f, p.cfg.Limits.Dialogs, p.cfg.Now()) {
		p.metrics.limited.WithLabelValues(limitDialogs).Inc()
		if !fromWIC { // not 503, which would have the core put this edge aside (RFC 3261 §21.5.4)
			return nil, &refusal{status: sip.StatusTemporarilyUnavailable, phrase: "Too many dialogs on this flow"}
		}
		return nil, &refusal{
			status: sip.StatusServiceUnavailable, phrase: "Too many dialogs on this flow",
			extra: []sip.Header{sip.NewHeader("Retry-After", "5")},
		}
	}
	w := &forming{
		p: p, flow: f, fromWIC: fromWIC, method: req.Method,
		callID: req.CallID().Value(), tag: partyTag(req, "From"), from: first(req, "From"), to: first(req, "To"),
		event: sessionUsage, contact: contactURI(req), seq: req.CSeq().SeqNo,
	}
	if req.Method != sip.INVITE {
		w.event = eventOf(req, req.Method)
		p.dialogs.mu.Lock()
		p.dialogs.forming[w.halfID()] = w
		p.dialogs.mu.Unlock()
	}
	return w, nil
}

// makesDialogs reports whether a response to the method makes a dialog (RFC 3261 §12.1,
// RFC 6665 §4.1, RFC 3515 §2.4.4).
func makesDialogs(m sip.RequestMethod) bool {
	return m == sip.INVITE || m == sip.SUBSCRIBE || m == sip.REFER
}

// halfID is the dialog's identity as far as the request knows it.
func (w *forming) halfID() dialogID {
	if w.fromWIC {
		return dialogID{w.callID, w.tag, ""}
	}
	return dialogID{w.callID, "", w.tag}
}

func (w *forming) fullID(tag string) dialogID {
	if w.fromWIC {
		return dialogID{w.callID, w.tag, tag}
	}
	return dialogID{w.callID, tag, w.tag}
}

// response makes, confirms or drops dialogs.
func (w *forming) response(res *sip.Response) {
	tag := toTag(res)
	t := &w.p.dialogs
	switch {
	case res.StatusCode == sip.StatusTrying:
	case res.StatusCode >= 300:
		w.unanswered()
	case tag == "" || res.IsProvisional() && w.method != sip.INVITE:
	default:
		if !w.fromWIC && !slices.Equal(elements(res, "Record-Route"), w.recorded) {
			// What a UE writes there would route the other side's requests.
			setRows(res, "Record-Route", w.recorded...)
		}
		t.mu.Lock()
		d := w.dialogLocked(tag, first(res, "To"))
		if d != nil {
			w.learnLocked(d, res)
		}
		lost := w.flow.dialogs.lost
		t.mu.Unlock()
		if res.IsSuccess() {
			w.settle()
			if lost && w.fromWIC && w.method == sip.INVITE {
				w.p.hangUp(w, res)
			}
		}
	}
}

// dialogLocked returns the dialog with the other side's tag, made now where there is none.
func (w *forming) dialogLocked(tag, to string) *dialog {
	t := &w.p.dialogs
	id := w.fullID(tag)
	if d := t.byID[id]; d != nil {
		if slices.Contains(w.made, d) {
			return d
		}
		return nil
	}
	if len(w.made) >= maxForks {
		return nil
	}
	d := &dialog{
		id: id, home: w.flow.id, binding: w.binding, emergency: w.emergency, flow: w.flow, route: w.route,
		expires: w.p.cfg.Now().Add(sessionLife), // while its INVITE rings
	}
	if w.fromWIC {
		d.local, d.remote, d.contact, d.localSeq = w.from, to, w.contact, w.seq
	} else {
		d.local, d.remote, d.target, d.remoteSeq = to, w.from, w.contact, w.seq
	}
	if !t.addLocked(d) {
		return nil
	}
	w.made = append(w.made, d)
	return d
}

// learnLocked takes route set and target of a response (RFC 3261 §12.1.2, §13.2.2.4).
func (w *forming) learnLocked(d *dialog, res *sip.Response) {
	d.refresh(res, !w.fromWIC)
	if w.fromWIC {
		if rows := elements(res, "Record-Route"); len(rows) > 0 {
			slices.Reverse(rows)
			d.route = w.p.beyondUs(rows)
		}
	}
	if !res.IsSuccess() {
		return
	}
	now := w.p.cfg.Now()
	switch w.method {
	case sip.INVITE:
		d.keep(sessionUsage, sessionEnd(res, now))
	case sip.SUBSCRIBE:
		d.keep(w.event, now.Add(grantedTo(res)))
	default:
		d.keep(w.event, now.Add(subscriptionLife))
	}
}

// grantedTo is the life of a subscription by its 2xx (RFC 6665 §4.2.1.1).
func grantedTo(res *sip.Response) time.Duration {
	if n := seconds(first(res, "Expires")); n >= 0 {
		return time.Duration(n)*time.Second + expiryGrace
	}
	return subscriptionLife
}

// notifyLocked makes the dialog of a NOTIFY that comes before, or beside, the response.
func (w *forming) notifyLocked(req *sip.Request) *dialog {
	d := w.dialogLocked(partyTag(req, "From"), first(req, "From"))
	if d == nil {
		return nil
	}
	// RFC 6665 §4.4.1: the NOTIFY's Record-Route and Contact are the dialog's. The WIC is
	// the callee of the NOTIFY, so the order stays.
	if w.fromWIC {
		d.route = elements(req, "Record-Route")
	}
	d.refresh(req, !w.fromWIC)
	d.keep(w.event, w.p.cfg.Now().Add(subscriptionLife))
	return d
}

// settle ends the wait for further dialogs: early ones of other forks have a minute, a
// subscription waits for the NOTIFYs of other notifiers (RFC 6665 §4.1.2.4, Timer N).
func (w *forming) settle() {
	t := &w.p.dialogs
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	until := w.p.cfg.Now().Add(earlyLife)
	for _, d := range w.made {
		if len(d.usages) == 0 {
			d.expires = until
		}
	}
	if w.method == sip.INVITE {
		w.freeLocked()
		return
	}
	time.AfterFunc(64*sip.T1, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		w.freeLocked()
	})
}

// unanswered drops what a request without success has made (RFC 3261 §12.3).
func (w *forming) unanswered() {
	t := &w.p.dialogs
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	for _, d := range w.made {
		if len(d.usages) == 0 {
			t.removeLocked(d)
		}
	}
	w.freeLocked()
}

func (w *forming) freeLocked() {
	if w.freed {
		return
	}
	w.freed = true
	w.flow.dialogs.forming--
	if t := &w.p.dialogs; t.forming[w.halfID()] == w {
		delete(t.forming, w.halfID())
	}
}

// within watches a request of a dialog.
type within struct {
	p       *Proxy
	d       *dialog
	req     sip.RequestMethod
	fromWIC bool
	contact string // of the sender: the new target, once the request has succeeded
	event   string
	ends    bool // a NOTIFY of state terminated
	life    time.Duration
}

var _ watcher = (*within)(nil)

// watchWithin starts to watch a request within d, as it came.
func (p *Proxy) watchWithin(d *dialog, req *sip.Request, fromWIC bool) *within {
	w := &within{p: p, d: d, req: req.Method, fromWIC: fromWIC}
	switch req.Method {
	case sip.NOTIFY:
		w.event = eventOf(req, req.Method)
		w.ends, w.life = terminates(req)
	case sip.SUBSCRIBE, sip.REFER:
		w.event = eventOf(req, req.Method)
	}
	if slices.Contains(dialogForming, req.Method) {
		w.contact = contactURI(req)
	}
	return w
}

func (w *within) response(res *sip.Response) {
	if res.IsProvisional() {
		return
	}
	t := &w.p.dialogs
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[w.d.id] != w.d {
		return // released meanwhile, and its releaser's alone
	}
	if res.StatusCode == sip.StatusUnauthorized || res.StatusCode == sip.StatusProxyAuthRequired {
		return // the request comes again with credentials
	}
	gone := res.StatusCode == sip.StatusCallTransactionDoesNotExists
	switch w.req {
	case sip.BYE:
		w.endLocked(sessionUsage)
	case sip.NOTIFY:
		if w.ends || gone {
			w.endLocked(w.event)
		} else if res.IsSuccess() {
			w.d.keep(w.event, w.p.cfg.Now().Add(w.life+expiryGrace))
		}
	case sip.SUBSCRIBE:
		if gone {
			w.endLocked(w.event)
		} else if res.IsSuccess() {
			w.d.keep(w.event, w.p.cfg.Now().Add(grantedTo(res)))
		}
	case sip.REFER:
		if res.IsSuccess() {
			w.d.keep(w.event, w.p.cfg.Now().Add(subscriptionLife))
		}
	}
	if res.IsSuccess() {
		w.refreshLocked(res)
	}
}

// refreshLocked does what the 2xx of a target refresh request does (RFC 3261 §12.2.1.2), and
// of a session refresh (RFC 4028 §7.2).
func (w *within) refreshLocked(res *sip.Response) {
	if !slices.Contains(dialogForming, w.req) {
		return
	}
	w.d.refresh(res, !w.fromWIC)
	switch {
	case w.contact == "":
	case w.fromWIC:
		w.d.contact = w.contact
	default:
		w.d.target = w.contact
	}
	if (w.req == sip.INVITE || w.req == sip.UPDATE) && w.d.inSession() {
		w.d.keep(sessionUsage, sessionEnd(res, w.p.cfg.Now()))
	}
}

func (w *within) endLocked(event string) {
	if w.d.finish(event) {
		w.p.dialogs.removeLocked(w.d)
	}
}

// unanswered ends what a BYE or a last NOTIFY would have ended: the peer is silent.
func (w *within) unanswered() {
	w.p.dialogs.mu.Lock()
	defer w.p.dialogs.mu.Unlock()
	switch {
	case w.req == sip.BYE:
		w.endLocked(sessionUsage)
	case w.req == sip.NOTIFY && w.ends:
		w.endLocked(w.event)
	}
}
