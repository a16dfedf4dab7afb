package proxy

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// registerTable finds the REGISTER that a response answers by its branch, and is the clock of
// those that have none yet.
type registerTable struct {
	p       *Proxy
	seed    maphash.Seed
	shards  [16]registerShard
	ticking atomic.Bool
}

type registerShard struct {
	mu       sync.Mutex // guards byBranch
	byBranch map[string]*registering
}

func (t *registerTable) init(p *Proxy) {
	t.p, t.seed = p, maphash.MakeSeed()
	for i := range t.shards {
		t.shards[i].byBranch = map[string]*registering{}
	}
}

func (t *registerTable) shard(branch string) *registerShard {
	return &t.shards[maphash.String(t.seed, branch)%uint64(len(t.shards))]
}

// listen waits for responses with that branch.
func (t *registerTable) listen(branch string, r *registering) {
	s := t.shard(branch)
	s.mu.Lock()
	s.byBranch[branch] = r
	s.mu.Unlock()
	if !t.ticking.Load() && t.ticking.CompareAndSwap(false, true) {
		t.p.start(t.clock)
	}
}

// forget waits no more.
func (t *registerTable) forget(branch string) {
	s := t.shard(branch)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byBranch, branch)
}

// response gives a response of the core to the REGISTER that it answers (RFC 3261 §17.1.3),
// and reports whether there is one.
func (t *registerTable) response(m *sipext.Message) bool {
	if !strings.HasSuffix(m.First(sipext.CSeq), " "+string(sip.REGISTER)) {
		return false
	}
	branch := viaParam(m.First(sipext.Via), "branch")
	s := t.shard(branch)
	s.mu.Lock()
	r := s.byBranch[branch]
	s.mu.Unlock()
	if r == nil {
		return false
	}
	r.response(m, branch)
	return true
}

const (
	// registerTick is how exact the times of a REGISTER are, which are seconds.
	registerTick = 20 * time.Millisecond
	// idleTicks is how long the clock goes on with nothing to do.
	idleTicks = 50
)

// clock looks after every REGISTER that is open, and ends when there have been none for a
// while.
func (t *registerTable) clock() {
	tick := time.NewTicker(registerTick)
	defer tick.Stop()
	var open []*registering
	for idle := 0; idle < idleTicks; {
		select {
		case <-t.p.ctx.Done():
			return
		case now := <-tick.C:
			open = t.open(open[:0])
			for _, r := range open {
				r.tick(now)
			}
			idle++
			if len(open) > 0 {
				idle = 0
			}
			clear(open)
		}
	}
	t.ticking.Store(false)
	if len(t.open(nil)) > 0 && t.ticking.CompareAndSwap(false, true) { // one came just now
		t.p.start(t.clock)
	}
}

// open appends the REGISTERs that wait for a response.
func (t *registerTable) open(all []*registering) []*registering {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, r := range s.byBranch {
			all = append(all, r)
		}
		s.mu.Unlock()
	}
	return all
}
