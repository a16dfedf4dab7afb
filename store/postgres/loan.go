package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
	"epcscf/turncred"
)

func scanIdentity(row pgx.Row) (id store.LentIdentity, err error) {
	err = row.Scan(&id.IMPI, &id.IMPUs, &id.Class, &id.Holder, &id.Until)
	return id, err
}

// AddIdentity implements store.Loans.
func (s *Store) AddIdentity(ctx context.Context, id store.LentIdentity) error {
	if err := named("identity", string(id.IMPI)); err != nil {
		return err
	}
	return must(ctx, s.pool, conflict("identity", string(id.IMPI)), addIdentity, id.IMPI, list(id.IMPUs), id.Class)
}

// DeleteIdentity implements store.Loans.
func (s *Store) DeleteIdentity(ctx context.Context, impi turncred.IMPI) error {
	n, err := exec(ctx, s.pool, deleteIdentity, impi, s.cfg.Now())
	if err != nil || n == 1 {
		return err
	}
	id, err := one(ctx, s.pool, scanIdentity, notFound("identity", string(impi)), oneIdentity, impi)
	if err == nil {
		err = fmt.Errorf("identity %s: %w: it is lent until %v", impi, store.ErrConflict, id.Until)
	}
	return err
}

// Acquire implements store.Loans.
func (s *Store) Acquire(ctx context.Context, class, holder string, until time.Time) (store.LentIdentity, error) {
	if err := named("holder of a loan", holder); err != nil {
		return store.LentIdentity{}, err
	}
	return one(ctx, s.pool, scanIdentity, fmt.Errorf("identities of class %q: %w", class, store.ErrExhausted),
		acquire, class, holder, until, s.cfg.Now())
}

// Renew implements store.Loans.
func (s *Store) Renew(ctx context.Context, impi turncred.IMPI, holder string, until time.Time) error {
	return s.changeLoan(ctx, impi, holder, holder, until)
}

// Release implements store.Loans.
func (s *Store) Release(ctx context.Context, impi turncred.IMPI, holder string) error {
	return s.changeLoan(ctx, impi, holder, "", s.cfg.Now())
}

func (s *Store) changeLoan(ctx context.Context, impi turncred.IMPI, holder, next string, until time.Time) error {
	return must(ctx, s.pool, fmt.Errorf("loan of %s to %q: %w", impi, holder, store.ErrNotFound),
		changeLoan, impi, holder, next, until, s.cfg.Now())
}

// Identities implements store.Loans.
func (s *Store) Identities(ctx context.Context, class string) ([]store.LentIdentity, error) {
	if class == "" {
		return rows(ctx, s.pool, scanIdentity, allIdentities)
	}
	return rows(ctx, s.pool, scanIdentity, classIdentities, class)
}
