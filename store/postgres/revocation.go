package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
	"epcscf/turncred"
)

func scanRevocation(row pgx.Row) (r turncred.Revocation, err error) {
	var subject, issued int64
	var binding *int32
	err = row.Scan(&r.Tid, &r.KeyID, &subject, &binding, &issued, &r.KeepLive, &r.Until)
	r.Subject, r.IssuedUntil = turncred.Subject(subject), turncred.IssueTime(issued)
	if binding != nil {
		b := turncred.Binding(*binding)
		r.Binding = &b
	}
	return r, err
}

// AddRevocation implements store.Revocations.
func (s *Store) AddRevocation(ctx context.Context, r turncred.Revocation) error {
	id, err := store.RevocationID(r)
	if err != nil {
		return err
	}
	var binding *int32
	if r.Binding != nil {
		b := int32(*r.Binding)
		binding = &b
	}
	return s.changing(ctx, store.Change{Kind: store.ChangedRevocation, ID: id}, func(tx pgx.Tx) error {
		_, err := exec(ctx, tx, addRevocation, id, r.Tid, r.KeyID, int64(r.Subject), binding, int64(r.IssuedUntil), r.KeepLive, r.Until)
		return err
	})
}

// Revocations implements store.Revocations.
func (s *Store) Revocations(ctx context.Context) ([]turncred.Revocation, error) {
	return rows(ctx, s.pool, scanRevocation, liveRevocations, s.cfg.Now())
}
