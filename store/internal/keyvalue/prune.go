package keyvalue

import (
	"context"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// pruneBatch is how many rows one transaction deletes at most: others wait meanwhile.
const pruneBatch = 1000

// Prune implements store.Store.
func (s *Store) Prune(ctx context.Context) (int, error) {
	now := s.now()
	dead := map[string]func(key string, b []byte) bool{
		credentials: func(key string, b []byte) bool {
			r, _, err := store.SplitRecord(turncred.Tid(key), b)
			return err == nil && !now.Before(r.Texp)
		},
		revocations: rowIs(func(r turncred.Revocation) bool { return !now.Before(r.Until) }),
		grants:      rowIs(func(g grantRow) bool { return !now.Before(g.Expires.Add(store.UsedGrantKept)) }),
		families:    rowIs(func(until time.Time) bool { return !now.Before(until) }),
		audit:       rowIs(func(e store.Event) bool { return now.Sub(e.At) >= store.AuditKept }),
		journal:     rowIs(func(e entry) bool { return !now.Before(e.Revocation.Until) }),
	}
	pruned := 0
	for table, isDead := range dead {
		n, err := s.pruneTable(ctx, table, isDead)
		pruned += n
		if err != nil {
			return pruned, err
		}
	}
	return pruned, nil
}

// rowIs makes a test of rows of a test of what they hold. A row that cannot be read stays.
func rowIs[T any](is func(T) bool) func(string, []byte) bool {
	return func(key string, b []byte) bool {
		row, err := decode[T]("", key, b)
		return err == nil && is(row)
	}
}

func (s *Store) pruneTable(ctx context.Context, table string, isDead func(string, []byte) bool) (int, error) {
	pruned, from := 0, ""
	for {
		var keys []string
		if err := s.view(ctx, func(tx Tx) error {
			tx.Each(table, from, func(key string, b []byte) bool {
				if isDead(key, b) {
					keys = append(keys, key)
				}
				return len(keys) < pruneBatch
			})
			return nil
		}); err != nil || len(keys) == 0 {
			return pruned, err
		}
		if err := s.update(ctx, func(tx Tx) error {
			for _, key := range keys {
				// A revocation may have been prolonged since it was read.
				if b := tx.Get(table, key); b != nil && isDead(key, b) {
					if err := tx.Delete(table, key); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return pruned, err
		}
		pruned += len(keys)
		from = keys[len(keys)-1]
	}
}
