package proxy

import (
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// registering is a REGISTER on its way: its transaction with the WIC, and those with the next
// hops that it has been sent to (RFC 3261 §17.1.2, §17.2.2; RFC 3263 §4.3). Nearly all that an
// edge does, most of the time, is this, so it has no goroutine and no timer of its own:
//
//	start     in the goroutine that reads the flow   sends it to the first hop
//	response  in the one that reads the core         the answer, or another hop after a 503
//	tick      from registerTable's clock             repetition, silence, the end of patience
//
// What has to wait for someone, a connection or a relay, gets a goroutine then.
type registering struct {
	wish
	p    *Proxy
	f    *Flow
	key  txKey
	req  *sipext.Message // as it goes to the core, but for our Via and Path
	loop string          // the end of our branches

	standing []*Registration // on a token; only who passes the 2xx on looks at it

	mu       sync.Mutex      // guards what follows
	over     bool            // answered, or nobody waits
	moving   bool            // someone is on the way to the next hop
	why      string          // the hop in use is left, for the metrics
	left     []*hop          // not asked yet
	attempts []attempt       // the last is the one in use, the others were left behind
	redial   *hop            // its connection broke under the request: it has had its second chance
	pending  bool            // a provisional response has come: the core is at work
	refused  bool            // the hop in use has said 503
	refusal  *sipext.Message // the last 503
	deadline time.Time       // of the whole
	silence  time.Time       // the hop in use should have answered by then
	broken   bool            // every hop is: an answer may at most be on its way through us
}

// attempt is the client transaction with one hop. A hop that is silent is left behind but not
// forgotten: if it was only slow, its answer counts, whoever else was asked meanwhile.
type attempt struct {
	hop    *hop
	to     peer
	branch string
	began  time.Time
	repeat time.Time     // Timer E; zero: never
	pause  time.Duration // before the repetition after that
}

func (p *Proxy) newRegistering(req *sipext.Message, f *Flow, key txKey) *registering {
	r := &registering{p: p, f: f, key: key, req: req}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registering = append(f.registering, r)
	return r
}

// isRegistering reports whether a REGISTER is on its way: what comes again then is a
// retransmission.
func (f *Flow) isRegistering(key txKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.registering, func(r *registering) bool { return r.key == key })
}

// start sends the request to the core, at once where nothing has to be waited for, so that
// a flow's requests keep their order.
func (r *registering) start() {
	r.deadline = time.Now().Add(min(r.p.cfg.Core.Timeout, 64*sip.T1))
	up, down, _ := r.p.core.hops.order(r.f.id)
	if len(up) > 0 {
		r.left = append(up, down...)
	}
	r.moving = true
	if len(up) == 0 || !r.p.core.isOpen(up[0]) || !r.try() {
		r.p.start(r.search)
	}
}

// search is start where it takes time.
func (r *registering) search() {
	if len(r.left) == 0 && len(r.attempts) == 0 {
		up, down := r.p.core.hops.wait(r.p.ctx, r.f.id)
		if len(up) == 0 {
			r.unserved(coreDown, sip.StatusServiceUnavailable, "Core unreachable", r.p.core.hops.retryAfter())
			return
		}
		r.left = append(up, down...)
	}
	if !r.next() {
		r.exhausted()
	}
}

// next sends to the next hop that takes the request, and reports whether there was one. It
// may wait for connections, so only who has set moving calls it, without the lock.
func (r *registering) next() bool {
	for {
		if r.try() {
			return true
		}
		r.mu.Lock()
		stuck := len(r.left) == 0 || r.p.ctx.Err() != nil
		r.moving = !stuck
		r.mu.Unlock()
		if stuck {
			return false
		}
	}
}

// try sends to the next hop. It reports true also where there is no need any more.
func (r *registering) try() bool {
	r.mu.Lock()
	if r.over || len(r.left) == 0 {
		defer r.mu.Unlock()
		return r.over
	}
	h := r.left[0]
	r.left = r.left[1:]
	r.mu.Unlock()
	began := time.Now()
	err := r.send(h, began)
	if err == nil {
		return true
	}
	h.failed(began, hopUnreachable, err)
	r.p.log.Debug("next hop not reached", "flow", r.f.id, "next_hop", h.String(), "err", err)
	return false
}

