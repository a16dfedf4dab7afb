package proxy

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

var errClosed = errors.New("proxy: closed")

// dispatch gives a message to its transaction, or starts one. A REGISTER of a WIC, and what
// is answered to it, goes its own way (register.go); sipgo reads everything else. The error
// is a *sipext.MalformedError.
func (p *Proxy) dispatch(m *sipext.Message, from peer) error {
	if m.Status != 0 {
		if from.flow == nil && p.registers.response(m) {
			return nil
		}
		res, err := p.fullParse(m)
		if err == nil {
			p.response(res.(*sip.Response), from)
		}
		return err
	}
	p.metrics.request(from.side(), m.Method)
	if p.log.Enabled(p.ctx, slog.LevelDebug) {
		p.log.Debug("request", "flow", from.id(), "method", m.Method, "call_id", m.First(sipext.CallID))
	}
	if from.flow != nil && m.Method == string(sip.REGISTER) {
		return p.register(m, from.flow)
	}
	req, err := p.fullParse(m)
	if err == nil {
		p.request(m, req.(*sip.Request), from)
	}
	return err
}

// response hands a response to the transaction that it answers, on the connection that
// the request went out on. A stray one is dropped: RFC 6026 §7.2 forbids to forward it, and
// its Via could name anyone (RFC 4475 §3.3.10).
func (p *Proxy) response(res *sip.Response, from peer) {
	c := p.txs.client(clientKey(from.id(), res))
	if c == nil {
		p.metrics.dropped.WithLabelValues(dropStray).Inc()
		return
	}
	if c.watch != nil {
		c.watch.response(res)
	}
	if c.to.hop != nil {
		c.to.hop.answered(res.StatusCode)
	}
	select {
	case c.in <- res:
	default:
		p.metrics.dropped.WithLabelValues(dropBacklog).Inc()
	}
}

// request takes a request in both its forms: as it was scanned, and as sipgo understands
// it.
func (p *Proxy) request(m *sipext.Message, req *sip.Request, from peer) {
	if from.flow == nil {
		from.conn = from.replyPath(req)
	}
	method := req.Method
	if method == sip.ACK {
		method = sip.INVITE
	}
	key := serverKey(from.id(), m, method)
	if t := p.txs.server(key); t != nil && (req.Method != sip.ACK || t.final.Load() >= 300) {
		_ = t.Receive(req) // a retransmission, or the ACK of a non-2xx
		return
	}
	switch req.Method {
	case sip.ACK:
		p.ack(m, req, from)
		return
	case sip.CANCEL:
		p.cancelRequest(m, req, from)
		return
	}
	if from.flow != nil && !p.admitRequest(m, from.flow, key) {
		return
	}
	t := p.newServerTx(req, from, key)
	loop, r := p.checkProxied(m, from)
	t.loop = loop
	if r != nil {
		t.refuse(r)
		return
	}
	if req.Method == sip.INVITE {
		// RFC 3261 §16.2: 100 at once, also since sipgo would build its own after 200 ms
		// from a request that is no longer what was received.
		t.answer(sip.StatusTrying, "Trying")
	}
	if from.flow != nil && p.cfg.Bearer != nil {
		p.serveWithToken(t, m)
		return
	}
	p.serve(t)
}

// serve does what a request asks for.
func (p *Proxy) serve(t *serverTx) {
	req, from := t.req, t.from
	switch {
	case from.flow == nil && p.events.forUs(t):
	case from.flow == nil:
		p.toWIC(t)
	case req.Method == sip.OPTIONS && p.isForUs(req):
		p.options(t)
	default:
		p.fromWIC(t)
	}
}

// admitRequest reports whether a request of a WIC, which is no part of a live transaction,
// is to be served. It counts one open request then.
func (p *Proxy) admitRequest(m *sipext.Message, f *Flow, key txKey) bool {
	switch {
	case f.repeat(key):
	case !f.withinRate() && !alwaysTaken(m):
		p.overLimit(m, f, limitRate, "Too many requests on this flow", 1)
	case !f.addPending(1, p.cfg.Limits.Transactions):
		p.overLimit(m, f, limitTransactions, "Too many open requests on this flow", 5)
	default:
		return true
	}
	return false
}

// overLimit answers a request without a transaction: a limit is no good that costs as much
// as what it refuses.
func (p *Proxy) overLimit(m *sipext.Message, f *Flow, limit, phrase string, retry int) {
	p.metrics.limited.WithLabelValues(limit).Inc()
	p.metrics.answered.WithLabelValues(strconv.Itoa(sip.StatusServiceUnavailable)).Inc()
	_ = f.send(answerTo(m, sip.StatusServiceUnavailable, phrase, sip.NewHeader("Retry-After", strconv.Itoa(retry))))
}

// checkProxied makes the checks of RFC 3261 §16.3 that are left after sipext.Scan:
// Max-Forwards (3), loops (4) and Proxy-Require (5). An OPTIONS with Max-Forwards 0 gets 483
// too, which the section allows. It returns the loop mark for our Via.
func (p *Proxy) checkProxied(m *sipext.Message, from peer) (loop string, r *refusal) {
	if mf := m.First(sipext.MaxForwards); mf != "" && strings.Trim(mf, "0") == "" {
		r = &refusal{status: sip.StatusTooManyHops, phrase: "Too Many Hops"}
	}
	for tag := range m.Elements(sipext.ProxyRequire) {
		if from.flow != nil && strings.EqualFold(tag, tagSecAgree) {
			continue // asked of us, and moot here
		}
		if r == nil {
			r = &refusal{status: sip.StatusBadExtension, phrase: "Bad Extension"}
		}
		if r.status == sip.StatusBadExtension {
			r.extra = append(r.extra, sip.NewHeader("Unsupported", tag))
		}
	}
	loop = p.loopMark(m)
	if r == nil && p.loops(m, loop) {
		r = &refusal{status: sip.StatusLoopDetected, phrase: "Loop Detected"}
	}
	return loop, r
}

// ack forwards the ACK of a 2xx, which is a request of its own without a transaction
// (RFC 3261 §16.6, §13.2.2.4). One that cannot be routed is dropped, as no ACK is answered.
func (p *Proxy) ack(m *sipext.Message, req *sip.Request, from peer) {
	var to peer
	_, r := p.checkProxied(m, from)
	if r == nil && from.flow != nil {
		var on onward
		if on, r = p.prepareFromWIC(from.flow, req); r == nil {
			if p.core.write(req, p.hopsFor(req, on.emergency), from.id()) != nil {
				p.metrics.dropped.WithLabelValues(dropUnroutable).Inc()
			}
			return
		}
	} else if r == nil {
		to, _, r = p.prepareToWIC(req)
	}
	if r != nil {
		p.metrics.dropped.WithLabelValues(dropUnroutable).Inc()
		return
	}
	p.pushVia(req, to, "")
	_ = to.conn.WriteMsg(req)
}

// cancelRequest answers a CANCEL and passes it on to the INVITE's transaction, which
// cancels downstream (RFC 3261 §16.10); the 487 comes from there.
func (p *Proxy) cancelRequest(m *sipext.Message, req *sip.Request, from peer) {
	re := newReply(req)
	t := p.txs.server(serverKey(from.id(), m, sip.INVITE))
	if t == nil {
		_ = from.conn.WriteMsg(re.response(sip.StatusCallTransactionDoesNotExists, "Call/Transaction Does Not Exist"))
		return
	}
	_ = from.conn.WriteMsg(re.response(sip.StatusOK, "OK"))
	select {
	case t.canceled <- req:
	default: // canceled already
	}
}
