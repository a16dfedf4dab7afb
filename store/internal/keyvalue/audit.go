package keyvalue

import (
	"context"
	"fmt"
	"time"

	"epcscf/store"
)

// auditKey sorts by time, then by the order of writing.
func auditKey(at time.Time, n uint64) string {
	return fmt.Sprintf("%020d-%016x", at.UnixMicro(), n)
}

// Record implements store.Audit.
func (s *Store) Record(ctx context.Context, e store.Event) error {
	if e.At.IsZero() {
		e.At = s.now()
	}
	e.At = e.At.UTC().Truncate(time.Microsecond)
	return s.update(ctx, func(tx Tx) error {
		n, err := tx.Next(audit)
		if err != nil {
			return err
		}
		return put(tx, audit, auditKey(e.At, n), e)
	})
}

// Events implements store.Audit.
func (s *Store) Events(ctx context.Context, from, before time.Time, f func(store.Event) error) error {
	start := ""
	if !from.IsZero() {
		start = auditKey(from, 0)
	}
	return s.view(ctx, func(tx Tx) error {
		var bad error
		tx.Each(audit, start, func(key string, b []byte) bool {
			var e store.Event
			if e, bad = decode[store.Event](audit, key, b); bad != nil {
				return false
			}
			if !before.IsZero() && !e.At.Before(before) {
				return false
			}
			bad = f(e)
			return bad == nil
		})
		return bad
	})
}
