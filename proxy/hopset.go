package proxy

import (
	"cmp"
	"context"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// hop is one address of the core and what we know of its health.
//
// A hop is put aside when a request had no answer, or could not be sent, and nothing else
// was heard of it since; not by what it answers to a request, since a WIC could then put
// the core aside for everyone. It is back when it answers anything.
type hop struct {
	hopAddr
	set *hopSet

	heard  atomic.Int64 // when it last answered, in Unix nanoseconds
	isDown atomic.Bool
	// probed says that it has answered an OPTIONS before, so that silence means something.
	probed atomic.Bool
	// noTCP is until when long requests need not try TCP first.
	noTCP atomic.Int64

	mu      sync.Mutex // guards what follows
	until   time.Time  // left alone so long, where it is down
	asked   time.Time  // the last OPTIONS
	probing bool
}

// usable reports whether requests may be sent there: it is not known to be down, or it has
// been left alone long enough and no OPTIONS will tell us better.
func (h *hop) usable(now time.Time) bool {
	if !h.isDown.Load() {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.probed.Load() && now.After(h.until)
}

// hopSet is every address that some next hops stand for: the core, or another place that
// WICs' requests go to.
type hopSet struct {
	p        *Proxy
	cfg      *Core
	listed   bool // in the metrics
	steady   bool // never put aside
	resolver *resolver
	seed     maphash.Seed
	kicks    chan *hop // to be asked by OPTIONS at once

	mu    sync.Mutex // guards hops and what lists hold
	hops  map[hopAddr]*hop
	lists []*hopList // one for each NextHop
}

// hopList is what one NextHop stands for now.
type hopList struct {
	name   NextHop
	uri    hopURI
	found  []rankedHop
	fresh  time.Time     // until then; zero: for ever
	asking chan struct{} // closed when the running look-up is done
}

type rankedHop struct {
	*hop
	rank   int
	weight uint16
	server string
}

func newHopSet(p *Proxy, nextHops []NextHop, listed bool) *hopSet {
	s := &hopSet{
		p: p, listed: listed, cfg: &p.cfg.Core, resolver: newResolver(&p.cfg.Core), seed: maphash.MakeSeed(),
		kicks: make(chan *hop, maxCandidates), hops: map[hopAddr]*hop{},
	}
	for _, n := range nextHops {
		u, _ := n.uri() // Config.check has read it
		l := &hopList{name: n, uri: u, fresh: time.Unix(0, 0)}
		s.lists = append(s.lists, l)
		if u.ip.IsValid() { // nothing to ask DNS for
			found, err := s.resolver.resolve(p.ctx, u)
			s.take(l, found, err)
			l.fresh = time.Time{}
		}
	}
	return s
}

// order returns the hops in the order in which a request of that key tries them: those
// that are usable, then the others. A key keeps its hop as long as that is up, so that a
// WIC speaks to one node of a core. pending is closed when DNS has said more; nil where
// it has nothing to say.
func (s *hopSet) order(key uint64) (up, down []*hop, pending <-chan struct{}) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lists {
		if !l.fresh.IsZero() && now.After(l.fresh) {
			if asking := s.lookupLocked(l); len(l.found) == 0 {
				pending = asking
			}
		}
		for _, r := range s.shuffle(l.found, key) {
			if r.usable(now) {
				up = append(up, r.hop)
			} else {
				down = append(down, r.hop)
			}
		}
	}
	return up, down, pending
}

// wait is order, but it waits for DNS where there is no usable hop yet.
func (s *hopSet) wait(ctx context.Context, key uint64) (up, down []*hop) {
	for {
		up, down, pending := s.order(key)
		if len(up) > 0 || pending == nil {
			return up, down
		}
		select {
		case <-pending:
		case <-ctx.Done():
			return nil, down
		}
	}
}

type drawKey struct {
	key    uint64
	server string
}

// shuffle orders hops of one rank by weight. Sorting by -ln(u)/weight, u uniform, draws
// them as RFC 2782 does, one after another in proportion to their weights; u is a hash of
// key and server here, so that a key draws the same again.
func (s *hopSet) shuffle(found []rankedHop, key uint64) []rankedHop {
	if len(found) < 2 {
		return found
	}
	type drawn struct {
		rankedHop
		at float64
	}
	draws := make([]drawn, len(found))
	for i, r := range found {
		u := (float64(maphash.Comparable(s.seed, drawKey{key, r.server})>>11) + 0.5) / (1 << 53)
		// RFC 2782: those of weight 0 have a very small chance beside others.
		draws[i] = drawn{r, -math.Log(u) / max(float64(r.weight), 1.0/256)}
	}
	slices.SortStableFunc(draws, func(a, b drawn) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.at, b.at)) })
	sorted := make([]rankedHop, len(found))
	for i, d := range draws {
		sorted[i] = d.rankedHop
	}
	return sorted
}

