package keyvalue

import (
	"context"
	"errors"
	"fmt"

	"epcscf/store"
)

// edgeOf returns an edge, of epoch 0 where it is new.
func edgeOf(tx Tx, name string) (store.Edge, error) {
	e, err := get[store.Edge](tx, edges, name)
	if errors.Is(err, store.ErrNotFound) {
		return store.Edge{Name: name}, nil
	}
	return e, err
}

// NextEpoch implements store.Edges.
func (s *Store) NextEpoch(ctx context.Context, edge string) (epoch uint64, err error) {
	if err := named("edge", edge); err != nil {
		return 0, err
	}
	err = s.update(ctx, func(tx Tx) error {
		e, err := edgeOf(tx, edge)
		if err != nil {
			return err
		}
		e.Epoch++
		epoch = e.Epoch
		return put(tx, edges, edge, e)
	})
	return epoch, err
}

// RaiseEpoch implements store.Edges.
func (s *Store) RaiseEpoch(ctx context.Context, edge string, epoch uint64) (highest uint64, err error) {
	if err := named("edge", edge); err != nil {
		return 0, err
	}
	err = s.update(ctx, func(tx Tx) error {
		e, err := edgeOf(tx, edge)
		if err != nil {
			return err
		}
		highest = max(e.Epoch, epoch)
		switch {
		case epoch < e.Epoch:
			return fmt.Errorf("edge %s: epoch %d: %w: %d was there before", edge, epoch, store.ErrConflict, e.Epoch)
		case epoch == e.Epoch:
			return nil
		}
		e.Epoch = epoch
		return put(tx, edges, edge, e)
	})
	return highest, err
}

// Edges implements store.Edges.
func (s *Store) Edges(ctx context.Context) ([]store.Edge, error) {
	return list[store.Edge](s, ctx, edges)
}
