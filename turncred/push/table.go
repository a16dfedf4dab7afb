package push

import (
	"context"
	"fmt"
	"sync"
	"time"

	"epcscf/turncred"
)

// pruneEvery is how many writes pass at least between two sweeps of expired records. A
// sweep comes after as many writes as the last one left records, so its cost per write
// stays constant.
const pruneEvery = 1024

// Table is a relay's credentials in memory and, where it has a log, on disk. A record is
// dropped after its Texp: a live allocation keeps its own key. Safe for concurrent use.
// Make one with NewTable or OpenTable.
type Table struct {
	realm turncred.Realm
	now   func() time.Time
	log   CredentialLog // nil: in memory only

	mu         sync.RWMutex // guards the fields below
	records    map[turncred.Tid]entry
	untilSweep int // writes
}

// entry is a record with what is known of it.
type entry struct {
	Record
	kept  bool  // where there is a log, it has it
	owner *book // of the node that wrote it; nil: this process, or the log
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
	return &Table{realm: realm, now: now, records: map[turncred.Tid]entry{}, untilSweep: pruneEvery}
}

// OpenTable returns a table with what log has, which from then on gets every record before
// Put returns; now may be nil for time.Now.
func OpenTable(ctx context.Context, realm turncred.Realm, log CredentialLog, now func() time.Time) (*Table, error) {
	t := NewTable(realm, now)
	err := log.Load(ctx, func(r Record) error {
		if t.now().Before(r.Texp) {
			t.records[r.Tid] = entry{Record: r, kept: true}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load credentials: %w", err)
	}
	t.log, t.untilSweep = log, max(pruneEvery, len(t.records))
	return t, nil
}

// Immediate implements turncred.Immediate: without a log there is nothing to wait for.
func (t *Table) Immediate() bool { return t.log == nil }

// Put implements Sink.
func (t *Table) Put(ctx context.Context, r Record) error {
	return t.put(ctx, nil, []Record{r})[0]
}

// put writes rs on behalf of the node whose book owner is. The errors are in the order of rs.
func (t *Table) put(ctx context.Context, owner *book, rs []Record) []error {
	errs := make([]error, len(rs))
	if err := ctx.Err(); err != nil {
		return fill(errs, err)
	}
	var fresh []Record
	var at []int // of fresh in rs
	t.mu.Lock()
	for i, r := range rs {
		old, ok := t.records[r.Tid]
		if ok && !old.equal(r) {
			errs[i] = ErrConflict
			continue
		}
		t.ownLocked(r, old, owner)
		if !ok || !old.kept && t.log != nil {
			fresh, at = append(fresh, r), append(at, i)
		}
	}
	if t.untilSweep -= len(fresh); t.untilSweep <= 0 {
		t.pruneLocked(t.now())
		t.untilSweep = max(pruneEvery, len(t.records))
	}
	t.mu.Unlock()
	if t.log == nil || len(fresh) == 0 {
		return errs
	}
	// A record authenticates before it is on disk, but nobody has its password until Put
	// has returned.
	if err := t.log.Put(ctx, fresh); err != nil {
		for _, i := range at {
			errs[i] = fmt.Errorf("keep credentials: %w", err)
		}
		return errs
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range fresh {
		if e, ok := t.records[r.Tid]; ok {
			e.kept = true
			t.records[r.Tid] = e
		}
	}
	return errs
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// ownLocked writes r in, with the book that it counts in.
func (t *Table) ownLocked(r Record, old entry, owner *book) {
	if old.Tid == "" {
		old.Record = r
	}
	if owner != nil && owner != old.owner {
		if old.owner != nil {
			old.owner.credentials.remove(r.Texp, r.hash())
		}
		owner.credentials.add(r.Texp, r.hash())
		old.owner = owner
	}
	t.records[r.Tid] = old
}

func (t *Table) pruneLocked(now time.Time) {
	for tid, r := range t.records {
		if !now.Before(r.Texp) {
			delete(t.records, tid)
		}
	}
}

// sum returns what of a book is good beyond the minute m.
func (t *Table) sum(b *book, m int64) Sum {
	t.mu.Lock()
	defer t.mu.Unlock()
	return b.credentials.after(m, forgotten(t.now()))
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
