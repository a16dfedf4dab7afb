package turncred

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ClockSkew is how far a relay's clock may lag behind an edge's before it refuses the
// edge's credentials.
const ClockSkew = 60 * time.Second

// MinterConfig configures a Minter. Codec, Realm, Revoker, and URIs unless Placed is, must be
// set.
type MinterConfig struct {
	Codec   *TidCodec
	Realm   Realm
	URIs    []string      // RFC 7065, turns first
	Placed  bool          // each credential gets URIs of its own, from who knows its relays
	MaxTTL  time.Duration // longest life of a credential; default 1 h
	Order   UsernameOrder // default Order3GPP
	Revoker Revoker
	Now     func() time.Time // default time.Now
}

// Minter makes what both approaches have in common, everything but the password, and
// words revocations. An issuer embeds it. Safe for concurrent use.
type Minter struct {
	cfg MinterConfig

	mu      sync.Mutex // guards the fields below
	counter uint8      // starts at random in each process
	minted  int        // Tids with the tick of issued
	// issued is the latest tick in any Tid. It never falls, so a clock that is set back
	// repeats none, and a revocation reaches all.
	issued IssueTime
	// revoked is the tick of the last revocation. What is issued later gets a later tick,
	// so that a registration right after a de-registration works at once.
	revoked IssueTime
}

// maxMinted is how many Tids a tick holds before the counter would repeat. Beyond that,
// 16,384 a second, ticks run ahead of the clock.
const maxMinted = 256

// NewMinter checks cfg.
func NewMinter(cfg MinterConfig) (*Minter, error) {
	switch {
	case cfg.Codec == nil:
		return nil, errors.New("minter: Codec is not set")
	case cfg.Realm == "":
		return nil, errors.New("minter: Realm is not set")
	case len(cfg.URIs) == 0 && !cfg.Placed:
		return nil, errors.New("minter: URIs is empty: a credential without a TURN URI is of no use")
	case cfg.Revoker == nil:
		return nil, errors.New("minter: Revoker is not set")
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = time.Hour
	}
	if cfg.MaxTTL < time.Second {
		return nil, fmt.Errorf("minter: MaxTTL is %v, want 1 s or more", cfg.MaxTTL)
	}
	if cfg.Order == "" {
		cfg.Order = Order3GPP
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var c [1]byte
	if _, err := rand.Read(c[:]); err != nil { // starts at random in each process
		return nil, fmt.Errorf("minter: %w", err)
	}
	return &Minter{cfg: cfg, counter: c[0]}, nil
}

// Now returns the minter's time.
func (m *Minter) Now() time.Time { return m.cfg.Now() }

// Life returns how long a credential for r lives: whole seconds, MaxTTL at most.
func (m *Minter) Life(r Request) (time.Duration, error) {
	life := min(r.Life, m.cfg.MaxTTL).Truncate(time.Second)
	if life <= 0 {
		return 0, errors.New("mint: the registration ends within a second")
	}
	return life, nil
}

// Identify stamps a credential that is issued now: a later Revoke of m reaches it, an
// earlier one does not.
func (m *Minter) Identify(r Request) Identity {
	id, _ := m.stamp(r, m.cfg.Now())
	return id
}

// stamp is Identify at now, and counts.
func (m *Minter) stamp(r Request, now time.Time) (id Identity, counter uint8) {
	id = Identity{Subject: m.cfg.Codec.Subject(r.IMPI), Binding: r.Binding}
	m.mu.Lock()
	defer m.mu.Unlock()
	id.Issued = m.tickLocked(now)
	m.counter++
	return id, m.counter
}

// tickLocked returns the issue time of the next Tid.
func (m *Minter) tickLocked(now time.Time) IssueTime {
	tick := max(IssueTimeAt(now), m.revoked+1, m.issued)
	if tick == m.issued && m.minted == maxMinted {
		tick++
	}
	if tick != m.issued {
		m.issued, m.minted = tick, 0
	}
	m.minted++
	return tick
}

// Mint returns a credential without its password.
func (m *Minter) Mint(r Request, kid KeyID, a Approach) (Credential, error) {
	life, err := m.Life(r)
	if err != nil {
		return Credential{}, err
	}
	now := m.cfg.Now()
	id, counter := m.stamp(r, now)

	tid, err := m.cfg.Codec.Seal(kid, id, counter)
	if err != nil {
		return Credential{}, fmt.Errorf("mint: %w", err)
	}
	texp := now.Truncate(time.Second).Add(life)
	return Credential{
		Tid: tid, Texp: texp, TTL: life, Username: m.cfg.Order.Username(tid, texp),
		Realm: m.cfg.Realm, URIs: m.cfg.URIs, Approach: a, Identity: id,
	}, nil
}

// Revoke implements Provisioner for the issuers that embed m. The error is a *RevokeError.
func (m *Minter) Revoke(ctx context.Context, s Scope) error {
	now := m.cfg.Now()
	until := s.IssuedUntil
	if until == 0 {
		m.mu.Lock()
		m.revoked = max(m.revoked, m.issued, IssueTimeAt(now))
		until = m.revoked
		m.mu.Unlock()
	}
	r := Revocation{
		Subject: m.cfg.Codec.Subject(s.IMPI), IssuedUntil: until, KeepLive: s.KeepLive,
		Until: now.Add(m.cfg.MaxTTL + ClockSkew),
	}
	if !s.AllBindings {
		r.Binding = &s.Binding
	}
	tell := func(ctx context.Context) error { return m.cfg.Revoker.Revoke(ctx, r) }
	if err := tell(ctx); err != nil {
		return &RevokeError{Err: err, Again: tell, Until: r.Until}
	}
	return nil
}

// RevokeTid takes back one credential, of which nothing is good after until. The error is a
// *RevokeError.
func (m *Minter) RevokeTid(ctx context.Context, tid Tid, until time.Time) error {
	r := Revocation{Tid: tid, Until: until}
	tell := func(ctx context.Context) error { return m.cfg.Revoker.Revoke(ctx, r) }
	if err := tell(ctx); err != nil {
		return &RevokeError{Err: err, Again: tell, Until: r.Until}
	}
	return nil
}
