package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/turncred"
)

// RelayConfig is a relay of a fleet. Name, URIs, and Address or Foreign must be set.
type RelayConfig struct {
	Name       string   // in the journal, logs and metrics; the choice goes by it
	Role       Role     // default RoleRelay; an edge is told of revocations alone
	Address    string   // HOST:PORT of its credential interface
	ServerName string   // in its certificate; default: the host of Address
	URIs       []string // RFC 7065, for WICs
	Weight     int      // its share of the users; 0: it is drained, and gets nobody new
	Region     string
	Foreign    Foreign // a TURN server that is not ours, in place of the credential interface
}

// FleetConfig configures a Fleet. Domain, Name, Epoch, Keys, Journal, and Relays unless Empty
// is, must be set.
type FleetConfig struct {
	// Role is ours; default RoleEdge. A WAF writes revocations alone: its relays need no URIs.
	Role   Role
	Domain string // of the deployment
	Name   string // ours, as our certificate has it
	Epoch  uint64 // of this life (NextEpoch)
	Keys   Keys
	Relays []RelayConfig // at the start; Add and Remove change them
	// Empty allows that there is none yet.
	Empty  bool
	Spare  int    // how many relays beyond the chosen one get each credential
	Region string // ours: relays there come first

	Journal Journal

	// Event, where set, gets what happens at the relays. It must not block.
	Event func(relay string, e Event)

	Logger  *slog.Logger          // default: none
	Metrics prometheus.Registerer // nil registers none
	Now     func() time.Time      // default time.Now

	compareEvery, probeEvery, hedge, journalAfter time.Duration // of tests
}

// Fleet is an edge's side of the credential interface with all relays. It is a Sink and a
// Placer of credentials, and the turncred.Revoker. It speaks with them while Run runs.
type Fleet struct {
	cfg     FleetConfig
	log     *slog.Logger
	metrics *fleetMetrics
	members atomic.Pointer[[]*member]

	membership membership
}

var (
	_ Placer           = (*Fleet)(nil)
	_ Sink             = (*Fleet)(nil)
	_ turncred.Revoker = (*Fleet)(nil)
)

const (
	// compareEvery is between comparisons with a relay that answers.
	compareEvery = 10 * time.Second
	// probeEvery is between tries at one that does not.
	probeEvery = time.Second
	// hedge is how long a relay may take before the next one is asked too.
	hedge = 250 * time.Millisecond
	// placeTimeout bounds what a registration waits for.
	placeTimeout = time.Second
	// journalAfter is how long a revocation waits for a relay before it goes to the journal.
	journalAfter = 100 * time.Millisecond
)