// send makes an attempt, with a branch of its own (RFC 3261 §16.6 step 8).
func (r *registering) send(h *hop, began time.Time) error {
	to, err := r.p.core.open(h)
	if err != nil {
		return err
	}
	a := attempt{hop: h, to: to, branch: newBranch() + r.loop, began: began}
	b := messageBuffers.get()
	defer messageBuffers.put(b)
	*b = r.append(*b, &a)
	if longer := r.p.core.fit(h, to, len(*b)); longer.transport != to.transport {
		a.to = longer
		*b = r.append((*b)[:0], &a)
	}
	if a.to.transport == "UDP" {
		a.pause, a.repeat = sip.T1, began.Add(sip.T1)
	}
	r.mu.Lock()
	if r.over { // by a hop that was left behind
		r.mu.Unlock()
		return nil
	}
	r.attempts = append(r.attempts, a)
	r.silence = began.Add(r.p.cfg.Core.Failover)
	r.moving, r.pending, r.broken, r.refused = false, false, false, false
	r.p.registers.listen(a.branch, r)
	if r.why != "" {
		r.p.metrics.core.failovers.WithLabelValues(r.why).Inc()
		r.why = ""
	}
	r.mu.Unlock()
	if err = a.to.conn.(rawWriter).write(*b); err == nil || !r.takeBack(&a) {
		return nil
	}
	if to.transport != "UDP" && r.redial != h {
		r.redial = h // a connection that was found open may have been closed by the core just now
		return r.send(h, began)
	}
	return err
}

// takeBack undoes an attempt that could not be written. It reports false where the request
// has gone on meanwhile.
func (r *registering) takeBack(a *attempt) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.attempts) - 1
	if r.over || r.moving || r.attempts[last].branch != a.branch {
		return false
	}
	r.p.registers.forget(a.branch)
	r.attempts, r.moving = r.attempts[:last], true
	return true
}

// append writes the request as it goes to a hop: with our Via, and in our Path the transport
// by which that hop reaches us (RFC 3327 §5.2).
func (r *registering) append(b []byte, a *attempt) []byte {
	return r.req.Append(b,
		sipext.Field{ID: sipext.Via, Name: "Via", Value: r.p.via(a.to.transport, a.branch)},
		sipext.Field{ID: sipext.Path, Name: "Path", Value: r.p.pathOver(r.f, a.hop.transport)})
}

// again repeats an attempt.
func (r *registering) again(a *attempt) {
	b := messageBuffers.get()
	defer messageBuffers.put(b)
	*b = r.append(*b, a)
	_ = a.to.conn.(rawWriter).write(*b)
}

