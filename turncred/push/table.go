package push

import (
	"context"
	"sync"
	"time"

	"epcscf/turncred"
)

// pruneEvery is how many writes pass between two sweeps of expired records: a sweep
// reads the whole table, so its cost per write stays constant.
const pruneEvery = 1024

// Table is a relay's credentials in memory. A record is dropped after its Texp: a live
// allocation keeps its own key. Safe for concurrent use. Make one with NewTable.
type Table struct {
	realm turncred.Realm
	now   func() time.Time

	mu      sync.RWMutex // guards records and writes
	records map[turncred.Tid]Record
	writes  int
}

var (
	_ Sink                   = (*Table)(nil)
	_ turncred.Authenticator = (*Table)(nil)
)

// NewTable returns an empty table for a realm; now may be nil for time.Now.
func NewTable(realm turncred.Realm, now func() time.Time) *Table {
	if now == nil {
		now = time.Now
	}
	return &Table{realm: realm, now: now, records: map[turncred.Tid]Record{}}
}

// Put implements Sink.
func (t *Table) Put(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.records[r.Tid]; ok {
		if old.equal(r) {
			return nil
		}
		return ErrConflict
	}
	t.records[r.Tid] = r
	if t.writes++; t.writes%max(pruneEvery, len(t.records)) == 0 {
		t.pruneLocked(t.now())
	}
	return nil
}

func (t *Table) pruneLocked(now time.Time) {
	for tid, r := range t.records {
		if !now.Before(r.Texp) {
			delete(t.records, tid)
		}
	}
}

// Len returns the number of records, expired ones that no sweep met yet included.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.records)
}

// Authenticate implements turncred.Authenticator.
func (t *Table) Authenticate(username string, _ time.Time) (turncred.Proof, error) {
	tid, _, err := turncred.ParseUsername(username)
	if err != nil {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	t.mu.RLock()
	r, ok := t.records[tid]
	t.mu.RUnlock()
	if !ok || r.Username != username || r.Realm != t.realm {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	return turncred.Proof{
		Tid: tid, Texp: r.Texp, Key: r.Key,
		Identify: func() (turncred.Identity, error) { return r.Identity, nil },
	}, nil
}
