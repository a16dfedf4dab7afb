package keyvalue

import (
	"context"
	"fmt"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// PutCredentials implements store.Credentials.
func (s *Store) PutCredentials(ctx context.Context, rs []push.Record) error {
	batch := make(map[turncred.Tid]push.Record, len(rs))
	boxes := make(map[turncred.Tid][]byte, len(rs))
	for _, r := range rs {
		if err := store.CheckCredential(r); err != nil {
			return err
		}
		if twin, ok := batch[r.Tid]; ok {
			if !store.SameRecord(twin, r) {
				return store.ConflictError(r.Tid)
			}
			continue
		}
		box, err := s.keks.EncodeRecord(r)
		if err != nil {
			return err
		}
		batch[r.Tid], boxes[r.Tid] = r, box
	}
	return s.update(ctx, func(tx Tx) error {
		var fresh []turncred.Tid
		for tid, r := range batch {
			b := tx.Get(credentials, string(tid))
			if b == nil {
				fresh = append(fresh, tid)
				continue
			}
			old, err := s.keks.DecodeRecord(tid, b)
			if err != nil {
				return err
			}
			if !store.SameRecord(old, r) {
				return store.ConflictError(tid)
			}
		}
		for _, tid := range fresh {
			if err := tx.Put(credentials, string(tid), boxes[tid]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Credential implements store.Credentials.
func (s *Store) Credential(ctx context.Context, tid turncred.Tid) (r push.Record, err error) {
	err = s.view(ctx, func(tx Tx) error {
		b := tx.Get(credentials, string(tid))
		if b == nil {
			return fmt.Errorf("credential %s: %w", tid, store.ErrNotFound)
		}
		r, err = s.keks.DecodeRecord(tid, b)
		return err
	})
	return r, err
}

// EachCredential implements store.Credentials.
func (s *Store) EachCredential(ctx context.Context, f func(push.Record) error) error {
	now := s.now()
	return s.view(ctx, func(tx Tx) error {
		var bad error
		tx.Each(credentials, "", func(key string, b []byte) bool {
			if bad = ctx.Err(); bad != nil {
				return false
			}
			r, sealed, err := store.SplitRecord(turncred.Tid(key), b)
			if err == nil && !now.Before(r.Texp) {
				return true
			}
			if err == nil {
				err = s.keks.OpenRecord(&r, sealed)
			}
			if err == nil {
				err = f(r)
			}
			bad = err
			return bad == nil
		})
		return bad
	})
}
