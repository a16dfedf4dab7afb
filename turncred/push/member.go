package push

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/turncred"
)

// writersPerRelay is how many requests to a relay are under way at a time. More come together
// in a batch, which the relay syncs to disk at once.
const writersPerRelay = 4

// requestTimeout bounds a request to a relay.
const requestTimeout = time.Second

// member is a relay of a fleet.
//
//	put, revoke --> waiting --write (4)--> the relay
//	    |                                    ^
//	    +--> owed, journal --------keep------+  also compares, and sends a snapshot
type member struct {
	RelayConfig
	f      *Fleet
	client *Client // nil where Foreign is set
	ledger *ledger
	weight atomic.Int64
	cancel context.CancelFunc // ends its goroutines; nil before they run. Fleet.membership.mu guards it
	gauges []prometheus.Collector

	wake    chan struct{} // something waits
	trouble chan struct{} // keep has work before its time

	// quiet is held for reading by those who write, and for comparing by keep: then nothing
	// of ours is under way.
	quiet sync.RWMutex

	mu      sync.Mutex // guards the fields below
	left    bool       // it is no more a member
	waiting []*write
	owed    []undelivered
	up      bool
	state   State
	skew    time.Duration // the relay's clock less ours
}

// write is one item that waits for a relay's answer.
type write struct {
	ctx  context.Context // who waits
	item Item
	done chan error
}

func (f *Fleet) newMember(r RelayConfig) (*member, error) {
	if len(r.URIs) == 0 && f.cfg.Role != RoleWAF {
		return nil, errors.New("no URI: WICs could not reach it")
	}
	m := &member{RelayConfig: r, f: f, ledger: f.ledgerOf(r.Name), wake: make(chan struct{}, writersPerRelay), trouble: make(chan struct{}, 1)}
	m.weight.Store(int64(r.Weight))
	if r.Foreign != nil {
		return m, nil
	}
	var err error
	m.client, err = NewClient(ClientConfig{Address: r.Address, ServerName: r.ServerName, Role: r.Role, Domain: f.cfg.Domain, Name: f.cfg.Name, Epoch: f.cfg.Epoch, Keys: f.cfg.Keys})
	return m, err
}

func (m *member) health() (up bool, s State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.up, m.state
}

// put writes a credential.
func (m *member) put(ctx context.Context, r Record) error {
	start := time.Now()
	err := m.enqueue(ctx, Item{Record: &r})
	m.f.metrics.wrote(m.Name, err, time.Since(start))
	return err
}

// enqueue waits for the relay's answer to an item. An item that nobody waits for any more
// is not sent.
func (m *member) enqueue(ctx context.Context, it Item) error {
	w := &write{ctx, it, make(chan error, 1)}
	m.mu.Lock()
	if m.left {
		m.mu.Unlock()
		return errRemoved
	}
	m.waiting = append(m.waiting, w)
	m.mu.Unlock()
	poke(m.wake)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poke wakes who waits on c, now or later.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write sends what waits, all of it together, until ctx ends.
func (m *member) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		if batch := m.take(); len(batch) > 0 {
			m.send(ctx, batch)
		}
	}
}

// take returns what waits, a batch at most.
func (m *member) take() (batch []*write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := 0
	for ; i < len(m.waiting) && len(batch) < maxItems; i++ {
		if w := m.waiting[i]; w.ctx.Err() == nil {
			batch = append(batch, w)
		}
	}
	if m.waiting = m.waiting[i:]; len(m.waiting) == 0 {
		m.waiting = nil
	} else {
		poke(m.wake)
	}
	return batch
}

func (m *member) send(ctx context.Context, batch []*write) {
	m.quiet.RLock()
	defer m.quiet.RUnlock()
	items := make([]Item, len(batch))
	for i, w := range batch {
		items[i] = w.item
	}
	results, err := m.exchange(ctx, items)
	for i, w := range batch {
		if err != nil {
			w.done <- err
		} else {
			w.done <- results[i]
		}
	}
}

// exchange writes items and draws the conclusions.
func (m *member) exchange(ctx context.Context, items []Item) (results []error, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if m.Foreign != nil {
		results, err = m.tell(ctx, items)
	} else {
		// What is sent is in the ledger before, since its answer may be lost.
		m.ledger.add(items, m.f.cfg.Now())
		results, err = m.request(ctx, items)
	}
	if err != nil {
		m.failed(err)
		return nil, err
	}
	for i, it := range items {
		m.answered(it, results[i])
	}
	return results, nil
}

