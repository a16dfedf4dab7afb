package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
	"epcscf/turncred"
)

// sealedKey is a row of keys.
type sealedKey struct {
	store.Key // without its secret
	sealed    store.Sealed
}

func scanKey(row pgx.Row) (k sealedKey, err error) {
	var before, after *time.Time
	err = row.Scan(&k.Kind, &k.ID, &k.Algorithm, &before, &after, &k.State, &k.Created, &k.sealed.KEK, &k.sealed.Box)
	k.NotBefore, k.NotAfter = orZero(before), orZero(after)
	return k, err
}

func (s *Store) openKey(k sealedKey) (store.Key, error) {
	err := s.cfg.KEKs.OpenKey(&k.Key, k.sealed)
	return k.Key, err
}

func keyName(kind store.KeyKind, id turncred.KeyID) string { return string(kind) + "/" + string(id) }

func changedKey(kind store.KeyKind, id turncred.KeyID) store.Change {
	return store.Change{Kind: store.ChangedKey, ID: keyName(kind, id)}
}

// AddKey implements store.Keys.
func (s *Store) AddKey(ctx context.Context, k store.Key) error {
	if err := store.CheckKey(k); err != nil {
		return err
	}
	sealed, err := s.cfg.KEKs.SealKey(k)
	if err != nil {
		return err
	}
	return s.changing(ctx, changedKey(k.Kind, k.ID), func(tx pgx.Tx) error {
		n, err := exec(ctx, tx, addKey, k.Kind, k.ID, k.Algorithm, null(k.NotBefore), null(k.NotAfter), k.State, s.cfg.Now(), sealed.KEK, sealed.Box)
		if err != nil || n == 1 {
			return err
		}
		old, err := s.key(ctx, tx, k.Kind, k.ID)
		if err == nil && !store.SameKey(old, k) {
			err = conflict("key", keyName(k.Kind, k.ID))
		}
		return err
	})
}

func (s *Store) key(ctx context.Context, q querier, kind store.KeyKind, id turncred.KeyID) (store.Key, error) {
	row, err := one(ctx, q, scanKey, notFound("key", keyName(kind, id)), oneKey, kind, id)
	if err != nil {
		return store.Key{}, err
	}
	return s.openKey(row)
}

// SetKey implements store.Keys.
func (s *Store) SetKey(ctx context.Context, from store.KeyState, k store.Key) error {
	if err := store.CheckKeyState(k.State); err != nil {
		return err
	}
	return s.changing(ctx, changedKey(k.Kind, k.ID), func(tx pgx.Tx) error {
		n, err := exec(ctx, tx, setKey, k.Kind, k.ID, from, k.State, null(k.NotBefore), null(k.NotAfter))
		if err != nil || n == 1 {
			return err
		}
		old, err := s.key(ctx, tx, k.Kind, k.ID)
		if err == nil {
			err = fmt.Errorf("key %s: %w: it is %s, not %s", keyName(k.Kind, k.ID), store.ErrConflict, old.State, from)
		}
		return err
	})
}

// DeleteKey implements store.Keys.
func (s *Store) DeleteKey(ctx context.Context, kind store.KeyKind, id turncred.KeyID) error {
	return s.changing(ctx, changedKey(kind, id), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("key", keyName(kind, id)), deleteKey, kind, id)
	})
}

// Keys implements store.Keys.
func (s *Store) Keys(ctx context.Context, kind store.KeyKind) ([]store.Key, error) {
	var rs []sealedKey
	var err error
	if kind == "" {
		rs, err = rows(ctx, s.pool, scanKey, allKeys)
	} else {
		rs, err = rows(ctx, s.pool, scanKey, kindKeys, kind)
	}
	if err != nil {
		return nil, err
	}
	ks := make([]store.Key, len(rs))
	for i, row := range rs {
		if ks[i], err = s.openKey(row); err != nil {
			return nil, err
		}
	}
	return ks, nil
}

func scanSealed(row pgx.Row) (p store.Sealed, err error) {
	err = row.Scan(&p.KEK, &p.Box)
	return p, err
}

// proveKEKs checks that what is there can be opened, and writes down the current key's proof.
func (s *Store) proveKEKs(ctx context.Context, q querier) error {
	for range 2 {
		proofs, err := rows(ctx, q, scanSealed, allChecks)
		if err != nil {
			return err
		}
		proved := false
		for _, p := range proofs {
			if err := s.cfg.KEKs.OpenCheck(p); err != nil {
				return err
			}
			proved = proved || p.KEK == s.cfg.KEKs.Current()
		}
		if proved {
			return nil
		}
		proof, err := s.cfg.KEKs.SealCheck()
		if err != nil {
			return err
		}
		// Another process may be first, with another key of this id: so look again.
		if _, err := exec(ctx, q, addCheck, proof.KEK, proof.Box); err != nil {
			return err
		}
	}
	return nil
}

// Reseal implements store.Keys. All nodes must have the new key as their current one before
// the old one is taken away.
func (s *Store) Reseal(ctx context.Context, max int) (int, error) {
	if err := s.proveKEKs(ctx, s.pool); err != nil {
		return 0, err
	}
	current := s.cfg.KEKs.Current()
	credentials, err := rows(ctx, s.pool, scanCredential, olderCredentials, current, max)
	if err != nil {
		return 0, err
	}
	keys, err := rows(ctx, s.pool, scanKey, allKeys)
	if err != nil {
		return 0, err
	}
	batch, err := s.resealing(credentials, keys, max)
	if err != nil {
		return 0, err
	}
	n := batch.Len()
	if n == 0 {
		_, err := exec(ctx, s.pool, deleteChecks, current)
		return 0, err
	}
	return n, s.inTx(ctx, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
}

// resealing are the updates that move rows to the current key.
func (s *Store) resealing(credentials []sealedRow, keys []sealedKey, max int) (*pgx.Batch, error) {
	batch := &pgx.Batch{}
	for _, row := range credentials {
		r, err := s.openRow(row)
		if err != nil {
			return nil, err
		}
		sealed, err := s.cfg.KEKs.SealRecord(r)
		if err != nil {
			return nil, err
		}
		batch.Queue(string(resealCredential), r.Tid, sealed.KEK, sealed.Box)
	}
	for _, row := range keys {
		if row.sealed.KEK == s.cfg.KEKs.Current() || batch.Len() >= max {
			continue
		}
		k, err := s.openKey(row)
		if err != nil {
			return nil, err
		}
		sealed, err := s.cfg.KEKs.SealKey(k)
		if err != nil {
			return nil, err
		}
		batch.Queue(string(resealKey), k.Kind, k.ID, sealed.KEK, sealed.Box)
	}
	return batch, nil
}
