package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// journey is one request's way to the core: where it has been sent and where it may still
// go (RFC 3263 §4.3). A hop that is silent is left behind but not forgotten: if it was
// only slow, its answer counts, whoever else was asked meanwhile.
type journey struct {
	p    *Proxy
	t    *serverTx
	hops *hopSet
	edit func(*sip.Response)

	left   []*hop
	sent   bool   // t.req bears our Via: further attempts are made of clones
	facing string // the transport in its Record-Route
	began  time.Time
	redial *hop // its connection broke under the request: it has had its second chance
	broken bool // so has every other, and an answer may at most be on its way through us

	lastRefusal *sip.Response // 503

	until time.Time   // a request other than INVITE is given up
	timer *time.Timer // the silence of the hop in use, then until
	late  chan lateAnswer
	over  chan struct{} // closed when relay has ended
}

// lateAnswer is the final answer of a hop that was left behind.
type lateAnswer struct {
	c   *clientTx
	res *sip.Response
}

// toCore sends a request of a WIC to the core, or whatever hops stand for, and relays what
// comes back. edit is as in forward.
func (p *Proxy) toCore(t *serverTx, hops *hopSet, edit func(*sip.Response)) {
	if edit == nil {
		edit = t.clean
	}
	j := &journey{
		p: p, t: t, hops: hops, edit: edit, facing: p.coreTransport(), until: time.Now().Add(p.cfg.Core.Timeout),
		late: make(chan lateAnswer), over: make(chan struct{}),
	}
	// Sent in the goroutine that read it where nothing has to be waited for, so that a
	// flow's requests keep their order.
	var c *clientTx
	if up, down, _ := hops.order(t.from.id()); len(up) > 0 && p.core.isOpen(up[0]) {
		j.left = append(up, down...)
		c = j.try()
	}
	p.start(func() { j.run(c) })
}

// run is the rest of a journey; c is the first attempt, where it has been made.
func (j *journey) run(c *clientTx) {
	defer close(j.over)
	if c == nil && len(j.left) == 0 {
		up, down := j.hops.wait(j.p.ctx, j.t.from.id())
		if len(up) == 0 {
			j.p.count(coreDown)
			j.t.undeliverable(peer{}, errAllDown)
			return
		}
		j.left = append(up, down...)
	}
	if c == nil {
		c = j.advance()
	}
	if c == nil {
		j.exhausted()
		return
	}
	j.timer = time.NewTimer(j.p.cfg.Core.Failover)
	defer j.timer.Stop()
	j.p.relay(j.t, c, j.edit, j)
}

// advance tries the hops that are left until one takes the request; nil: none did.
func (j *journey) advance() *clientTx {
	for len(j.left) > 0 && j.p.ctx.Err() == nil {
		if c := j.try(); c != nil {
			return c
		}
	}
	return nil
}

// try sends the request to the next hop, with a branch of its own (RFC 3261 §16.6
// step 8).
func (j *journey) try() *clientTx {
	h := j.left[0]
	j.left = j.left[1:]
	j.began = time.Now()
	c, err := j.send(h)
	if err != nil {
		h.failed(j.began, hopUnreachable, err)
		j.p.log.Debug("next hop not reached", "flow", j.t.from.id(), "next_hop", h.String(), "err", err)
		return nil
	}
	return c
}

func (j *journey) send(h *hop) (*clientTx, error) {
	to, err := j.p.core.open(h)
	if err != nil {
		return nil, err
	}
	req := j.t.req
	if j.sent {
		req = req.Clone()
		req.RemoveHeader("Via") // the first is ours, of the attempt before
	}
	j.p.faceHop(req, j.facing, h.transport)
	if !j.sent {
		j.sent, j.facing = true, h.transport
	}
	j.p.pushVia(req, to, j.t.loop)
	c, err := j.p.startClientTx(req, j.p.core.fitRequest(h, req, to), watcherOf(j.t.watch), func(res *sip.Response) { j.t.pass(res, j.edit) })
	if err != nil && to.transport != "UDP" && j.redial != h {
		// A connection that was found open may have been closed by the core just now.
		j.redial = h
		return j.send(h)
	}
	return c, err
}

// attemptWatcher is the watcher of one attempt. What a hop refuses while others may still serve,
// or says to our CANCEL when it was left behind, is not the request's end.
type attemptWatcher struct {
	watcher
	left atomic.Bool
}

