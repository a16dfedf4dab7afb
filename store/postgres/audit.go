package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
)

// Record implements store.Audit.
func (s *Store) Record(ctx context.Context, e store.Event) error {
	if e.At.IsZero() {
		e.At = s.cfg.Now()
	}
	_, err := exec(ctx, s.pool, addEvent, e.At, e.Actor, e.Action, e.Object, e.Detail)
	return err
}

// numbered is an event and its place.
type numbered struct {
	store.Event
	seq int64
}

func scanEvent(row pgx.Row) (e numbered, err error) {
	err = row.Scan(&e.seq, &e.At, &e.Actor, &e.Action, &e.Object, &e.Detail)
	return e, err
}

// endOfTime is later than anything that happened.
var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// Events implements store.Audit.
func (s *Store) Events(ctx context.Context, from, before time.Time, f func(store.Event) error) error {
	if before.IsZero() {
		before = endOfTime
	}
	seq := int64(-1)
	for {
		es, err := rows(ctx, s.pool, scanEvent, someEvents, from, seq, before, page)
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := f(e.Event); err != nil {
				return err
			}
		}
		if len(es) < page {
			return nil
		}
		from, seq = es[len(es)-1].At, es[len(es)-1].seq
	}
}