// lookupLocked starts a look-up unless one runs.
func (s *hopSet) lookupLocked(l *hopList) <-chan struct{} {
	if l.asking == nil {
		done := make(chan struct{})
		l.asking = done
		if !s.p.start(func() { s.lookup(l, done) }) {
			l.asking = nil
			return nil
		}
	}
	return l.asking
}

// lookupTimeout bounds all queries for one next hop.
const lookupTimeout = 10 * time.Second

func (s *hopSet) lookup(l *hopList, done chan struct{}) {
	ctx, cancel := context.WithTimeout(s.p.ctx, lookupTimeout)
	defer cancel()
	found, err := s.resolver.resolve(ctx, l.uri)
	s.mu.Lock()
	s.take(l, found, err)
	l.asking = nil
	s.mu.Unlock()
	close(done)
}

// take replaces what a next hop stands for. An error leaves what was known.
func (s *hopSet) take(l *hopList, found []candidate, err error) {
	if err != nil {
		s.p.log.Warn("next hop not resolved", "next_hop", l.name.String(), "known", len(l.found), "err", err)
		l.fresh = time.Now().Add(min(s.cfg.Refresh, 5*time.Second))
		if len(l.found) == 0 {
			l.fresh = time.Now().Add(min(s.cfg.Refresh, time.Second))
		}
		return
	}
	l.fresh = time.Now().Add(s.cfg.Refresh)
	l.found = l.found[:0:0]
	for _, c := range found {
		h := s.hops[c.hopAddr]
		if h == nil {
			h = &hop{hopAddr: c.hopAddr, set: s}
			s.hops[c.hopAddr] = h
			h.show(1)
		}
		l.found = append(l.found, rankedHop{h, c.rank, c.weight, c.server})
	}
	s.forgetLocked()
}

// forgetLocked drops the hops that DNS no longer names.
func (s *hopSet) forgetLocked() {
	for t, h := range s.hops {
		named := false
		for _, l := range s.lists {
			named = named || slices.ContainsFunc(l.found, func(r rankedHop) bool { return r.hop == h })
		}
		if !named {
			delete(s.hops, t)
			if s.listed {
				s.p.metrics.core.up.DeleteLabelValues(t.String())
			}
		}
	}
}

// show puts a hop's health into the metrics.
func (h *hop) show(up float64) {
	if h.set.listed {
		h.set.p.metrics.core.up.WithLabelValues(h.String()).Set(up)
	}
}

// answered notes that a hop has answered something. A 503 is a sign of life, but not of
// one that may be disturbed again.
func (h *hop) answered(status int) {
	h.heard.Store(time.Now().UnixNano())
	if !h.isDown.Load() || status == sip.StatusServiceUnavailable {
		return
	}
	h.mu.Lock()
	was := h.isDown.Swap(false)
	h.mu.Unlock()
	if was {
		h.show(1)
		h.set.p.log.Info("next hop is back", "next_hop", h.String())
	}
}

// Why a hop is put aside and a request goes to the next.
const (
	hopSilent      = "timeout"
	hopUnreachable = "transport"
	hopRefused     = "503"
)

// failed puts a hop aside, unless it has answered anything since the attempt began.
func (h *hop) failed(began time.Time, reason string, err error) {
	if h.heard.Load() > began.UnixNano() {
		return
	}
	h.aside(h.set.cfg.Aside, reason, err)
	if reason == hopSilent {
		h.kick() // one lost request is no proof
	}
}

func (h *hop) aside(d time.Duration, reason string, err error) {
	if h.set.steady {
		return
	}
	h.mu.Lock()
	h.until = time.Now().Add(d)
	was := h.isDown.Swap(true)
	h.mu.Unlock()
	if !was {
		h.show(0)
		h.set.p.log.Warn("next hop put aside", "next_hop", h.String(), "reason", reason, "err", err)
	}
}

// kick has a hop asked by OPTIONS at once.
func (h *hop) kick() {
	select {
	case h.set.kicks <- h:
	default:
	}
}

// retryAfter tells a WIC when to come back, spread so that not all do at once
// (RFC 3261 §20.33).
func (s *hopSet) retryAfter() sip.Header {
	d := s.cfg.Aside + rand.N(s.cfg.Aside) //nolint:gosec // G404: spreads load, guards nothing
	return sip.NewHeader("Retry-After", strconv.Itoa(max(1, int(d.Round(time.Second)/time.Second))))
}
