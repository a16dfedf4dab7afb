package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
)

// Ring says where a process takes keys and relays from, beside those of its file.
type Ring struct {
	Store Store
	// CacheFile is for what it knew last, should the database be away at the next start;
	// made if missing, and its directory. Only a store of kind postgres needs one.
	CacheFile string
	// Registry takes the registry's relays into the edge's fleet.
	Registry bool
}

// ringSide keeps a process at what the store's key ring and registry say.
//
//	store --Watch--> state --+
//	                         +--> apply: the keys of turnSide, relays of the fleet, revocations
//	file  ---SIGHUP----------+
type ringSide struct {
	cfg    *Ring
	turn   *turnSide
	take   func(TURN) error // has the process take approach and keys
	relay  string           // our name in the registry; "": we are an edge
	shared store.Store      // opened by somebody else, who closes it; or nil
	log    *slog.Logger
	cache  *ringCache
	up     atomic.Bool
	bolt   store.Store // opened by us at the start, where a file is the store

	mu      sync.Mutex // guards the fields below
	file    TURN       // as the file has it
	state   ringState
	applied string         // what the process has
	signing turncred.KeyID // "": none
	told    map[turncred.KeyID]time.Time
	members map[string]store.Relay // of the fleet, that the registry gave
}

const (
	// ringRetry is between tries at a database that is away.
	ringRetry = time.Second
	// ringTimeout bounds one try.
	ringTimeout = 5 * time.Second
	// seeEvery is between a relay's words to the registry.
	seeEvery = 5 * time.Second
)

// newRingSide returns nil where only the file has keys. Where opened is false nothing is
// opened or read, to check the configuration only.
func newRingSide(cfg *Ring, side *ringSide, opened bool, reg prometheus.Registerer) (*ringSide, error) {
	if cfg == nil {
		return nil, nil
	}
	side.cfg, side.told, side.members = cfg, map[turncred.KeyID]time.Time{}, map[string]store.Relay{}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "epcscf_store_up", Help: "1 while keys and relays are followed in the store.",
	}, func() float64 {
		if side.up.Load() {
			return 1
		}
		return 0
	}))
	if !opened {
		return side, nil
	}
	var err error
	if cfg.Store.Kind == StoreBolt && side.shared == nil {
		if side.bolt, err = OpenStore(context.Background(), cfg.Store, side.log); err != nil {
			return nil, err
		}
		side.shared = side.bolt
	}
	if side.cache, err = openRingCache(cfg); err == nil {
		side.state, err = side.cache.load()
	}
	if err != nil {
		side.log.Error("what the store said last is lost: until it answers, the file's keys are all", "err", err)
	}
	return side, side.apply(context.Background(), true)
}

// setFile takes what the file says from now on.
func (r *ringSide) setFile(next TURN) error {
	r.mu.Lock()
	before := r.file
	r.file = next
	r.mu.Unlock()
	err := r.apply(context.Background(), true)
	if err != nil {
		r.mu.Lock()
		r.file = before
		r.mu.Unlock()
	}
	return err
}

// apply has the process take what is known now; where force does not say so, only if time or
// the relays have changed it.
func (r *ringSide) apply(ctx context.Context, force bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.applyRelaysLocked(ctx)
	next := r.file
	next.Keys = sharedKeys(r.file.Keys, r.state.keys, r.turn.maxTTL, now, r.turn.has)
	next.Tokens.Keys = tokenKeys(r.file.Tokens.Keys, r.state.keys, now)
	applied := described(next)
	if applied == r.applied && !force {
		return nil
	}
	if err := r.take(next); err != nil {
		return err
	}
	r.applied = applied
	was := r.signing
	if r.signing = ""; len(next.Keys) > 0 && next.Keys[0].NotAfter != over {
		r.signing = next.Keys[0].ID
	}
	switch {
	case r.relay != "" || r.signing == was:
	case r.signing == "" && r.file.Approach == turncred.ApproachSharedKey:
		r.log.Warn("there is no key to make credentials with: epcscf keys rotate --kind shared-key makes one")
	case r.signing != "":
		r.log.Info("credentials are made with another key", "kid", r.signing)
	}
	return nil
}

// described tells the keys of one TURN from another's; it holds no secret.
func described(t TURN) string {
	var b strings.Builder
	for _, k := range t.Keys {
		fmt.Fprintln(&b, k.ID, k.NotBefore, k.NotAfter)
	}
	for _, k := range t.Tokens.Keys {
		fmt.Fprintln(&b, k.ID, k.NotBefore, k.NotAfter)
	}
	return b.String()
}

// run follows the store until ctx ends.
func (r *ringSide) run(ctx context.Context) {
	if r == nil {
		return
	}
	var background sync.WaitGroup
	background.Go(func() { r.tick(ctx) })
	defer background.Wait()
	for first := true; ctx.Err() == nil; first = false {
		err := r.follow(ctx)
		if was := r.up.Swap(false); ctx.Err() == nil {
			level := slog.LevelDebug // it is said once an outage
			if was || first {
				level = slog.LevelError
			}
			r.log.Log(ctx, level, "the store does not answer: keys and relays stay as they are", "err", err)
		}
		pause(ctx, ringRetry)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// tick looks every second whether another key is to be signed with, and what a revocation
// has yet to reach.
func (r *ringSide) tick(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, time.Second)
		if err := r.apply(ctx, false); err != nil {
			r.log.Error("keys not taken; those before stay", "err", err)
		}
		r.revoke(ctx)
		r.refresh()
	}
}

