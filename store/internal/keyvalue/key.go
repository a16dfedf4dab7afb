package keyvalue

import (
	"context"
	"fmt"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// keyRow is a key whose secret is sealed.
type keyRow struct {
	Kind                store.KeyKind
	ID                  turncred.KeyID
	Algorithm           string
	NotBefore, NotAfter time.Time
	State               store.KeyState
	Created             time.Time
	KEK                 turncred.KeyID
	Box                 []byte
}

func rowOfKey(kind store.KeyKind, id turncred.KeyID) string { return string(kind) + "/" + string(id) }

func (s *Store) keyOf(row keyRow) (store.Key, error) {
	k := store.Key{Kind: row.Kind, ID: row.ID, Algorithm: row.Algorithm, NotBefore: row.NotBefore, NotAfter: row.NotAfter, State: row.State, Created: row.Created}
	return k, s.keks.OpenKey(&k, store.Sealed{KEK: row.KEK, Box: row.Box})
}

func changedKey(kind store.KeyKind, id turncred.KeyID) store.Change {
	return store.Change{Kind: store.ChangedKey, ID: rowOfKey(kind, id)}
}

// AddKey implements store.Keys.
func (s *Store) AddKey(ctx context.Context, k store.Key) error {
	if err := store.CheckKey(k); err != nil {
		return err
	}
	sealed, err := s.keks.SealKey(k)
	if err != nil {
		return err
	}
	row := keyRow{k.Kind, k.ID, k.Algorithm, k.NotBefore, k.NotAfter, k.State, s.now().UTC(), sealed.KEK, sealed.Box}
	name := rowOfKey(k.Kind, k.ID)
	return s.update(ctx, func(tx Tx) error {
		if tx.Get(keys, name) == nil {
			return put(tx, keys, name, row)
		}
		oldRow, err := get[keyRow](tx, keys, name)
		if err != nil {
			return err
		}
		old, err := s.keyOf(oldRow)
		if err == nil && !store.SameKey(old, k) {
			err = fmt.Errorf("key %s: %w", name, store.ErrConflict)
		}
		return err
	}, changedKey(k.Kind, k.ID))
}

// SetKey implements store.Keys.
func (s *Store) SetKey(ctx context.Context, from store.KeyState, k store.Key) error {
	if err := store.CheckKeyState(k.State); err != nil {
		return err
	}
	name := rowOfKey(k.Kind, k.ID)
	return s.update(ctx, func(tx Tx) error {
		row, err := get[keyRow](tx, keys, name)
		if err != nil {
			return err
		}
		if row.State != from {
			return fmt.Errorf("key %s: %w: it is %s, not %s", name, store.ErrConflict, row.State, from)
		}
		row.State, row.NotBefore, row.NotAfter = k.State, k.NotBefore, k.NotAfter
		return put(tx, keys, name, row)
	}, changedKey(k.Kind, k.ID))
}

// DeleteKey implements store.Keys.
func (s *Store) DeleteKey(ctx context.Context, kind store.KeyKind, id turncred.KeyID) error {
	return s.update(ctx, func(tx Tx) error { return remove(tx, keys, rowOfKey(kind, id)) }, changedKey(kind, id))
}

// Keys implements store.Keys.
func (s *Store) Keys(ctx context.Context, kind store.KeyKind) ([]store.Key, error) {
	rows, err := list[keyRow](s, ctx, keys)
	if err != nil {
		return nil, err
	}
	var ks []store.Key
	for _, row := range rows {
		if kind != "" && row.Kind != kind {
			continue
		}
		k, err := s.keyOf(row)
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	return ks, nil
}
