package relay

import (
	"sync/atomic"
	"time"
)

// edgeSilence is how long no edge may speak before nobody is taken to watch over the
// credentials.
const edgeSilence = 60 * time.Second

// edgeContact is when an edge last spoke. Make one with newEdgeContact.
type edgeContact struct {
	remote bool // else the edge is in this process, and always in contact
	last   atomic.Int64
	silent atomic.Bool // and the log says so
}

func newEdgeContact(cfg *Config) *edgeContact {
	c := &edgeContact{remote: cfg.RemoteEdges}
	c.last.Store(cfg.Now().UnixNano()) // an edge has that long to find a relay that starts
	return c
}

// lost returns since when no edge is in contact, and reports false where one is.
func (c *edgeContact) lost(now time.Time) (since time.Time, lost bool) {
	if !c.remote {
		return time.Time{}, false
	}
	since = time.Unix(0, c.last.Load()).Add(edgeSilence)
	return since, !now.Before(since)
}

// EdgeContact says that an edge, any one, has spoken to this relay at now: it could have
// revoked. It is for Config.RemoteEdges.
func (s *Server) EdgeContact(now time.Time) {
	for {
		old := s.edge.last.Load()
		if now.UnixNano() <= old || s.edge.last.CompareAndSwap(old, now.UnixNano()) {
			return
		}
	}
}

// bound returns when h's allocation must end by the loss of all edges, or the zero time.
// ExpiryUntilRevoked becomes ExpiryGrace then, and the grace begins with the loss where the
// credential had expired before: a call that was let live on is not cut at once.
func (s *Server) bound(h *holder, now time.Time) time.Time {
	since, lost := s.edge.lost(now)
	if !lost || s.cfg.AfterExpiry != ExpiryUntilRevoked || h.byToken {
		return time.Time{}
	}
	return later(h.texp, since).Add(s.cfg.Grace)
}

// overAt reports whether a has ended by now.
func (s *Server) overAt(a *allocation, now time.Time) bool {
	if !a.liveAt(now) {
		return true
	}
	end := s.bound(a.who(), now)
	return !end.IsZero() && !now.Before(end)
}

// deadline returns when an allocation of h ends that wants to live until end.
func (s *Server) deadline(h *holder, end, now time.Time) time.Time {
	if b := s.bound(h, now); !b.IsZero() {
		return earlier(end, b)
	}
	return end
}

// watchEdges says in the log when contact is lost, and when it is back.
func (s *Server) watchEdges(now time.Time) {
	_, lost := s.edge.lost(now)
	switch {
	case lost && !s.edge.silent.Swap(true):
		s.log.Warn("relay: no edge has spoken: allocations whose credential has expired end after the grace", "silence", edgeSilence, "grace", s.cfg.Grace)
	case !lost && s.edge.silent.Swap(false):
		s.log.Info("relay: an edge speaks again")
	}
}
