package keyvalue

import (
	"context"
	"errors"

	"epcscf/store"
	"epcscf/turncred"
)

// proveKEKs checks that what is there can be opened, and writes down the current key's proof.
func (s *Store) proveKEKs(ctx context.Context) error {
	proofs, err := list[store.Sealed](s, ctx, checks)
	if err != nil {
		return err
	}
	current := s.keks.Current()
	proved := false
	for _, p := range proofs {
		if err := s.keks.OpenCheck(p); err != nil {
			return err
		}
		proved = proved || p.KEK == current
	}
	if proved {
		return nil
	}
	proof, err := s.keks.SealCheck()
	if err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error { return put(tx, checks, string(current), proof) })
}

// Reseal implements store.Keys.
func (s *Store) Reseal(ctx context.Context, max int) (int, error) {
	if err := s.proveKEKs(ctx); err != nil {
		return 0, err
	}
	tids, names, err := s.underOlder(ctx, max)
	if err != nil {
		return 0, err
	}
	if len(tids)+len(names) == 0 {
		return 0, s.dropProofs(ctx)
	}
	err = s.update(ctx, func(tx Tx) error {
		// Boxes first, then the writes: an error must leave nothing written.
		boxes := make(map[turncred.Tid][]byte, len(tids))
		for _, tid := range tids {
			if b := tx.Get(credentials, string(tid)); b != nil {
				r, err := s.keks.DecodeRecord(tid, b)
				if err != nil {
					return err
				}
				if boxes[tid], err = s.keks.EncodeRecord(r); err != nil {
					return err
				}
			}
		}
		rows := make(map[string]keyRow, len(names))
		for _, name := range names {
			row, err := s.resealKey(tx, name)
			if err == nil {
				rows[name] = row
			} else if !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		for tid, box := range boxes {
			if err := tx.Put(credentials, string(tid), box); err != nil {
				return err
			}
		}
		for name, row := range rows {
			if err := put(tx, keys, name, row); err != nil {
				return err
			}
		}
		return nil
	})
	return len(tids) + len(names), err
}

func (s *Store) resealKey(tx Tx, name string) (keyRow, error) {
	row, err := get[keyRow](tx, keys, name)
	if err != nil {
		return row, err
	}
	k, err := s.keyOf(row)
	if err != nil {
		return row, err
	}
	sealed, err := s.keks.SealKey(k)
	row.KEK, row.Box = sealed.KEK, sealed.Box
	return row, err
}

// underOlder finds max rows at most that are not under the current key.
func (s *Store) underOlder(ctx context.Context, max int) (tids []turncred.Tid, names []string, err error) {
	current := s.keks.Current()
	err = s.view(ctx, func(tx Tx) error {
		var bad error
		tx.Each(credentials, "", func(key string, b []byte) bool {
			var sealed store.Sealed
			if _, sealed, bad = store.SplitRecord(turncred.Tid(key), b); bad == nil && sealed.KEK != current {
				tids = append(tids, turncred.Tid(key))
			}
			return bad == nil && len(tids) < max
		})
		tx.Each(keys, "", func(key string, b []byte) bool {
			if bad != nil || len(tids)+len(names) >= max {
				return false
			}
			var row keyRow
			if row, bad = decode[keyRow](keys, key, b); bad == nil && row.KEK != current {
				names = append(names, key)
			}
			return true
		})
		return bad
	})
	return tids, names, err
}

// dropProofs forgets the keys under which no row is left.
func (s *Store) dropProofs(ctx context.Context) error {
	proofs, err := list[store.Sealed](s, ctx, checks)
	if err != nil {
		return err
	}
	current := s.keks.Current()
	return s.update(ctx, func(tx Tx) error {
		for _, p := range proofs {
			if p.KEK == current {
				continue
			}
			if err := tx.Delete(checks, string(p.KEK)); err != nil {
				return err
			}
		}
		return nil
	})
}