// refresh asks the relays what they have while one lacks the key that is signed with, or
// should be.
func (r *ringSide) refresh() {
	if r.turn.fleet == nil {
		return
	}
	r.mu.Lock()
	var wanted []turncred.KeyID
	for _, k := range r.state.keys {
		if k.Kind == store.KeyShared && k.State == store.KeyCurrent {
			wanted = append(wanted, k.ID)
		}
	}
	r.mu.Unlock()
	if slices.ContainsFunc(wanted, func(kid turncred.KeyID) bool { every, _ := r.turn.has(kid); return !every }) {
		r.turn.fleet.Refresh()
	}
}

// follow opens the store, loads what is there, and takes changes until ctx ends or it fails.
func (r *ringSide) follow(ctx context.Context) error {
	s := r.shared
	if s == nil {
		opening, cancel := context.WithTimeout(ctx, ringTimeout)
		opened, err := OpenStore(opening, r.cfg.Store, r.log)
		cancel()
		if err != nil {
			return err
		}
		s = opened
		defer func() { _ = s.Close() }() // nothing of it is ours
	}
	at, err := s.Cursor(ctx)
	if err == nil {
		err = r.load(ctx, s)
	}
	if err != nil {
		return err
	}
	r.up.Store(true)
	r.log.Info("keys and relays are followed in the store", "kind", r.cfg.Store.Kind)
	following, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	background.Go(func() { r.heed(following, s) })
	if r.relay != "" {
		background.Go(func() { r.see(following, s) })
	}
	if r.shared == nil || r.bolt != nil {
		background.Go(func() { prune(following, s, r.log) })
	}
	return s.Watch(ctx, at, func(changes []store.Change, _ store.Cursor) error {
		if !slices.ContainsFunc(changes, func(c store.Change) bool { return c.Kind == store.ChangedKey || c.Kind == store.ChangedRelay }) {
			return nil
		}
		return r.load(ctx, s)
	})
}

// heed says when the store is away, and when it is back: Watch waits an outage out.
func (r *ringSide) heed(ctx context.Context, s store.Store) {
	for ctx.Err() == nil {
		pause(ctx, ringRetry)
		asking, cancel := context.WithTimeout(ctx, ringTimeout)
		_, err := s.Cursor(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		switch was := r.up.Swap(err == nil); {
		case was && err != nil:
			r.log.Error("the store does not answer: keys and relays stay as they are", "err", err)
		case !was && err == nil:
			r.log.Info("the store answers again")
		}
	}
}

// load reads keys and relays, and takes them.
func (r *ringSide) load(ctx context.Context, s store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	var next ringState
	for _, kind := range []store.KeyKind{store.KeyShared, store.KeyToken} { // the others are no business of ours
		keys, err := s.Keys(ctx, kind)
		if err != nil {
			return err
		}
		next.keys = append(next.keys, keys...)
	}
	if r.cfg.Registry {
		var err error
		if next.relays, err = s.Relays(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	changed := describe(next) != describe(r.state)
	r.state = next
	r.mu.Unlock()
	if err := r.apply(ctx, true); err != nil {
		r.log.Error("keys of the store not taken; those before stay", "err", err)
		return nil // the next change may mend it; the store itself answers
	}
	if r.turn.fleet != nil {
		r.turn.fleet.Refresh() // who has the key that is new?
	}
	if r.relay != "" {
		r.seeOnce(ctx, s)
	}
	r.revoke(ctx)
	if !changed {
		return nil
	}
	if err := r.cache.save(next); err != nil {
		r.log.Warn("what the store says is not kept for a start without it", "err", err)
	}
	return nil
}

// describe tells one state from another; it holds no secret.
func describe(s ringState) string {
	var b strings.Builder
	for _, k := range s.keys {
		fmt.Fprintln(&b, k.Kind, k.ID, k.Algorithm, k.State, k.NotBefore, k.NotAfter)
	}
	for _, rel := range s.relays {
		fmt.Fprintln(&b, rel.Name, rel.Address, rel.URIs, rel.Weight, rel.Region, rel.State)
	}
	return b.String()
}

// revoke tells the relays of keys that are revoked: what was made with them is good nowhere,
// and its allocations end.
func (r *ringSide) revoke(ctx context.Context) {
	r.mu.Lock()
	var due []store.Key
	now := time.Now()
	for _, k := range r.state.keys {
		if k.State != store.KeyRevoked || !now.Before(k.NotAfter) || r.told[k.ID].Equal(k.NotAfter) {
			continue
		}
		due = append(due, k)
	}
	r.mu.Unlock()
	for _, k := range due {
		err := r.turn.revoker.Revoke(ctx, turncred.Revocation{KeyID: k.ID, IssuedUntil: turncred.IssueTimeAt(k.NotAfter), Until: k.NotAfter})
		if err != nil {
			if ctx.Err() == nil {
				r.log.Error("a revoked key has yet to reach every relay; it is tried again", "kid", k.ID, "err", err)
			}
			continue
		}
		r.log.Info("key revoked", "kid", k.ID)
		r.mu.Lock()
		r.told[k.ID] = k.NotAfter
		r.mu.Unlock()
	}
}

// close closes what was opened at the start.
func (r *ringSide) close() error {
	if r == nil || r.bolt == nil {
		return nil
	}
	return r.bolt.Close()
}

// tokenIDs are the names of keys.
func tokenIDs(keys []token.Key) []turncred.KeyID {
	ids := make([]turncred.KeyID, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return ids
}
