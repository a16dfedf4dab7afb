package keyvalue

import (
	"context"
	"fmt"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// AddIdentity implements store.Loans.
func (s *Store) AddIdentity(ctx context.Context, id store.LentIdentity) error {
	if err := named("identity", string(id.IMPI)); err != nil {
		return err
	}
	id.Holder, id.Until = "", time.Time{}
	return s.update(ctx, func(tx Tx) error { return add(tx, identities, string(id.IMPI), id) })
}

// DeleteIdentity implements store.Loans.
func (s *Store) DeleteIdentity(ctx context.Context, impi turncred.IMPI) error {
	return s.update(ctx, func(tx Tx) error {
		id, err := get[store.LentIdentity](tx, identities, string(impi))
		if err != nil {
			return err
		}
		if s.now().Before(id.Until) {
			return fmt.Errorf("identity %s: %w: it is lent until %v", impi, store.ErrConflict, id.Until)
		}
		return tx.Delete(identities, string(impi))
	})
}

// Acquire implements store.Loans.
func (s *Store) Acquire(ctx context.Context, class, holder string, until time.Time) (loan store.LentIdentity, err error) {
	if err := named("holder of a loan", holder); err != nil {
		return store.LentIdentity{}, err
	}
	err = s.update(ctx, func(tx Tx) error {
		now, free := s.now(), store.LentIdentity{}
		var bad error
		tx.Each(identities, "", func(key string, b []byte) bool {
			var id store.LentIdentity
			if id, bad = decode[store.LentIdentity](identities, key, b); bad != nil {
				return false
			}
			if id.Class == class && !now.Before(id.Until) && (free.IMPI == "" || id.Until.Before(free.Until)) {
				free = id
			}
			return true
		})
		if bad != nil {
			return bad
		}
		if free.IMPI == "" {
			return fmt.Errorf("identities of class %q: %w", class, store.ErrExhausted)
		}
		free.Holder, free.Until = holder, until.UTC()
		loan = free
		return put(tx, identities, string(free.IMPI), free)
	})
	if err != nil {
		return store.LentIdentity{}, err
	}
	return loan, nil
}

// Renew implements store.Loans.
func (s *Store) Renew(ctx context.Context, impi turncred.IMPI, holder string, until time.Time) error {
	return s.changeLoan(ctx, impi, holder, func(id *store.LentIdentity) { id.Until = until.UTC() })
}

// Release implements store.Loans.
func (s *Store) Release(ctx context.Context, impi turncred.IMPI, holder string) error {
	return s.changeLoan(ctx, impi, holder, func(id *store.LentIdentity) { id.Holder, id.Until = "", s.now().UTC() })
}

func (s *Store) changeLoan(ctx context.Context, impi turncred.IMPI, holder string, change func(*store.LentIdentity)) error {
	return s.update(ctx, func(tx Tx) error {
		id, err := get[store.LentIdentity](tx, identities, string(impi))
		if err != nil {
			return err
		}
		if id.Holder != holder || !s.now().Before(id.Until) {
			return fmt.Errorf("loan of %s to %q: %w", impi, holder, store.ErrNotFound)
		}
		change(&id)
		return put(tx, identities, string(impi), id)
	})
}

// Identities implements store.Loans.
func (s *Store) Identities(ctx context.Context, class string) ([]store.LentIdentity, error) {
	all, err := list[store.LentIdentity](s, ctx, identities)
	some := all[:0]
	for _, id := range all {
		if class == "" || id.Class == class {
			some = append(some, id)
		}
	}
	return some, err
}
