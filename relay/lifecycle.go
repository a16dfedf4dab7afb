package relay

import (
	"time"

	"github.com/pion/stun/v3"
)

// live returns the allocation of a five-tuple, or nil. What has expired ends here and now,
// so that no request finds it before the sweep does.
func (s *Server) live(five FiveTuple, now time.Time) *allocation {
	a := s.flows.load(five)
	if a == nil || !s.overAt(a, now) {
		return a
	}
	s.end(a, EndExpired)
	return nil
}

// insert makes a live, unless something changed since the request was checked: then it
// says what, and a is not live. A revocation takes the same lock, so an Allocate under
// way either sees it here or is found by it. next, where not nil, is reserved.
func (s *Server) insert(a *allocation, next *leg) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := a.who()
	switch {
	case s.closed:
		return refuse(stun.CodeInsufficientCapacity, "server is closing")
	case s.revoked.hit(h.tid, h.identity):
		return challenge("credential revoked")
	case s.flows.load(a.five) != nil:
		return refuse(stun.CodeAllocMismatch, "five-tuple has an allocation")
	case s.quotaReachedLocked(a.owner):
		return refuse(stun.CodeAllocQuotaReached, "subject has its allocations")
	}
	for _, l := range a.legs {
		if l.lane == nil {
			continue
		}
		if err := l.lane.start(); err != nil {
			s.log.Warn("relay: no relayed socket", "err", err)
			return refuse(stun.CodeInsufficientCapacity, "no relayed socket")
		}
	}
	if s.subjects[a.owner] == nil {
		s.subjects[a.owner] = map[*allocation]struct{}{}
	}
	s.subjects[a.owner][a] = struct{}{}
	a.budget = s.budgetLocked(a.owner)
	if next != nil {
		a.reserve = s.reserved.add(a.owner, next, a.since)
	}
	s.flows.put(a.five, a)
	for _, l := range a.legs {
		s.relayed.put(l.bound, a)
		if l.relayed != l.bound {
			s.relayed.put(l.relayed, a)
		}
		if l.lane == nil {
			s.wg.Add(1)
			go s.relayLoop(a, l)
		}
	}
	s.emitLocked(EventMade, a, "")
	return nil
}

// extend sets a's time-to-expiry and returns it, or says why not. A token that h brought
// takes the place of the one that a had. As in insert, a revocation takes the same lock.
func (s *Server) extend(a *allocation, h *holder, now time.Time, lifetime time.Duration) (time.Duration, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.ended.Load() {
		return 0, refuse(stun.CodeAllocMismatch, "allocation has ended")
	}
	if h.byToken && h.tid != a.who().tid {
		if s.revoked.hit(h.tid, h.identity) {
			return 0, challenge("credential revoked")
		}
		a.holder.Store(new(*h))
		a.limit = s.cfg.limit(a.since, h)
	}
	end := s.deadline(h, earlier(now.Add(lifetime), a.limit), now)
	a.deadline.set(end)
	left := end.Sub(now)
	if left < time.Second { // LIFETIME has no word for it
		return 0, refuse(stun.CodeAllocMismatch, "allocation is at its end")
	}
	s.emitLocked(EventRefreshed, a, "")
	return left, nil
}

// shortenLocked lets a live until limit at most.
func (s *Server) shortenLocked(a *allocation, limit time.Time) {
	a.limit = earlier(a.limit, limit)
	a.deadline.set(earlier(a.deadline.time(), a.limit))
}

// end ends a. It may be called twice.
func (s *Server) end(a *allocation, why EndReason) {
	s.mu.Lock()
	removed := s.removeLocked(a, why)
	s.mu.Unlock()
	if removed {
		a.release()
	}
}

// removeLocked takes a out of the tables, so that no packet passes any more, and reports
// whether it was in. The caller then calls release, without the lock.
func (s *Server) removeLocked(a *allocation, why EndReason) bool {
	if !a.ended.CompareAndSwap(false, true) {
		return false
	}
	delete(s.subjects[a.owner], a)
	if len(s.subjects[a.owner]) == 0 {
		delete(s.subjects, a.owner)
	}
	s.flows.remove(a.five)
	for _, l := range a.legs {
		if !l.ended.Load() { // or another allocation may have its address by now
			s.forgetLegLocked(l)
		}
	}
	s.goneToPeer.add(a.toPeer.load())
	s.goneToClient.add(a.toClient.load())
	s.emitLocked(EventEnded, a, why)
	return true
}

// forgetLegLocked takes l out of the tables. The caller then closes its socket.
func (s *Server) forgetLegLocked(l *leg) {
	s.relayed.remove(l.bound)
	s.relayed.remove(l.relayed)
}

// endLeg ends a's address of one family, with the permissions and channels of its peers and
// no others; and a itself where it has no other (RFC 8656 §8.1).
func (s *Server) endLeg(a *allocation, l *leg) {
	s.mu.Lock()
	last := true
	for _, o := range a.legs {
		last = last && (o == l || o.ended.Load())
	}
	if last || a.ended.Load() {
		s.mu.Unlock()
		s.end(a, EndDeleted)
		return
	}
	if l.ended.CompareAndSwap(false, true) {
		s.forgetLegLocked(l)
	}
	s.mu.Unlock()
	l.close()
	a.paths.forget(l.family())
}

// release closes what a held.
func (a *allocation) release() {
	for _, l := range a.legs {
		l.close() // again, where a leg had ended
	}
	a.client.release()
}
