package keyvalue

import (
	"context"
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

func changedRelay(name string) store.Change {
	return store.Change{Kind: store.ChangedRelay, ID: name}
}

// PutRelay implements store.Relays.
func (s *Store) PutRelay(ctx context.Context, r store.Relay) error {
	if err := store.CheckRelay(r); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error {
		r.State, r.Keys, r.LastSeen = store.RelayActive, nil, time.Time{}
		if old, err := get[store.Relay](tx, relays, r.Name); err == nil {
			r.State, r.Keys, r.LastSeen = old.State, old.Keys, old.LastSeen
		}
		return put(tx, relays, r.Name, r)
	}, changedRelay(r.Name))
}

// SetRelayState implements store.Relays.
func (s *Store) SetRelayState(ctx context.Context, name string, state store.RelayState) error {
	if err := store.CheckRelayState(state); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error {
		r, err := get[store.Relay](tx, relays, name)
		if err != nil {
			return err
		}
		r.State = state
		return put(tx, relays, name, r)
	}, changedRelay(name))
}

// SeeRelay implements store.Relays. Watchers hear of it where the keys are others.
func (s *Store) SeeRelay(ctx context.Context, name string, kids []turncred.KeyID, at time.Time) error {
	changed := false
	err := s.update(ctx, func(tx Tx) error {
		r, err := get[store.Relay](tx, relays, name)
		if err != nil {
			return err
		}
		changed = !slices.Equal(r.Keys, kids)
		r.Keys, r.LastSeen = kids, at.UTC()
		return put(tx, relays, name, r)
	})
	if err == nil && changed {
		s.feed.publish([]store.Change{changedRelay(name)})
	}
	return err
}

// DeleteRelay implements store.Relays.
func (s *Store) DeleteRelay(ctx context.Context, name string) error {
	return s.update(ctx, func(tx Tx) error { return remove(tx, relays, name) }, changedRelay(name))
}

// Relays implements store.Relays.
func (s *Store) Relays(ctx context.Context) ([]store.Relay, error) {
	return list[store.Relay](s, ctx, relays)
}