// NewFleet checks cfg and reads the journal.
func NewFleet(ctx context.Context, cfg FleetConfig) (*Fleet, error) {
	switch {
	case len(cfg.Relays) == 0 && !cfg.Empty:
		return nil, errors.New("push fleet: Relays is empty")
	case cfg.Journal == nil:
		return nil, errors.New("push fleet: Journal is not set")
	case cfg.Spare < 0:
		return nil, fmt.Errorf("push fleet: Spare is %d", cfg.Spare)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for _, d := range []struct {
		to  *time.Duration
		def time.Duration
	}{{&cfg.compareEvery, compareEvery}, {&cfg.probeEvery, probeEvery}, {&cfg.hedge, hedge}, {&cfg.journalAfter, journalAfter}} {
		if *d.to == 0 {
			*d.to = d.def
		}
	}
	f := &Fleet{cfg: cfg, log: cfg.Logger, membership: membership{ledgers: map[string]*ledger{}}}
	var ms []*member
	for _, r := range cfg.Relays {
		if slices.ContainsFunc(ms, func(m *member) bool { return m.Name == r.Name }) {
			return nil, fmt.Errorf("push fleet: relay %s is there twice", r.Name)
		}
		m, err := f.newMember(r)
		if err != nil {
			return nil, fmt.Errorf("relay %s: %w", r.Name, err)
		}
		ms = append(ms, m)
	}
	f.members.Store(&ms)
	if err := f.readJournal(ctx, ms); err != nil {
		return nil, err
	}
	f.metrics = newFleetMetrics(cfg.Metrics, cfg.Role, ms, cfg.Now)
	return f, nil
}

// readJournal gives relays that are new here what they were never told. What is for a relay
// that is no more listed stays in the journal, in case it comes back, until it matters no more.
func (f *Fleet) readJournal(ctx context.Context, ms []*member) error {
	known := *f.members.Load()
	var past []uint64
	strangers := map[string]int{}
	err := f.cfg.Journal.Pending(ctx, func(id uint64, relay string, r turncred.Revocation) error {
		i := slices.IndexFunc(ms, func(m *member) bool { return m.Name == relay })
		switch {
		case i < 0 && slices.ContainsFunc(known, func(m *member) bool { return m.Name == relay }):
		case f.cfg.Now().After(r.Until):
			past = append(past, id)
		case i < 0:
			strangers[relay]++
		default:
			ms[i].owe(undelivered{id, f.cfg.Now(), r})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	for relay, n := range strangers {
		f.log.Warn("credential interface: revocations wait for a relay that is not listed", "relay", relay, "count", n)
	}
	if len(past) == 0 {
		return nil
	}
	if err := f.cfg.Journal.Done(ctx, past...); err != nil {
		return fmt.Errorf("clear the journal: %w", err)
	}
	return nil
}

// Run speaks with the relays until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	f.membership.mu.Lock()
	f.membership.running = ctx
	for _, m := range *f.members.Load() {
		f.startLocked(m)
	}
	f.membership.mu.Unlock()
	<-ctx.Done()
	f.membership.mu.Lock() // who is being added has begun, or never does
	f.membership.running = nil
	f.membership.mu.Unlock()
	f.membership.lives.Wait()
	return nil
}

// Owed is how many revocations some relay has yet to be told, all relays together.
func (f *Fleet) Owed() (n int) {
	for _, m := range *f.members.Load() {
		m.mu.Lock()
		n += len(m.owed)
		m.mu.Unlock()
	}
	return n
}

// SetWeight changes a relay's share from now on; 0 drains it. It reports whether there is
// such a relay.
func (f *Fleet) SetWeight(relay string, weight int) bool {
	for _, m := range *f.members.Load() {
		if m.Name == relay {
			m.weight.Store(int64(weight))
			return true
		}
	}
	return false
}

// Put implements Sink.
func (f *Fleet) Put(ctx context.Context, r Record) error {
	_, err := f.Place(ctx, r)
	return err
}

// placed is what became of a write at one relay.
type placed struct {
	member *member
	err    error
}

// Place implements Placer. It asks the relays in the subject's order: the first and the
// spare ones at once, the next one where one fails or is slow. It takes a second at most. A
// copy at a relay that answers too late expires by itself.
func (f *Fleet) Place(ctx context.Context, r Record) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	rest := f.rank(r.Identity.Subject, "")
	if len(rest) == 0 {
		return nil, errors.New("no relay takes new users")
	}
	answers := make(chan placed, len(rest))
	asked := 0
	ask := func() {
		if len(rest) == 0 {
			return
		}
		m := rest[0]
		rest, asked = rest[1:], asked+1
		go func() { answers <- placed{m, m.put(ctx, r)} }()
	}
	want := min(1+f.cfg.Spare, len(rest))
	for range want {
		ask()
	}
	slow := time.NewTicker(f.cfg.hedge)
	defer slow.Stop()
	var have []*member
	var errs []error
	for {
		select {
		case a := <-answers:
			if a.err == nil {
				have = append(have, a.member)
			} else {
				errs = append(errs, fmt.Errorf("relay %s: %w", a.member.Name, a.err))
				ask()
			}
		case <-slow.C:
			if len(have) > 0 { // it need not wait for a spare one
				return uris(have), nil
			}
			ask()
		}
		if len(have) >= want || len(have) > 0 && len(have)+len(errs) == asked {
			return uris(have), nil
		}
		if len(errs) == asked && len(rest) == 0 {
			return nil, errors.Join(errs...)
		}
	}
}

func uris(ms []*member) (all []string) {
	for _, m := range ms {
		all = append(all, m.URIs...)
	}
	return all
}

// Revoke implements turncred.Revoker over all relays. It returns nil when each has taken
// the revocation or the journal has it for it: from there it is delivered as soon as the
// relay answers, until r.Until.
func (f *Fleet) Revoke(ctx context.Context, r turncred.Revocation) error {
	r = normal(r)
	ms := *f.members.Load()
	errs := make([]error, len(ms))
	var wg sync.WaitGroup
	for i, m := range ms {
		wg.Go(func() {
			if errs[i] = m.revoke(ctx, r); errs[i] != nil {
				errs[i] = fmt.Errorf("relay %s: %w", m.Name, errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
