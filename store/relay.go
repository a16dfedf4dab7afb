package store

import (
	"context"
	"fmt"
	"time"

	"epcscf/turncred"
)

// RelayState says whether a relay gets new users.
type RelayState string

// The states of a relay.
const (
	RelayActive   RelayState = "active"
	RelayDraining RelayState = "draining" // no new users; live allocations go on
)

// Relay is an entry of the registry, in which edges find the relays.
type Relay struct {
	Name    string // of the certificate's SAN
	Address string // HOST:PORT of its credential interface
	URIs    []string
	Weight  int // of 0 and more; in proportion to the others'
	Region  string
	State   RelayState

	// What the relay says of itself.
	Keys     []turncred.KeyID // those that it has: it is offered for no other
	LastSeen time.Time
}

// Relays are the registry of relays.
type Relays interface {
	// PutRelay adds a relay, which is active, or replaces its Address, URIs, Weight and
	// Region. Its State, Keys and LastSeen are left alone.
	PutRelay(ctx context.Context, r Relay) error
	// SetRelayState drains a relay or makes it active again. The error is ErrNotFound.
	SetRelayState(ctx context.Context, name string, s RelayState) error
	// SeeRelay writes down that a relay was there at a time, with these keys. The error is
	// ErrNotFound.
	SeeRelay(ctx context.Context, name string, keys []turncred.KeyID, at time.Time) error
	// DeleteRelay forgets a relay. The error is ErrNotFound.
	DeleteRelay(ctx context.Context, name string) error
	// Relays returns all, by name.
	Relays(ctx context.Context) ([]Relay, error)
}

// CheckRelay reports what of r cannot be stored. The error is ErrInvalid.
func CheckRelay(r Relay) error {
	switch {
	case r.Name == "" || len(r.Name) > maxField:
		return fmt.Errorf("relay: %w: a name of %d bytes", ErrInvalid, len(r.Name))
	case r.Weight < 0 || r.Weight > maxWeight:
		return fmt.Errorf("relay %s: %w: weight is %d, want 0 to %d", r.Name, ErrInvalid, r.Weight, maxWeight)
	}
	return nil
}

const maxWeight = 1_000_000

// CheckRelayState reports a state that there is not. The error is ErrInvalid.
func CheckRelayState(s RelayState) error {
	if s != RelayActive && s != RelayDraining {
		return fmt.Errorf("relay: %w: unknown state %q", ErrInvalid, s)
	}
	return nil
}