// tick does what is due.
func (r *registering) tick(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.moving || len(r.attempts) == 0 {
		return
	}
	a := &r.attempts[len(r.attempts)-1]
	switch {
	case !now.Before(r.deadline):
		r.moving = true
		r.p.start(func() { r.unserved(coreUnanswered, sip.StatusGatewayTimeout, "Server Time-out") })
	case !r.broken && !r.pending && isClosed(a.to.gone()): // else the answer may come on another connection (RFC 3261 §18.2.2)
		r.disconnectedLocked(now, a.hop)
	case r.broken && !now.Before(r.silence):
		r.moving = true
		r.p.start(r.exhausted)
	case !r.broken && !r.pending && !now.Before(r.silence):
		a.hop.failed(a.began, hopSilent, nil)
		r.silence = r.deadline // nobody else may be left
		r.moveLocked(hopSilent)
	case !a.repeat.IsZero() && !now.Before(a.repeat):
		r.again(a)
		// RFC 3261 §17.1.2.2: Timer E doubles up to T2, which it is once the core is at work.
		a.pause = min(2*a.pause, sip.T2)
		if r.pending {
			a.pause = sip.T2
		}
		a.repeat = now.Add(a.pause)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// disconnectedLocked goes on when the connection to the hop in use has ended: RFC 3263 §4.3
// has a transport failure go to the next hop.
func (r *registering) disconnectedLocked(now time.Time, h *hop) {
	if r.redial != h { // the core may have closed an idle connection just as we wrote
		r.redial = h
		r.left = append([]*hop{h}, r.left...)
	}
	r.broken, r.silence = true, now.Add(connectionGrace)
	r.moveLocked(hopUnreachable)
}

// moveLocked leaves the hop in use behind for one that is left, and reports whether there is.
func (r *registering) moveLocked(reason string) bool {
	if len(r.left) == 0 {
		return false
	}
	r.moving, r.why = true, reason
	r.p.start(func() {
		if !r.next() && r.isRefused() {
			r.exhausted()
		}
	})
	return true
}

// isRefused reports whether there is nothing to wait for from the hop in use.
func (r *registering) isRefused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

// response takes what a hop answers.
func (r *registering) response(m *sipext.Message, branch string) {
	m.RemoveFirst(sipext.Via) // ours (RFC 3261 §16.7 step 3)
	if m.First(sipext.Via) == "" {
		r.p.metrics.dropped.WithLabelValues(dropStray).Inc() // it answers someone else's request
		return
	}
	final, known := r.take(m, branch)
	if final && isSuccess(m.Status) {
		r.grant(m)
	}
	switch {
	case !known:
	case final && r.needsTime(m):
		r.p.start(func() { r.pass(m) })
	case final, m.Status > sip.StatusTrying && m.Status < 200: // §16.7 step 5: 100 goes one hop
		r.pass(m)
	}
}

// take decides what a response is: the final one, which ends the request, or one that takes
// it to another hop, or less.
func (r *registering) take(m *sipext.Message, branch string) (final, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.attempts, func(a attempt) bool { return a.branch == branch })
	if r.over || i < 0 {
		return false, false
	}
	h, inUse := r.attempts[i].hop, i == len(r.attempts)-1
	h.answered(m.Status)
	switch {
	case m.Status < 200:
		r.pending = r.pending || inUse
		return false, inUse
	case m.Status == sip.StatusServiceUnavailable && !inUse:
		return false, false
	case m.Status == sip.StatusServiceUnavailable: // RFC 3263 §4.3
		h.kick()
		r.refusal, r.refused = m, true
		if r.moving || r.moveLocked(hopRefused) {
			return false, false
		}
		r.p.count(coreRefused)
	}
	r.endLocked()
	return true, true
}

// needsTime reports whether a relay may have to be waited for: the core's next message must
// not.
func (r *registering) needsTime(res *sipext.Message) bool {
	return isSuccess(res.Status) && (r.wantsCredential() && !r.p.provisionsAtOnce() ||
		slices.ContainsFunc(r.contacts, func(c contact) bool { return c.life <= 0 })) // revoked
}

// pass sends a response on to the WIC.
func (r *registering) pass(res *sipext.Message) {
	r.p.registerResponse(r, res)
	r.reply(res)
	for _, reg := range r.standing {
		r.p.endIfRevoked(reg)
	}
}

// reply sends a response to the WIC, and keeps it where it was for a credential.
func (r *registering) reply(res *sipext.Message) {
	data := outgoingOf(res.Bytes())
	if r.wanted && res.Status >= 200 {
		r.f.remember(r.key, data)
	}
	r.p.metrics.response("wic", res.Status)
	if err := r.f.enqueue(data); err != nil {
		r.p.log.Debug("response not sent", "flow", r.f.id, "status", res.Status, "err", err)
	}
}

// answer sends a final response of our own.
func (r *registering) answer(status int, phrase string, extra ...sip.Header) {
	r.mu.Lock()
	was := r.over
	r.endLocked()
	r.mu.Unlock()
	if was {
		return
	}
	r.p.refused(peer{flow: r.f}, r.req.Method, status, phrase)
	r.reply(answerTo(r.req, status, phrase, extra...))
}

// endLocked ends every transaction of the REGISTER.
func (r *registering) endLocked() {
	if r.over {
		return
	}
	r.over = true
	for _, a := range r.attempts {
		r.p.registers.forget(a.branch)
	}
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending--
	f.registering = slices.DeleteFunc(f.registering, func(o *registering) bool { return o == r })
}

// exhausted ends a request that has been to every hop.
func (r *registering) exhausted() {
	r.mu.Lock()
	res := r.refusal
	r.mu.Unlock()
	if res == nil {
		r.unserved(coreUnanswered, sip.StatusGatewayTimeout, "Server Time-out")
		return
	}
	r.p.count(coreRefused)
	r.mu.Lock()
	was := r.over
	r.endLocked()
	r.mu.Unlock()
	if !was {
		r.pass(res)
	}
}

// unserved ends a request that no next hop has served (TS 24.229 5.2.2).
func (r *registering) unserved(reason string, status int, phrase string, extra ...sip.Header) {
	r.p.count(reason)
	r.p.log.Warn("request not delivered", "flow", r.f.id, "method", r.req.Method, "reason", reason)
	r.answer(status, phrase, extra...)
}
