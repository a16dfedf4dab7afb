package push

import (
	"context"
	"sync"
	"time"

	"epcscf/turncred"
)

// pruneEvery is how many writes pass at least between two sweeps of expired records. A
// sweep comes after as many writes as the last one left records, so its cost per write
// stays constant.
const pruneEvery = 1024

// Table is a relay's credentials in memory. A record is dropped after its Texp: a live
// allocation keeps its own key. Safe for concurrent use. Make one with NewTable.
type Table struct {
	realm turncred.Realm
	now   func() time.Time

	mu         sync.RWMutex // guards the fields below
	records    map[turncred.Tid]Record
	untilSweep int // writes
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
	return &Table{realm: realm, now: now, records: map[turncred.Tid]Record{}, untilSweep: pruneEvery}
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
	if t.untilSweep--; t.untilSweep <= 0 {
		t.pruneLocked(t.now())
		t.untilSweep = max(pruneEvery, len(t.records))
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
