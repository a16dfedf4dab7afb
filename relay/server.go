package relay

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"epcscf/turncred"
)

// sweepEvery is how often memory of what expired is freed. What has expired works no
// longer, swept or not.
const sweepEvery = time.Second

// Server is a TURN server. Make one with New; its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger // limited to logLines a second
	nonces   nonces
	dummyKey []byte // checks requests of unknown users, so that they take as long
	policy   *peerPolicy
	faces    *faces
	metrics  *metrics
	pending  atomic.Int64 // streams without an allocation
	strange  *strangers
	edge     *edgeContact
	events   chan *Event
	emitted  chan struct{} // closed when there are no more events

	crew crew

	// The data path reads flows and relayed; mu guards writing them.
	flows   *table[FiveTuple]
	relayed *table[netip.AddrPort] // by bound and by given-out address

	mu                       sync.Mutex // guards the fields below
	subjects                 map[turncred.Subject]map[*allocation]struct{}
	budgets                  map[turncred.Subject]*allowance
	reserved                 reservations
	revoked                  revocations
	goneToPeer, goneToClient traffic // of allocations that ended
	open                     map[io.Closer]struct{}
	carriers                 map[*carrier]struct{}
	sweeping                 bool
	closed                   bool

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New checks cfg and loads its revocations. It opens nothing and starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n, err := newNonces(cfg.NonceKey)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: limitLog(cfg.Logger), nonces: n, dummyKey: newDummyKey(),
		policy: newPeerPolicy(&cfg, cfg.Logger), faces: cfg.faces(), strange: newStrangers(cfg.ChallengeRate), edge: newEdgeContact(&cfg),
		flows: newTable[FiveTuple](), relayed: newTable[netip.AddrPort](),
		subjects: map[turncred.Subject]map[*allocation]struct{}{},
		budgets:  map[turncred.Subject]*allowance{},
		reserved: newReservations(),
		revoked:  newRevocations(),
		open:     map[io.Closer]struct{}{},
		events:   make(chan *Event, eventQueue), emitted: make(chan struct{}),
		carriers: map[*carrier]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.loadRevocations(); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg.Metrics, s); err != nil {
		return nil, err
	}
	return s, nil
}

// begin takes note of something that Close must close and of a goroutine, the caller's,
// that Close must wait for; finish is its undoing. It closes c and reports false where the
// server is closed.
func (s *Server) begin(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.open[c] = struct{}{}
	s.wg.Add(1)
	if !s.sweeping {
		s.sweeping = true
		s.wg.Add(2)
		go s.sweepLoop()
		go s.eventLoop()
	}
	return true
}

func (s *Server) finish(c io.Closer) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
	s.wg.Done()
}

// Close ends all allocations, closes listeners and streams, and waits for all goroutines,
// those in ServeUDP, ServeTCP and ServeTLS included. It may be called twice.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.cancel()
	var ended []*allocation
	s.flows.all(func(a *allocation) {
		if s.removeLocked(a, EndShutdown) {
			ended = append(ended, a)
		}
	})
	for _, r := range s.reserved.byToken {
		r.leg.close()
	}
	s.reserved = newReservations()
	closers := make([]io.Closer, 0, len(s.open))
	for c := range s.open {
		closers = append(closers, c)
	}
	if first {
		close(s.emitted)
	}
	s.mu.Unlock()

	for _, c := range closers {
		_ = c.Close()
	}
	for _, a := range ended {
		a.release()
	}
	s.wg.Wait()
	return nil
}

// denyPeer makes a listener's address no peer.
func (s *Server) denyPeer(a netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy.deny(a)
}

// sweepLoop frees what has expired.
func (s *Server) sweepLoop() {
	defer s.wg.Done()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.sweep(s.cfg.Now())
		}
	}
}

func (s *Server) sweep(now time.Time) {
	s.flows.all(func(a *allocation) {
		if s.overAt(a, now) {
			s.end(a, EndExpired)
			return
		}
		a.paths.prune(now)
	})
	s.watchEdges(now)
	s.mu.Lock()
	s.revoked.prune(now)
	s.pruneBudgetsLocked(now)
	s.reserved.prune(now)
	s.mu.Unlock()
}

// Allocations returns the live allocations, oldest first.
func (s *Server) Allocations() []AllocationInfo {
	now := s.cfg.Now()
	var list []AllocationInfo
	s.flows.all(func(a *allocation) {
		if !s.overAt(a, now) {
			list = append(list, a.info(now))
		}
	})
	slices.SortFunc(list, func(a, b AllocationInfo) int { return a.Since.Compare(b.Since) })
	return list
}

// totals returns the number of allocations and all that was ever relayed. Under the lock
// an allocation counts as live or as gone, never as both, so the sums never fall.
func (s *Server) totals() (live int, toPeer, toClient traffic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	toPeer, toClient = s.goneToPeer, s.goneToClient
	s.flows.all(func(a *allocation) {
		live++
		toPeer.add(a.toPeer.load())
		toClient.add(a.toClient.load())
	})
	return live, toPeer, toClient
}
