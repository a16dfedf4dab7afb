package keyvalue

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"epcscf/store"
)

// grantRow is a grant and when it was used.
type grantRow struct {
	store.Grant
	Used time.Time // zero: not yet
}

func rowOfGrant(kind store.GrantKind, h store.GrantHash) string {
	return string(kind) + "/" + hex.EncodeToString(h[:])
}

// AddGrant implements store.Grants.
func (s *Store) AddGrant(ctx context.Context, g store.Grant) error {
	if err := store.CheckGrant(g); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error {
		if tx.Get(families, g.Family) != nil {
			return fmt.Errorf("%s grant of family %q: %w", g.Kind, g.Family, store.ErrRevoked)
		}
		return add(tx, grants, rowOfGrant(g.Kind, g.Hash), grantRow{Grant: g})
	})
}

// ConsumeGrant implements store.Grants.
func (s *Store) ConsumeGrant(ctx context.Context, kind store.GrantKind, h store.GrantHash) (g store.Grant, err error) {
	name := rowOfGrant(kind, h)
	err = s.update(ctx, func(tx Tx) error {
		row, err := get[grantRow](tx, grants, name)
		if err != nil {
			return fmt.Errorf("%s grant: %w", kind, store.ErrNotFound)
		}
		g = row.Grant
		if err := store.GrantError(g, tx.Get(families, g.Family) != nil, !row.Used.IsZero(), s.now()); err != nil {
			return err
		}
		row.Used = s.now().UTC()
		return put(tx, grants, name, row)
	})
	return g, err
}

// RevokeFamily implements store.Grants.
func (s *Store) RevokeFamily(ctx context.Context, family string, until time.Time) error {
	if err := named("family", family); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx) error {
		if old, err := get[time.Time](tx, families, family); err == nil && !old.Before(until) {
			return nil
		}
		return put(tx, families, family, until.UTC())
	})
}

// FamilyRevoked implements store.Grants.
func (s *Store) FamilyRevoked(ctx context.Context, family string) (revoked bool, err error) {
	err = s.view(ctx, func(tx Tx) error {
		revoked = tx.Get(families, family) != nil
		return nil
	})
	return revoked, err
}
