package postgres

import (
	"context"
	"time"

	"epcscf/store"
)

// pruneBatch is how many rows one statement deletes at most: it holds their locks meanwhile.
const pruneBatch = 2000

// Prune implements store.Store. Nodes may prune at the same time.
func (s *Store) Prune(ctx context.Context) (int, error) {
	now := s.cfg.Now()
	pruned := 0
	for _, p := range []struct {
		st     statement
		before time.Time
	}{
		{pruneCredentials, now}, {pruneRevocations, now}, {pruneGrants, now.Add(-store.UsedGrantKept)}, {pruneFamilies, now},
		{pruneAudit, now.Add(-store.AuditKept)},
	} {
		n, err := s.pruneAll(ctx, p.st, p.before)
		pruned += n
		if err != nil {
			return pruned, err
		}
	}
	// Changes have the database's time.
	at, err := s.databaseTime(ctx)
	if err != nil {
		return pruned, err
	}
	n, err := s.pruneAll(ctx, pruneChanges, at.Add(-store.ChangesKept-overlap))
	return pruned + n, err
}

func (s *Store) pruneAll(ctx context.Context, st statement, before time.Time) (pruned int, err error) {
	for {
		n, err := exec(ctx, s.pool, st, before, pruneBatch)
		pruned += int(n)
		if err != nil || n < pruneBatch {
			return pruned, err
		}
	}
}
