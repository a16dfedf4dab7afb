package keyvalue

import (
	"context"

	"epcscf/store"
	"epcscf/turncred"
)

// AddRevocation implements store.Revocations.
func (s *Store) AddRevocation(ctx context.Context, r turncred.Revocation) error {
	id, err := store.RevocationID(r)
	if err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error {
		if old, err := get[turncred.Revocation](tx, revocations, id); err == nil && !old.Until.Before(r.Until) {
			return nil
		}
		return put(tx, revocations, id, r)
	}, store.Change{Kind: store.ChangedRevocation, ID: id})
}

// Revocations implements store.Revocations.
func (s *Store) Revocations(ctx context.Context) ([]turncred.Revocation, error) {
	now := s.now()
	all, err := list[turncred.Revocation](s, ctx, revocations)
	live := all[:0]
	for _, r := range all {
		if now.Before(r.Until) {
			live = append(live, r)
		}
	}
	return live, err
}
