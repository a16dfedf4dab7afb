package proxy

import (
	"errors"
	"strconv"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

var errClosed = errors.New("proxy: closed")

// dispatch gives a message to its transaction, or starts one.
func (p *Proxy) dispatch(m sip.Message, from peer) {
	switch m := m.(type) {
	case *sip.Response:
		p.response(m, from)
	case *sip.Request:
		p.metrics.requests.WithLabelValues(from.side(), methodLabel(string(m.Method))).Inc()
		p.log.Debug("request", "flow", from.id(), "method", string(m.Method), "call_id", m.CallID().Value())
		p.request(m, from)
	}
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

func (p *Proxy) request(req *sip.Request, from peer) {
	method := req.Method
	if method == sip.ACK {
		method = sip.INVITE
	}
	key := serverKey(from.id(), req, method)
	if from.flow != nil && req.Method == sip.REGISTER {
		from.flow.sawRegister.Store(true)
		_ = from.flow.extend()
	}
	if t := p.txs.server(key); t != nil && (req.Method != sip.ACK || t.final.Load() >= 300) {
		_ = t.Receive(req) // a retransmission, or the ACK of a non-2xx
		return
	}
	switch req.Method {
	case sip.ACK:
		p.ack(req, from)
		return
	case sip.CANCEL:
		p.cancelRequest(req, from)
		return
	}
	if from.flow != nil && from.flow.repeat(key) {
		return
	}
	if from.flow != nil && !from.flow.withinRate() && !alwaysTaken(req) {
		p.overLimit(req, from, limitRate, "Too many requests on this flow", 1)
		return
	}
	t := p.newServerTx(req, from, key)
	if t == nil {
		p.overLimit(req, from, limitTransactions, "Too many open requests on this flow", 5)
		return
	}
	if from.flow != nil {
		sipext.StripOptionTag(req, tagSecAgree) // asked of us, and moot here
	}
	t.loop = p.loopMark(req)
	r := checkProxied(req)
	if r == nil && p.loops(req, t.loop) {
		r = &refusal{status: sip.StatusLoopDetected, phrase: "Loop Detected"}
	}
	if r != nil {
		t.refuse(r)
		return
	}
	if req.Method == sip.INVITE {
		// RFC 3261 §16.2: 100 at once, also since sipgo would build its own after 200 ms
		// from a request that is no longer what was received.
		t.answer(sip.StatusTrying, "Trying")
	}
	switch {
	case from.flow == nil && p.events.forUs(t):
	case from.flow == nil:
		p.toWIC(t)
	case req.Method == sip.REGISTER:
		p.register(t)
	case req.Method == sip.OPTIONS && p.isForUs(req):
		p.options(t)
	default:
		p.fromWIC(t)
	}
}

// overLimit answers a request without a transaction: a limit is no good that costs as much
// as what it refuses.
func (p *Proxy) overLimit(req *sip.Request, from peer, limit, phrase string, retry int) {
	p.metrics.limited.WithLabelValues(limit).Inc()
	p.metrics.answered.WithLabelValues(strconv.Itoa(sip.StatusServiceUnavailable)).Inc()
	_ = from.conn.WriteMsg(newReply(req).response(sip.StatusServiceUnavailable, phrase, sip.NewHeader("Retry-After", strconv.Itoa(retry))))
}

// checkProxied makes the checks of RFC 3261 §16.3 that are left after sipext.Scan:
// Max-Forwards (3) and Proxy-Require (5). An OPTIONS with Max-Forwards 0 gets 483 too,
// which the section allows.
func checkProxied(req *sip.Request) *refusal {
	if mf := req.MaxForwards(); mf != nil && *mf == 0 {
		return &refusal{status: sip.StatusTooManyHops, phrase: "Too Many Hops"}
	}
	if tags := sipext.List(req, "Proxy-Require"); len(tags) > 0 {
		r := &refusal{status: sip.StatusBadExtension, phrase: "Bad Extension"}
		for _, t := range tags {
			r.extra = append(r.extra, sip.NewHeader("Unsupported", t))
		}
		return r
	}
	return nil
}

// ack forwards the ACK of a 2xx, which is a request of its own without a transaction
// (RFC 3261 §16.6, §13.2.2.4). One that cannot be routed is dropped, as no ACK is answered.
func (p *Proxy) ack(req *sip.Request, from peer) {
	var to peer
	r := checkProxied(req)
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
func (p *Proxy) cancelRequest(req *sip.Request, from peer) {
	re := newReply(req)
	t := p.txs.server(serverKey(from.id(), req, sip.INVITE))
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