// request writes items at the credential interface, one in a request of its own.
func (m *member) request(ctx context.Context, items []Item) (results []error, err error) {
	if len(items) > 1 {
		return m.client.Batch(ctx, items)
	}
	it := items[0]
	if it.Record != nil {
		err = m.client.Put(ctx, *it.Record)
	} else {
		err = m.client.Revoke(ctx, *it.Revocation)
	}
	if isItems(err) {
		return []error{err}, nil
	}
	return nil, err
}

// answered draws the conclusion of the relay's answer to an item.
func (m *member) answered(it Item, err error) {
	switch {
	case err == nil:
	case !isItems(err):
		m.failed(err)
	case it.Record != nil:
		m.f.log.Error("credential interface: a relay refuses a credential", "relay", m.Name, "kid", it.Record.Tid.KeyID(), "err", err)
		m.ledger.remove(it.Record.Tid)
	}
}

// isItems reports whether an error, or success, is about the item and not the relay.
func isItems(err error) bool {
	var p *Problem
	return err == nil || errors.As(err, &p) && (p.Cause == CauseFormat || p.Cause == CauseConflict)
}

// failed takes the relay for down until it answers a digest.
func (m *member) failed(err error) {
	m.mu.Lock()
	was := m.up
	m.up = false
	m.mu.Unlock()
	if was {
		m.f.log.Warn("credential interface: a relay does not answer", "relay", m.Name, "err", err)
	}
	poke(m.trouble)
}

// revoke returns nil when the relay has taken r, or the journal has it.
func (m *member) revoke(ctx context.Context, r turncred.Revocation) error {
	if up, _ := m.health(); up {
		wait, cancel := context.WithTimeout(ctx, m.f.cfg.journalAfter)
		err := m.enqueue(wait, Item{Revocation: &r})
		cancel()
		if err == nil {
			return nil
		}
	}
	id, err := m.f.cfg.Journal.Add(ctx, m.Name, r)
	if err != nil {
		return err
	}
	m.owe(undelivered{id, m.f.cfg.Now(), r})
	poke(m.trouble)
	return nil
}

func (m *member) owe(u undelivered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owed = append(m.owed, u)
}

// keep delivers what is owed and compares, until ctx ends.
func (m *member) keep(ctx context.Context) {
	for {
		m.attend(ctx)
		pause := m.f.cfg.compareEvery
		if up, _ := m.health(); !up {
			pause = m.f.cfg.probeEvery
		}
		// Spread by a quarter, so that edges do not come back to a relay together.
		timer := time.NewTimer(pause + rand.N(pause/4)) //nolint:gosec // G404: spreads load, guards nothing
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-m.trouble:
			timer.Stop()
			m.rest(ctx)
		}
	}
}

// rest keeps a relay that fails each request from being asked without a pause.
func (m *member) rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(m.f.cfg.probeEvery / 4):
	}
}

// attend brings the relay to where it should be.
func (m *member) attend(ctx context.Context) {
	if err := m.settle(ctx); err != nil {
		m.missed(ctx, err)
		return
	}
	if m.Foreign != nil {
		if err := m.check(ctx); err != nil {
			m.missed(ctx, err)
		}
		return
	}
	same, err := m.compare(ctx)
	if err == nil && !same {
		if err = m.resend(ctx); err == nil {
			same, err = m.compare(ctx)
		}
		if err == nil && !same {
			m.f.log.Warn("credential interface: a relay's credentials differ after a snapshot; it is compared again", "relay", m.Name)
		}
	}
	if err != nil {
		m.missed(ctx, err)
	}
}

func (m *member) missed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	was := m.up
	m.up = false
	m.mu.Unlock()
	if errors.Is(err, ErrStaleEpoch) {
		m.f.log.Error("credential interface: another process has our certificate's name and began later: end one of the two", "relay", m.Name, "err", err)
	} else if was {
		m.f.log.Warn("credential interface: a relay does not answer", "relay", m.Name, "err", err)
	} else {
		m.f.log.Debug("credential interface: a relay does not answer", "relay", m.Name, "err", err)
	}
}

