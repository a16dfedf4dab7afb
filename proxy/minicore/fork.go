package minicore

import (
	"errors"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

const (
	// timerC ends an INVITE that rings and is never answered: "MUST be larger than 3
	// minutes" (RFC 3261 §16.6 step 11).
	timerC = 200 * time.Second
	// afterCancel is how long a cancelled branch may take for its 487: 64*T1 (RFC 3261 §9.1).
	afterCancel = 32 * time.Second
)

// branch is one copy of a forwarded request.
type branch struct {
	target  target
	req     *sip.Request // as sent
	to      peer
	tx      *sip.ClientTx
	ringing bool // a provisional response came
	cancel  bool // a CANCEL is wanted
	sent    bool // the CANCEL was sent
	done    bool // a final response came, or none will
}

// event is what a branch's transaction says: a response, or its end.
type event struct {
	b   *branch
	res *sip.Response // nil where the transaction ended without a final response
}

// forking is the response context of RFC 3261 §16.7: all of it runs in one goroutine.
type forking struct {
	core     *Core
	ex       *exchange
	req      *sip.Request // what is copied: the request without our own Route
	branches []*branch
	events   chan event
	stop     chan struct{}
	best     *sip.Response
	answered bool // a final response went upstream
}

// fork sends req, the request of ex, to all targets and the answer back.
func (c *Core) fork(ex *exchange, req *sip.Request, targets []target) {
	f := &forking{core: c, ex: ex, req: req, events: make(chan event), stop: make(chan struct{})}
	defer close(f.stop)
	for _, t := range targets {
		f.start(t)
	}
	c.log.Debug("forward", "method", req.Method, "call_id", callID(req), "branches", len(targets))
	limit := time.NewTimer(timerC)
	defer limit.Stop()
	cancel := ex.cancel
	for f.pending() {
		select {
		case ev := <-f.events:
			f.take(ev)
			if cancel != nil && ev.res != nil && ev.res.StatusCode > sip.StatusTrying {
				limit.Reset(timerC)
			}
		case <-cancel:
			cancel = nil
			f.cancelPending()
			limit.Reset(afterCancel)
		case <-limit.C:
			if cancel == nil { // RFC 3261 §9.1: no answer to the CANCEL either
				f.giveUp()
				break
			}
			cancel = nil // RFC 3261 §16.8
			f.cancelPending()
			limit.Reset(afterCancel)
		case <-c.ctx.Done():
			f.giveUp()
			return
		}
	}
	f.finish()
}

// start sends one copy. A next hop that cannot be reached counts as a 503 (RFC 3261 §16.9).
func (f *forking) start(t target) {
	b := &branch{target: t}
	f.branches = append(f.branches, b)
	req := f.req
	to, err := f.core.peerFor(f.core.ctx, t.nextHop(req))
	if err == nil {
		b.to, b.req = to, f.core.copyFor(req, t, to)
		b.tx, err = f.core.startClient(b.req, to)
	}
	if err != nil {
		f.core.log.Warn("next hop not reached", "method", req.Method, "call_id", callID(req), "err", err)
		b.done = true
		f.consider(reply(req, sip.StatusServiceUnavailable, "Service Unavailable"))
		return
	}
	if req.IsInvite() {
		b.tx.OnRetransmission(func(res *sip.Response) { f.upstream(res) }) // of a 2xx: RFC 6026 §7.1
	}
	f.core.wg.Go(func() { f.pump(b) })
}

// pump hands a transaction's responses to the context until the final one.
func (f *forking) pump(b *branch) {
	for {
		ev := event{b: b}
		select {
		case ev.res = <-b.tx.Responses():
		case <-b.tx.Done():
		}
		select {
		case f.events <- ev:
		case <-f.stop:
			return
		}
		if ev.res == nil || !ev.res.IsProvisional() {
			return
		}
	}
}

func (f *forking) pending() bool {
	return slices.ContainsFunc(f.branches, func(b *branch) bool { return !b.done })
}

// take works on one event by RFC 3261 §16.7 steps 4 and 5.
func (f *forking) take(ev event) {
	b, res := ev.b, ev.res
	switch {
	case res == nil:
		b.done = true
		f.consider(reply(f.req, sip.StatusRequestTimeout, "Request Timeout"))
	case res.IsProvisional():
		b.ringing = true
		if b.cancel {
			f.sendCancel(b)
		}
		if res.StatusCode != sip.StatusTrying && !f.answered {
			f.upstream(res)
		}
	case res.IsSuccess():
		b.done = true
		// Every 2xx to an INVITE goes up; of another method, the first final response.
		if !f.answered || f.req.IsInvite() {
			f.upstream(res)
		}
		f.answered = true
		f.cancelPending()
	default:
		b.done = true
		if f.retry(b, res) {
			return
		}
		if res.IsGlobalError() {
			f.cancelPending()
		}
		f.consider(res)
	}
}

// retry drops a binding whose flow is gone and tries the device's next flow (RFC 5626 §7).
func (f *forking) retry(b *branch, res *sip.Response) bool {
	if res.StatusCode != statusFlowFailed || b.target.binding == nil {
		return false
	}
	f.core.log.Info("drop a binding", "impu", b.target.binding.AOR, "reason", "flow failed")
	f.core.where.remove(*b.target.binding)
	f.core.events.changed(b.target.binding.AOR, "deactivated")
	if len(b.target.spare) == 0 || b.cancel || f.answered {
		return false
	}
	next := targetOf(*b.target.spare[0])
	next.spare = b.target.spare[1:]
	f.start(next)
	return true
}

// consider keeps the better of two final responses (RFC 3261 §16.7 step 6).
func (f *forking) consider(res *sip.Response) {
	if f.best == nil || rank(res.StatusCode) < rank(f.best.StatusCode) {
		f.best = res
	}
}

// rank orders final responses: 6xx decides for all, then the lowest class; within 4xx
// what helps the caller to ask again, and what says least last.
func rank(code int) int {
	switch {
	case code >= 600:
		return 0
	case code == 401, code == 407, code == 415, code == 420, code == 484:
		return 400
	case code == sip.StatusRequestTimeout, code == statusFlowFailed, code == sip.StatusTemporarilyUnavailable:
		return 499
	case code >= 400 && code < 500:
		return 450
	}
	return code
}

// finish sends the best response if no 2xx went up.
func (f *forking) finish() {
	if !f.req.IsInvite() {
		// sipgo keeps a transaction for 32 s where Timer K says 5 s; nothing needs it.
		for _, b := range f.branches {
			if b.tx != nil {
				b.tx.Terminate()
			}
		}
	}
	if f.answered || f.best == nil {
		return
	}
	switch f.best.StatusCode {
	case statusFlowFailed:
		// RFC 5626 §11.5: 430 is for this core, not for the caller.
		f.best = reply(f.req, sip.StatusTemporarilyUnavailable, "Temporarily Unavailable: the device is gone")
	case sip.StatusServiceUnavailable:
		// RFC 3261 §16.7 step 6: a 503 would say that this proxy is overloaded.
		f.best = reply(f.req, sip.StatusInternalServerError, "Server Internal Error: next hop not available")
	}
	f.upstream(f.best)
	f.answered = true
}

// upstream sends a response without our Via, if it bears one.
func (f *forking) upstream(res *sip.Response) {
	if via := res.Via(); via != nil && f.core.self.is(via.Host, via.Port) {
		res = res.Clone()
		res.RemoveHeader("Via")
	}
	if err := f.ex.tx.Respond(res); err != nil && !errors.Is(err, sip.ErrTransactionTerminated) {
		f.core.log.Debug("response not sent", "status", res.StatusCode, "call_id", callID(res), "err", err)
	}
}

// cancelPending cancels what has no final response, INVITEs only (RFC 3261 §16.10).
func (f *forking) cancelPending() {
	if !f.req.IsInvite() {
		return
	}
	for _, b := range f.branches {
		if b.done || b.cancel {
			continue
		}
		b.cancel = true
		if b.ringing { // RFC 3261 §9.1: not before a provisional response
			f.sendCancel(b)
		}
	}
}

// sendCancel sends a CANCEL in a transaction of its own, whose answer says nothing new.
func (f *forking) sendCancel(b *branch) {
	if b.sent {
		return
	}
	b.sent = true
	tx, err := f.core.startClient(cancelOf(b.req), b.to)
	if err != nil {
		f.core.log.Debug("CANCEL not sent", "call_id", callID(f.req), "err", err)
		return
	}
	f.core.wg.Go(func() {
		defer tx.Terminate()
		select {
		case <-tx.Responses():
		case <-tx.Done():
		}
	})
}

// cancelOf builds the CANCEL for an INVITE: "The Request-URI, Call-ID, To, the numeric
// part of CSeq, and From header fields in the CANCEL request MUST be identical to those
// in the request being cancelled, including tags" (RFC 3261 §9.1), one Via, and its Route.
func cancelOf(invite *sip.Request) *sip.Request {
	req := sip.NewRequest(sip.CANCEL, invite.Recipient)
	req.AppendHeader(invite.Via().Clone())
	hops := sip.MaxForwardsHeader(maxForwards)
	req.AppendHeader(&hops)
	for _, name := range []string{"Route", "From", "To", "Call-ID"} {
		for _, row := range sipext.Rows(invite, name) {
			req.AppendHeader(sip.HeaderClone(row))
		}
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: invite.CSeq().SeqNo, MethodName: sip.CANCEL})
	req.SetBody(nil)
	return req
}

// giveUp ends the branches that have no answer.
func (f *forking) giveUp() {
	for _, b := range f.branches {
		if b.done {
			continue
		}
		b.done = true
		b.tx.Terminate()
		f.consider(reply(f.req, sip.StatusRequestTimeout, "Request Timeout"))
	}
}
