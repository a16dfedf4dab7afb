package proxy

import (
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// forward sends t's request to a peer and relays the responses in a goroutine of its own.
// edit changes each response on its way; nil means the usual cleaning.
func (p *Proxy) forward(t *serverTx, to peer, edit func(*sip.Response)) {
	if edit == nil {
		edit = t.clean
	}
	late := func(res *sip.Response) { t.pass(res, edit) }
	c, err := p.newClientTx(t, to, late)
	if err != nil {
		t.undeliverable(to, err)
		return
	}
	if !p.start(func() { p.relay(t, c, edit, nil) }) {
		c.Terminate()
	}
}

// undeliverable says that a request could not be sent (RFC 3261 §16.9).
func (t *serverTx) undeliverable(to peer, err error) {
	t.p.log.Warn("request not delivered", "flow", t.from.id(), "method", string(t.req.Method), "err", err)
	switch {
	case to.flow != nil: // RFC 5626 §5.3.1: the core tries another flow of the same instance
		t.answer(statusFlowFailed, "Flow Failed")
	default:
		t.answer(sip.StatusServiceUnavailable, "Core unreachable", t.p.core.hops.retryAfter())
	}
}

// statusFlowFailed is 430 (RFC 5626 §11.5).
const statusFlowFailed = 430

// clean prepares a response for the side that asked.
func (t *serverTx) clean(res *sip.Response) {
	if t.from.flow != nil {
		toUE(res)
	} else {
		fromUE(res)
		assertCalled(res, t.called)
	}
}

// pass forwards one response: our Via off (RFC 3261 §16.7 step 3), the rest edited.
func (t *serverTx) pass(res *sip.Response, edit func(*sip.Response)) {
	res.RemoveHeader("Via")
	if res.Via() == nil { // the peer answered someone else's request
		t.p.metrics.dropped.WithLabelValues(dropStray).Inc()
		return
	}
	edit(res)
	t.send(res)
}

// relay waits for the responses of c until the final one. It is the whole life of a
// forwarded request: CANCEL, Timer C, timeout and lost flow end here. core is where else
// the request may go; nil toward a WIC.
func (p *Proxy) relay(t *serverTx, c *clientTx, edit func(*sip.Response), core *journey) {
	w := &waiting{p: p, t: t, c: c, core: core, invite: t.req.Method == sip.INVITE}
	if w.invite {
		// RFC 3261 §16.6 step 11: Timer C bounds how long an INVITE may ring.
		w.timerC = time.NewTimer(p.cfg.Limits.TimerC)
		defer w.timerC.Stop()
		w.timer = w.timerC.C
		if t.from.flow != nil {
			w.lost = t.from.flow.done
		}
	}
	for {
		select {
		case res := <-w.c.Responses():
			if w.response(res, edit) {
				return
			}
		case req := <-t.canceled:
			w.cancel(sipext.Rows(req, "Reason"))
		case <-w.timer:
			if w.timedOut() {
				return
			}
		case <-w.lost: // the caller's flow has gone while it rang
			w.lost = nil
			w.cancel(reasonRow(reasonFlowLost))
		case <-w.gone():
			if w.core != nil {
				w.disconnected()
				continue
			}
			w.c.Terminate()
			t.answer(statusFlowFailed, "Flow Failed")
			return
		case <-core.silence():
			if w.silent() {
				return
			}
		case late := <-core.answers():
			if w.lateAnswer(late) {
				return
			}
		case <-w.c.Done():
			if w.failed() {
				return
			}
		case <-p.ctx.Done():
			w.c.Terminate()
			return
		}
	}
}

// waiting is the state of relay.
type waiting struct {
	p      *Proxy
	t      *serverTx
	c      *clientTx // the attempt in use
	core   *journey
	invite bool

	provisional bool // a CANCEL may be sent (RFC 3261 §9.1)
	rang        bool // more than 100 came: the callee has been asked
	deaf        bool // the connection in use has ended, and that is no matter
	wantCancel  bool
	reasons     []sip.Header
	sent        bool // the CANCEL
	timerC      *time.Timer
	timer       <-chan time.Time
	lost        <-chan struct{}
}

// gone is closed when the way to the peer has ended.
func (w *waiting) gone() <-chan struct{} {
	if w.deaf {
		return nil
	}
	return w.c.to.gone()
}

// response handles one response and reports whether it was the last to wait for.
func (w *waiting) response(res *sip.Response, edit func(*sip.Response)) bool {
	if res.StatusCode == sip.StatusServiceUnavailable && w.refused(res) {
		return false
	}
	if res.StatusCode >= 200 {
		w.t.pass(res, edit)
		if !w.invite {
			// sipgo keeps the transaction for 32 s on UDP (Timer K is 5 s); what comes late is
			// a retransmission that nobody waits for.
			w.c.Terminate()
		}
		return true
	}
	w.provisional, w.rang = true, w.rang || res.StatusCode > 100
	if w.invite && !w.sent && res.StatusCode > 100 { // RFC 3261 §16.7 step 2
		w.timerC.Reset(w.p.cfg.Limits.TimerC)
	}
	if res.StatusCode != sip.StatusTrying { // §16.7 step 5: 100 goes one hop
		w.t.pass(res, edit)
	}
	if w.wantCancel {
		w.cancel(w.reasons)
	}
	return false
}

// cancel cancels downstream, now or when a provisional response has come.
func (w *waiting) cancel(reasons []sip.Header) {
	if !w.invite || w.sent {
		return
	}
	w.wantCancel, w.reasons = true, reasons
	if !w.provisional {
		return
	}
	w.sent = true
	w.p.sendCancel(w.c, reasons)
	// RFC 3261 §9.1: after 64*T1 without a final response the INVITE counts as canceled.
	w.timerC.Reset(64 * sip.T1)
}

// timedOut handles Timer C (RFC 3261 §16.8) and reports whether relay is over.
func (w *waiting) timedOut() bool {
	if !w.sent && w.provisional {
		w.cancel(nil)
		return false
	}
	w.c.Terminate()
	if w.sent {
		w.t.answer(sip.StatusRequestTerminated, "Request Terminated")
	} else {
		w.t.answer(sip.StatusRequestTimeout, "Request Timeout")
	}
	return true
}

// sendCancel builds the CANCEL of RFC 3261 §9.1 from the request that was sent.
func (p *Proxy) sendCancel(c *clientTx, reasons []sip.Header) {
	req := followUp(c.Origin(), sip.CANCEL)
	for _, h := range reasons { // RFC 3326 §2
		req.AppendHeader(h)
	}
	p.sendAlone(req, c.to)
}

// noResponse ends a request whose client transaction ended without a final response.
func (t *serverTx) noResponse(c *clientTx) {
	switch err := c.Err(); {
	case errors.Is(err, sip.ErrTransactionTransport):
		t.undeliverable(c.to, err)
	case t.req.Method == sip.INVITE:
		t.answer(sip.StatusRequestTimeout, "Request Timeout")
	default:
		// RFC 4320 §4.2: no 408 to a non-INVITE; its sender times out by itself.
		if t.watch != nil {
			t.watch.unanswered()
		}
		t.Terminate()
	}
}