// settle delivers the revocations that are owed.
func (m *member) settle(ctx context.Context) error {
	for {
		m.mu.Lock()
		owed := m.owed[:min(len(m.owed), maxItems)]
		m.mu.Unlock()
		if len(owed) == 0 {
			return nil
		}
		var items []Item
		ids := make([]uint64, len(owed))
		now := m.f.cfg.Now()
		for i, u := range owed {
			ids[i] = u.id
			if now.After(u.Until) {
				m.neverTold(u.Revocation, errors.New("it did not answer until what the revocation hits had expired"))
				continue
			}
			items = append(items, Item{Revocation: &owed[i].Revocation})
		}
		if len(items) > 0 {
			results, err := m.exchange(ctx, items)
			if err != nil {
				return err
			}
			for i, err := range results {
				if !isItems(err) {
					return err
				}
				if err != nil { // it would hold up the others for ever
					m.neverTold(*items[i].Revocation, err)
				}
			}
		}
		if err := m.f.cfg.Journal.Done(ctx, ids...); err != nil {
			return err
		}
		m.mu.Lock()
		if m.owed = m.owed[len(owed):]; len(m.owed) == 0 {
			m.owed = nil
		}
		m.mu.Unlock()
	}
}

func (m *member) neverTold(r turncred.Revocation, err error) {
	m.f.log.Error("credential interface: a relay did not take a revocation", "relay", m.Name, "subject", r.Subject, "kid", r.KeyID, "err", err)
	m.f.metrics.lost.WithLabelValues(m.Name).Inc()
}

// compare asks what the relay has, while nothing of ours is under way, and reports whether
// it is what the ledger says.
func (m *member) compare(ctx context.Context) (same bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m.quiet.Lock()
	start := m.f.cfg.Now()
	after := start.Add(turncred.ClockSkew)
	s, err := m.client.Digest(ctx, after)
	end := m.f.cfg.Now()
	credentials, revocations := m.ledger.sums(after, end)
	m.quiet.Unlock()
	if err != nil {
		return false, err
	}
	if s.Epoch > m.f.cfg.Epoch {
		p := problem(409, CauseStaleEpoch, "the relay knows epoch %d, ours is %d", s.Epoch, m.f.cfg.Epoch)
		p.Epoch = s.Epoch
		return false, p
	}
	m.seen(s, s.Time.Sub(start.Add(end.Sub(start)/2)))
	if s.Epoch < m.f.cfg.Epoch { // of this life it has heard nothing
		s.Credentials, s.Revocations = Sum{}, Sum{}
	}
	return s.Credentials == credentials && s.Revocations == revocations, nil
}

// maxSkew is how far clocks may be apart before an operator should look.
const maxSkew = 5 * time.Second

func (m *member) seen(s State, skew time.Duration) {
	m.mu.Lock()
	was, before := m.up, m.skew
	m.up, m.state, m.skew = true, s, skew
	m.mu.Unlock()
	if !was {
		m.f.log.Info("credential interface: a relay answers", "relay", m.Name, "draining", s.Draining)
	}
	switch apart := skew.Abs() > maxSkew; {
	case apart && (!was || before.Abs() <= maxSkew):
		m.f.log.Error("credential interface: the clocks are apart: set both by NTP, or credentials end too early or too late", "relay", m.Name, "skew", skew.Round(time.Millisecond))
	case !apart && before.Abs() > maxSkew:
		m.f.log.Info("credential interface: the clocks agree again", "relay", m.Name)
	}
}

// resend sends a snapshot. Writes go on meanwhile, since it only adds.
func (m *member) resend(ctx context.Context) error {
	rs, vs := m.ledger.all(m.f.cfg.Now())
	m.f.log.Info("credential interface: a relay gets a snapshot", "relay", m.Name, "credentials", len(rs), "revocations", len(vs))
	m.f.metrics.snapshots.WithLabelValues(m.Name).Inc()
	for len(rs)+len(vs) > 0 {
		part, revoked := rs[:min(len(rs), maxItems)], vs[:0]
		rs = rs[len(part):]
		if len(part) == 0 {
			revoked = vs[:min(len(vs), maxItems)]
			vs = vs[len(revoked):]
		}
		limited, cancel := context.WithTimeout(ctx, 5*requestTimeout)
		conflicts, err := m.client.Snapshot(limited, part, revoked)
		cancel()
		if err != nil {
			return err
		}
		for _, tid := range conflicts {
			m.f.log.Error("credential interface: a relay has a credential with another body", "relay", m.Name, "tid", tid)
			m.ledger.remove(tid)
		}
	}
	return nil
}

// follow passes on what happens at the relay, until ctx ends.
func (m *member) follow(ctx context.Context) {
	cursor := ""
	for ctx.Err() == nil {
		err := m.client.Events(ctx, cursor, func(e Event) error {
			cursor = e.Cursor
			if e.Type != EventAlive {
				m.f.cfg.Event(m.Name, e)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			m.f.log.Debug("credential interface: the stream of events broke", "relay", m.Name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(m.f.cfg.probeEvery):
		}
	}
}