func watcherOf(w watcher) watcher {
	if w == nil {
		return nil
	}
	return &attemptWatcher{watcher: w}
}

func (a *attemptWatcher) response(res *sip.Response) {
	if res.StatusCode != sip.StatusServiceUnavailable && (res.StatusCode < 300 || !a.left.Load()) {
		a.watcher.response(res)
	}
}

// faceHop makes the URI by which the core reaches us, in Record-Route, say the transport of
// the hop in use.
func (p *Proxy) faceHop(req *sip.Request, was, now string) {
	if was == now {
		return
	}
	var rows []string
	for v := range values(req, "Record-Route") {
		if v == p.recordRouteOver(was) {
			v = p.recordRouteOver(now)
		}
		rows = append(rows, v)
	}
	setRows(req, "Record-Route", rows...)
}

// What follows is relay's part that knows of other next hops. A nil journey is the way to
// a WIC, which has none.

func (j *journey) silence() <-chan time.Time {
	if j == nil {
		return nil
	}
	return j.timer.C
}

func (j *journey) answers() <-chan lateAnswer {
	if j == nil {
		return nil
	}
	return j.late
}

// rearm sets the timer for the hop in use, or for the end of the request.
func (j *journey) rearm(fresh, invite bool) {
	left := time.Until(j.until)
	switch {
	case fresh && !invite:
		j.timer.Reset(min(j.p.cfg.Core.Failover, left))
	case fresh:
		j.timer.Reset(j.p.cfg.Core.Failover)
	case !invite:
		j.timer.Reset(left)
	}
}

// connectionGrace is how long an answer may be on its way through us when its connection
// has ended.
const connectionGrace = 200 * time.Millisecond

// silent acts when the hop in use has said nothing for Core.Failover, or the request has
// waited long enough. It reports whether relay is over.
func (w *waiting) silent() bool {
	j := w.core
	switch {
	case j.broken:
		w.c.Terminate()
		j.exhausted()
		return true
	case !w.invite && !time.Now().Before(j.until):
		w.c.Terminate()
		j.p.count(coreUnanswered)
		w.t.noResponse(w.c)
		return true
	case w.provisional || w.wantCancel:
		j.rearm(false, w.invite)
		return false
	}
	// The core itself answers an INVITE with 100, at once. Other requests wait for a callee,
	// who gets them once only unless the hop turns out to be dead.
	h := w.c.to.hop
	if w.invite {
		h.failed(j.began, hopSilent, nil)
		j.rearm(w.advance(hopSilent), w.invite)
		return false
	}
	if h.isDown.Load() {
		j.rearm(w.advance(hopSilent), false)
		return false
	}
	h.kick()
	j.rearm(true, false)
	return false
}

// advance sends the request to the next hop, if there is one that takes it, and leaves
// the one in use behind.
func (w *waiting) advance(reason string) bool {
	c := w.core.advance()
	if c == nil {
		return false
	}
	w.core.p.metrics.core.failovers.WithLabelValues(reason).Inc()
	w.core.leave(w.c, w.invite, false)
	w.c, w.provisional, w.deaf = c, false, false
	return true
}

// disconnected acts when the connection to the hop in use has ended: RFC 3263 §4.3 has a
// transport failure go to the next hop.
func (w *waiting) disconnected() {
	j, h := w.core, w.c.to.hop
	if w.provisional || w.wantCancel { // RFC 3261 §18.2.2: the answer may come on another connection
		w.deaf = true
		return
	}
	if j.redial != h { // the core may have closed an idle connection just as we wrote
		j.redial = h
		j.left = append([]*hop{h}, j.left...)
	}
	if w.advance(hopUnreachable) {
		j.rearm(true, w.invite)
		return
	}
	w.deaf, j.broken = true, true
	j.timer.Reset(connectionGrace)
}

// failed acts when the transaction has ended without an answer, and reports whether relay
// is over.
func (w *waiting) failed() bool {
	j := w.core
	switch {
	case w.wantCancel && w.invite:
		w.t.answer(sip.StatusRequestTerminated, "Request Terminated")
		return true
	case j == nil || !errors.Is(w.c.Err(), sip.ErrTransactionTransport):
		w.t.noResponse(w.c)
		return true
	}
	w.c.to.hop.failed(j.began, hopUnreachable, w.c.Err())
	if w.advance(hopUnreachable) {
		j.rearm(true, w.invite)
		return false
	}
	j.exhausted()
	return true
}

