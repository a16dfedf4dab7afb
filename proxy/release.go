package proxy

import (
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Release of calls (TS 24.229 5.2.8, known to us by digests).
//
// A call that is being set up ends at once with the flow: CANCEL toward the core where the
// WIC calls (see relay), 430 where it is called, so that the core tries another flow.
//
// An answered call has its media elsewhere, and a mobile phone that changes networks loses
// its WebSocket long before its call. So an answered call waits for FlowGrace: a WIC that
// registers the same instance and reg-id meanwhile, on whatever flow, goes on with it; else
// the other side gets BYE. There is no wait where the WIC itself closed the WebSocket with a
// close frame: that is a page which was closed or reloaded, and its media went with it.
//
// Where the core's side fails, an answered call is left alone: its media does not pass
// through the core, which may be back before anyone has noticed. A WIC whose request within
// the call nobody answers is told so, and ends the call itself (RFC 3261 §12.2.1.2).

// Why the edge ends a call (RFC 3326).
const (
	reasonFlowLost     = `SIP;cause=503;text="Flow lost"`
	reasonDeregistered = `SIP;cause=480;text="Registration ended by the network"`
)

// dialogsLost is called once when a flow has ended; left says that the WIC closed it.
func (p *Proxy) dialogsLost(f *Flow, left bool) {
	if !p.dialogs.lose(f) {
		return
	}
	grace := p.cfg.FlowGrace
	if left {
		grace = 0
	}
	time.AfterFunc(grace, func() {
		p.start(func() { p.releaseDialogs(f, nil, reasonFlowLost) })
	})
}

// adoptDialogs moves a device's dialogs to the flow that it has registered on.
func (p *Proxy) adoptDialogs(k bindingKey, f *Flow) {
	if n := p.dialogs.adopt(k, f); n > 0 {
		p.log.Info("calls go on over a new flow", "flow", f.id, "dialogs", n)
	}
}

// releaseDialogs ends the dialogs that a flow still has, or those of one device on it, with
// BYE to both sides; reason is the value of Reason.
func (p *Proxy) releaseDialogs(f *Flow, of *bindingKey, reason string) {
	for _, d := range p.dialogs.take(f, of) {
		if d.inSession() {
			p.log.Info("call released", "flow", f.id, "call_id", d.id.callID, "reason", reason)
			p.metrics.released.Inc()
			p.bye(d, reason)
		}
	}
}

// bye ends a session that is no longer in the table. A subscription needs none: its next
// NOTIFY finds no dialog, and 481 ends it (RFC 6665 §4.2.2).
func (p *Proxy) bye(d *dialog, reason string) {
	if req := d.request(sip.BYE, true, d.localSeq+1, reason); req != nil {
		p.sendToCore(req, d)
	}
	if req := d.request(sip.BYE, false, d.remoteSeq+1, reason); req != nil && !d.flow.isEnding() {
		to := peer{flow: d.flow, conn: d.flow, transport: "WSS"}
		p.pushVia(req, to, "")
		p.sendAlone(req, to)
	}
}

// request writes a request in the name of one side of the dialog; nil where it is not known
// where to.
func (d *dialog) request(method sip.RequestMethod, ofWIC bool, seq uint32, reason string) *sip.Request {
	var target sip.Uri
	uri := d.target
	if !ofWIC {
		uri = d.contact
	}
	if sip.ParseUri(uri, &target) != nil {
		return nil
	}
	target.Headers = nil // RFC 3261 §12.2.1.1
	req := sip.NewRequest(method, target)
	from, to := d.local, d.remote
	if ofWIC {
		setRows(req, "Route", d.route...)
	} else {
		from, to = to, from
	}
	setRows(req, "From", from)
	setRows(req, "To", to)
	callID := sip.CallIDHeader(d.id.callID)
	req.AppendHeader(&callID)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	if reason != "" {
		req.AppendHeader(sip.NewHeader("Reason", reason))
	}
	req.SetBody(nil)
	return req
}

// sendToCore sends a request of ours in a dialog. It waits for no answer.
func (p *Proxy) sendToCore(req *sip.Request, d *dialog) {
	hops := p.hopsFor(req, d.emergency)
	undelivered := func(err error) {
		if err != nil && p.ctx.Err() == nil {
			p.log.Warn("request not delivered", "method", string(req.Method), "call_id", d.id.callID, "err", err)
		}
	}
	if req.Method == sip.ACK {
		undelivered(p.core.write(req, hops, d.flow.id))
		return
	}
	p.start(func() {
		_, err := p.ask(p.ctx, req, hops, d.flow.id)
		undelivered(err)
	})
}

// sendAlone sends a request, complete with its Via, whose answer changes nothing.
func (p *Proxy) sendAlone(req *sip.Request, to peer) {
	c, err := p.startClientTx(req, to, nil, nil)
	if err != nil {
		return
	}
	if !p.start(func() { p.drain(c) }) {
		c.Terminate()
	}
}

// drain takes the responses of c until a final one or the end.
func (p *Proxy) drain(c *clientTx) {
	defer c.Terminate()
	for {
		select {
		case res := <-c.Responses():
			if res.StatusCode >= 200 {
				return
			}
		case <-c.Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
}

// hangUp ends a call that was answered after the caller's flow had gone: nobody else would
// send the ACK, nor the BYE (RFC 3261 §13.2.2.4, §15).
func (p *Proxy) hangUp(w *forming, res *sip.Response) {
	d := &dialog{
		id: w.fullID(toTag(res)), flow: w.flow, local: w.from, remote: first(res, "To"), emergency: w.emergency,
	}
	w.learnLocked(d, res) // nobody else knows d
	p.start(func() {
		if ack := d.request(sip.ACK, true, w.seq, ""); ack != nil {
			p.sendToCore(ack, d)
		}
		if w.hung(d.id) { // a retransmission needs the ACK alone
			return
		}
		p.log.Info("call released", "flow", w.flow.id, "call_id", d.id.callID, "reason", reasonFlowLost)
		p.metrics.released.Inc()
		if bye := d.request(sip.BYE, true, w.seq+1, reasonFlowLost); bye != nil {
			p.sendToCore(bye, d)
		}
	})
}

// hung notes that a dialog has been hung up and reports whether it was already.
func (w *forming) hung(id dialogID) bool {
	t := &w.p.dialogs
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(w.ended, id) || len(w.ended) >= maxForks {
		return true
	}
	w.ended = append(w.ended, id)
	return false
}

// reasonRow is a Reason header field (RFC 3326 §2).
func reasonRow(value string) []sip.Header { return []sip.Header{sip.NewHeader("Reason", value)} }
