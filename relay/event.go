package relay

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// EventKind says what became of an allocation.
type EventKind string

// The kinds. An allocation has one EventMade, any number of EventRefreshed and one
// EventEnded, in this order.
const (
	EventMade      EventKind = "made"
	EventRefreshed EventKind = "refreshed"
	EventEnded     EventKind = "ended"
)

// EndReason says why an allocation ended.
type EndReason string

// The reasons.
const (
	EndExpired      EndReason = "expired"      // not refreshed, or past what its credential allows
	EndDeleted      EndReason = "deleted"      // Refresh with LIFETIME 0
	EndRevoked      EndReason = "revoked"      // its credential was taken back
	EndDisconnected EndReason = "disconnected" // its stream closed
	EndSocket       EndReason = "socket"       // its relayed socket failed
	EndShutdown     EndReason = "shutdown"     // Close
)

var endReasons = []EndReason{EndExpired, EndDeleted, EndRevoked, EndDisconnected, EndSocket, EndShutdown}

// Event is what became of an allocation, and the allocation as it is after it: whose, from
// where, to whom, and all that it has relayed so far.
type Event struct {
	Kind   EventKind
	Time   time.Time
	Reason EndReason // of EventEnded
	AllocationInfo
}

// eventQueue is how many events wait for whoever listens. A busy relay makes some hundred a
// second; all that a kid's revocation ends come at once.
const eventQueue = 16384

// emitLocked tells metrics, log and Config.Events what became of a. Under the server's lock
// the events of an allocation stand in order. It never waits: what the queue has no room for
// is counted and lost.
func (s *Server) emitLocked(kind EventKind, a *allocation, why EndReason) {
	now := s.cfg.Now()
	s.metrics.event(kind, why)
	select {
	case s.events <- &Event{Kind: kind, Time: now, Reason: why, AllocationInfo: a.info(now)}:
	default:
		s.metrics.eventsLost.Inc()
	}
}

// eventLoop hands out events, one at a time. It ends when the server has closed and the
// queue is empty.
func (s *Server) eventLoop() {
	defer s.wg.Done()
	for {
		select {
		case e := <-s.events:
			s.tell(*e)
		case <-s.emitted:
			for {
				select {
				case e := <-s.events:
					s.tell(*e)
				default:
					return
				}
			}
		}
	}
}

func (s *Server) tell(e Event) {
	s.logEvent(e)
	if s.cfg.Events != nil {
		s.cfg.Events(e)
	}
}

func (s *Server) logEvent(e Event) {
	log := s.log.With("flow", e.FiveTuple.Client, "transport", e.FiveTuple.Transport, "tid", e.Tid, "subject", e.Subject, "relayed", e.Relayed)
	switch e.Kind {
	case EventMade:
		log.Info("relay: allocation made", "expires", e.Expires)
	case EventRefreshed:
		log.Debug("relay: allocation refreshed", "expires", e.Expires)
	case EventEnded:
		log.Info("relay: allocation ended", "reason", e.Reason, "peers", e.Peers, "age", e.Time.Sub(e.Since),
			"to_peer", e.BytesToPeer, "to_client", e.BytesToClient, "packets_to_peer", e.PacketsToPeer, "packets_to_client", e.PacketsToClient)
	}
}

// peerLog are the peers that an allocation has had a permission for, the first ones where
// they are too many. Permissions themselves are forgotten after five minutes, and with them
// whom a user has talked to.
type peerLog struct {
	mu  sync.Mutex // guards ips
	ips []netip.Addr
}

// note adds ip, unless there are limit already.
func (p *peerLog) note(ip netip.Addr, limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ips) < limit && !slices.Contains(p.ips, ip) {
		p.ips = append(p.ips, ip)
	}
}

func (p *peerLog) list() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ips)
}