// refused takes a 503 to the next hop (RFC 3263 §4.3) and reports whether one took it.
// Where none did, res is prepared to be passed on.
func (w *waiting) refused(res *sip.Response) bool {
	j := w.core
	if j == nil {
		return false
	}
	if !w.rang && !w.wantCancel {
		w.c.to.hop.kick()
		if w.advance(hopRefused) {
			j.lastRefusal = res
			j.rearm(true, w.invite)
			return true
		}
	}
	j.refuse(res)
	return false
}

// refuse prepares the last 503 to be passed on. It says that nothing would be served that
// we could ask, which one callee's refusal does not (RFC 3261 §16.7 step 6).
func (j *journey) refuse(res *sip.Response) {
	j.p.count(coreRefused)
	if j.t.watch != nil {
		j.t.watch.unanswered()
	}
	res.StatusCode, res.Reason = sip.StatusInternalServerError, "Core refused service"
}

// lateAnswer takes the answer of a hop that was left behind, unless it says nothing, and
// reports whether relay is over.
func (w *waiting) lateAnswer(a lateAnswer) bool {
	if w.invite && !a.res.IsSuccess() || a.res.StatusCode == sip.StatusServiceUnavailable {
		return false
	}
	canceled := w.sent
	if w.invite && w.provisional && !canceled {
		w.p.sendCancel(w.c, nil)
		canceled = true
	}
	w.core.leave(w.c, w.invite, canceled)
	w.t.pass(a.res, w.core.edit)
	return true
}

// leave stops sending to a hop but listens on, as long as an answer is of use.
func (j *journey) leave(c *clientTx, invite, canceled bool) {
	if r, ok := c.to.conn.(*requestConn); ok {
		r.muted.Store(true)
	}
	if a, ok := c.watch.(*attemptWatcher); ok && invite {
		a.left.Store(true)
	}
	if !j.p.start(func() { j.listen(c, invite, canceled) }) {
		c.Terminate()
	}
}

// listen waits for what a hop that was left behind still says. An INVITE is canceled as
// soon as it may be (RFC 3261 §9.1); where the callee was faster, its 2xx is passed on as
// that of a fork, for the caller to acknowledge and to end.
func (j *journey) listen(c *clientTx, invite, canceled bool) {
	over := j.over
	// RFC 3261 §9.1: 64*T1 after the CANCEL nothing more is waited for.
	end := time.NewTimer(64 * sip.T1)
	defer end.Stop()
	for {
		select {
		case <-end.C:
			c.Terminate()
			return
		case res := <-c.Responses():
			switch {
			case res.IsProvisional() && invite && !canceled:
				canceled = true
				end.Reset(64 * sip.T1)
				j.p.sendCancel(c, nil)
			case res.IsProvisional():
			default:
				j.hand(lateAnswer{c, res}, invite)
				return
			}
		case <-over:
			if !invite {
				c.Terminate()
				return
			}
			over = nil
		case <-c.Done():
			return
		case <-j.p.ctx.Done():
			c.Terminate()
			return
		}
	}
}

// hand gives a late answer to relay, while that waits.
func (j *journey) hand(a lateAnswer, invite bool) {
	if !invite {
		defer a.c.Terminate()
	}
	select {
	case j.late <- a:
	case <-j.over:
		if invite && a.res.IsSuccess() {
			j.t.pass(a.res, j.edit)
		}
	case <-j.p.ctx.Done():
	}
}

// How a request ends that no next hop has served.

func (p *Proxy) count(reason string) { p.metrics.core.unserved.WithLabelValues(reason).Inc() }

var (
	errAllDown    = errors.New("every next hop is down")
	errUnanswered = errors.New("no next hop has answered")
)

// exhausted ends a request that has been to every hop.
func (j *journey) exhausted() {
	if res := j.lastRefusal; res != nil {
		j.refuse(res)
		j.t.pass(res, j.edit)
		return
	}
	j.p.count(coreUnanswered)
	j.t.undeliverable(peer{}, errUnanswered)
}
