package keyvalue

import (
	"context"
	"errors"
	"fmt"

	"epcscf/store"
)

// changeEdge runs f on an edge, of epoch 0 where it is new, and writes it down.
func (s *Store) changeEdge(ctx context.Context, name string, f func(*store.Edge) error) error {
	if err := named("edge", name); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error {
		e, err := get[store.Edge](tx, edges, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		e.Name = name
		if err := f(&e); err != nil {
			return err
		}
		return put(tx, edges, name, e)
	})
}

// NextEpoch implements store.Edges.
func (s *Store) NextEpoch(ctx context.Context, edge string) (epoch uint64, err error) {
	err = s.changeEdge(ctx, edge, func(e *store.Edge) error {
		e.Epoch = max(e.Epoch+1, uint64(s.now().Unix()))
		epoch = e.Epoch
		return nil
	})
	return epoch, err
}

// RaiseEpoch implements store.Edges.
func (s *Store) RaiseEpoch(ctx context.Context, edge string, epoch uint64) (highest uint64, err error) {
	err = s.changeEdge(ctx, edge, func(e *store.Edge) error {
		highest = max(e.Epoch, epoch)
		if epoch < e.Epoch {
			return fmt.Errorf("edge %s: epoch %d: %w: %d was there before", edge, epoch, store.ErrConflict, e.Epoch)
		}
		e.Epoch = epoch
		return nil
	})
	return highest, err
}

// Edges implements store.Edges.
func (s *Store) Edges(ctx context.Context) ([]store.Edge, error) {
	return list[store.Edge](s, ctx, edges)
}
