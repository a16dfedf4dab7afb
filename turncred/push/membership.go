package push

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"epcscf/turncred"
)

// membership is which relays a fleet has, and the life of each.
type membership struct {
	mu      sync.Mutex         // guards the fields below, and changes to Fleet.members
	running context.Context    //nolint:containedctx // that of Run, which members that come later live in
	ledgers map[string]*ledger // of each relay that ever was a member: one that comes back has what it had
	lives   sync.WaitGroup     // the goroutines of all members
}

// errRemoved is what waits for a relay that has left gets.
var errRemoved = errors.New("the relay is no more listed")

// Add takes a relay into the fleet. It hears first what has been revoked, so far as it can
// matter. The error says what of r is not right, or that the name is taken.
func (f *Fleet) Add(ctx context.Context, r RelayConfig) error {
	f.membership.mu.Lock()
	defer f.membership.mu.Unlock()
	ms := *f.members.Load()
	m, err := f.newMember(r)
	if err == nil && slices.ContainsFunc(ms, func(o *member) bool { return o.Name == r.Name }) {
		err = errors.New("it is there already")
	}
	if err != nil {
		return fmt.Errorf("relay %s: %w", r.Name, err)
	}
	for _, o := range ms {
		_, revoked := o.ledger.all(f.cfg.Now())
		for _, v := range append(revoked, o.owes()...) {
			m.ledger.add([]Item{{Revocation: &v}}, f.cfg.Now())
		}
	}
	if err := f.readJournal(ctx, []*member{m}); err != nil {
		return err
	}
	f.metrics.add(m, f.cfg.Now)
	ms = append(slices.Clone(ms), m)
	f.members.Store(&ms)
	if f.membership.running != nil {
		f.startLocked(m)
	}
	return nil
}

// Remove forgets a relay: nobody is sent there any more. What it is owed stays in the
// journal, should it come back. It reports whether there was such a relay.
func (f *Fleet) Remove(relay string) bool {
	f.membership.mu.Lock()
	defer f.membership.mu.Unlock()
	ms := slices.Clone(*f.members.Load())
	i := slices.IndexFunc(ms, func(m *member) bool { return m.Name == relay })
	if i < 0 {
		return false
	}
	m := ms[i]
	ms = slices.Delete(ms, i, i+1)
	f.members.Store(&ms)
	m.leave()
	f.metrics.remove(m)
	return true
}

// Has reports whether every relay that takes new users has a key of approach 1, so far as
// they answer, and whether any has.
func (f *Fleet) Has(kid turncred.KeyID) (every, some bool) {
	every = true
	for _, m := range *f.members.Load() {
		up, st := m.health()
		if !up || st.Draining || m.weight.Load() == 0 {
			continue
		}
		has := slices.Contains(st.Keys, kid)
		every, some = every && has, some || has
	}
	return every, some
}

// Offered returns the URIs of all relays that take new users, those that answer first.
func (f *Fleet) Offered() []string { return uris(f.rank(0, "")) }

// Refresh asks each relay soon what it has.
func (f *Fleet) Refresh() {
	for _, m := range *f.members.Load() {
		poke(m.trouble)
	}
}

// startLocked begins a member's life.
func (f *Fleet) startLocked(m *member) {
	ctx, cancel := context.WithCancel(f.membership.running)
	m.cancel = cancel
	var own sync.WaitGroup
	live := func(run func(context.Context)) { own.Go(func() { run(ctx) }) }
	for range writersPerRelay {
		live(m.write)
	}
	live(m.keep)
	if f.cfg.Event != nil && m.client != nil {
		live(m.follow)
	}
	f.membership.lives.Go(func() {
		own.Wait()
		if m.client != nil {
			m.client.Close()
		}
	})
}

// ledgerOf returns what was written to a relay in this life.
func (f *Fleet) ledgerOf(relay string) *ledger {
	l := f.membership.ledgers[relay]
	if l == nil {
		l = newLedger()
		f.membership.ledgers[relay] = l
	}
	return l
}

// leave ends a member's life, and lets go who waits for it.
func (m *member) leave() {
	if m.cancel != nil {
		m.cancel()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = true
	for _, w := range m.waiting {
		w.done <- errRemoved
	}
	m.waiting = nil
}

// owes returns the revocations that wait for the relay.
func (m *member) owes() (vs []turncred.Revocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.owed {
		vs = append(vs, u.Revocation)
	}
	return vs
}
