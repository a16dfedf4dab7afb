package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
)

// AddGrant implements store.Grants.
func (s *Store) AddGrant(ctx context.Context, g store.Grant) error {
	if err := store.CheckGrant(g); err != nil {
		return err
	}
	// A family that is revoked right after this look takes the grant with it: ConsumeGrant
	// looks again.
	revoked, err := s.FamilyRevoked(ctx, g.Family)
	if err != nil {
		return err
	}
	if revoked {
		return fmt.Errorf("%s grant of family %q: %w", g.Kind, g.Family, store.ErrRevoked)
	}
	return must(ctx, s.pool, conflict("grant of client", g.Client), addGrant, g.Kind, g.Hash[:], g.Family, g.Client, g.User, g.Expires, bytesOf(g.Data))
}

// ConsumeGrant implements store.Grants.
func (s *Store) ConsumeGrant(ctx context.Context, kind store.GrantKind, h store.GrantHash) (store.Grant, error) {
	g := store.Grant{Kind: kind, Hash: h}
	now := s.cfg.Now()
	err := s.pool.QueryRow(ctx, string(consumeGrant), kind, h[:], now).Scan(&g.Family, &g.Client, &g.User, &g.Expires, &g.Data)
	if !errors.Is(err, pgx.ErrNoRows) {
		return g, err
	}
	// It could not be used: say why.
	var used *time.Time
	err = s.pool.QueryRow(ctx, string(oneGrant), kind, h[:]).Scan(&g.Family, &g.Client, &g.User, &g.Expires, &g.Data, &used)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Grant{}, fmt.Errorf("%s grant: %w", kind, store.ErrNotFound)
	}
	if err != nil {
		return store.Grant{}, err
	}
	revoked, err := s.FamilyRevoked(ctx, g.Family)
	if err != nil {
		return store.Grant{}, err
	}
	if err := store.GrantError(g, revoked, used != nil, now); err != nil {
		return g, err
	}
	return g, fmt.Errorf("%s grant of client %s: %w", kind, g.Client, store.ErrConflict) // it came between
}

// RevokeFamily implements store.Grants.
func (s *Store) RevokeFamily(ctx context.Context, family string, until time.Time) error {
	if err := named("family", family); err != nil {
		return err
	}
	_, err := exec(ctx, s.pool, revokeFamily, family, until)
	return err
}

// FamilyRevoked implements store.Grants.
func (s *Store) FamilyRevoked(ctx context.Context, family string) (revoked bool, err error) {
	err = s.pool.QueryRow(ctx, string(familyRevoked), family).Scan(&revoked)
	return revoked, err
}
