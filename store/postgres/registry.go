package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
	"epcscf/turncred"
)

func scanRelay(row pgx.Row) (r store.Relay, err error) {
	var seen *time.Time
	err = row.Scan(&r.Name, &r.Address, &r.URIs, &r.Weight, &r.Region, &r.State, &r.Keys, &seen)
	r.LastSeen = orZero(seen)
	return r, err
}

func changedRelay(name string) store.Change {
	return store.Change{Kind: store.ChangedRelay, ID: name}
}

// PutRelay implements store.Relays.
func (s *Store) PutRelay(ctx context.Context, r store.Relay) error {
	if err := store.CheckRelay(r); err != nil {
		return err
	}
	return s.changing(ctx, changedRelay(r.Name), func(tx pgx.Tx) error {
		_, err := exec(ctx, tx, putRelay, r.Name, r.Address, list(r.URIs), r.Weight, r.Region, store.RelayActive)
		return err
	})
}

// SetRelayState implements store.Relays.
func (s *Store) SetRelayState(ctx context.Context, name string, state store.RelayState) error {
	if err := store.CheckRelayState(state); err != nil {
		return err
	}
	return s.changing(ctx, changedRelay(name), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("relay", name), setRelayState, name, state)
	})
}

// SeeRelay implements store.Relays. Watchers hear of it where the keys are others.
func (s *Store) SeeRelay(ctx context.Context, name string, kids []turncred.KeyID, at time.Time) error {
	changed := false
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		old, err := one(ctx, tx, scanKids, notFound("relay", name), lockRelay, name)
		if err != nil {
			return err
		}
		if err := must(ctx, tx, notFound("relay", name), seeRelay, name, list(kids), at); err != nil {
			return err
		}
		if changed = !slices.Equal(old, kids); changed {
			_, err = exec(ctx, tx, addChange, store.ChangedRelay, name)
		}
		return err
	})
	if err == nil && changed {
		s.tell(ctx)
	}
	return err
}

func scanKids(row pgx.Row) (kids []turncred.KeyID, err error) {
	err = row.Scan(&kids)
	return kids, err
}

// DeleteRelay implements store.Relays.
func (s *Store) DeleteRelay(ctx context.Context, name string) error {
	return s.changing(ctx, changedRelay(name), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("relay", name), deleteRelay, name)
	})
}

// Relays implements store.Relays.
func (s *Store) Relays(ctx context.Context) ([]store.Relay, error) {
	return rows(ctx, s.pool, scanRelay, allRelays)
}

func scanEpoch(row pgx.Row) (uint64, error) {
	var epoch int64
	err := row.Scan(&epoch)
	return uint64(epoch), err
}

func scanEdge(row pgx.Row) (e store.Edge, err error) {
	var epoch int64
	err = row.Scan(&e.Name, &epoch)
	e.Epoch = uint64(epoch)
	return e, err
}

// NextEpoch implements store.Edges.
func (s *Store) NextEpoch(ctx context.Context, edge string) (uint64, error) {
	if err := named("edge", edge); err != nil {
		return 0, err
	}
	return scanEpoch(s.pool.QueryRow(ctx, string(nextEpoch), edge, s.cfg.Now().Unix()))
}

// RaiseEpoch implements store.Edges.
func (s *Store) RaiseEpoch(ctx context.Context, edge string, epoch uint64) (uint64, error) {
	if err := named("edge", edge); err != nil {
		return 0, err
	}
	highest, err := scanEpoch(s.pool.QueryRow(ctx, string(raiseEpoch), edge, int64(epoch)))
	if err == nil && epoch < highest {
		err = fmt.Errorf("edge %s: epoch %d: %w: %d was there before", edge, epoch, store.ErrConflict, highest)
	}
	return highest, err
}

// Edges implements store.Edges.
func (s *Store) Edges(ctx context.Context) ([]store.Edge, error) {
	return rows(ctx, s.pool, scanEdge, allEdges)
}
