package push

import (
	"sync"
	"time"

	"epcscf/turncred"
)

// ledger is what an edge has written to one relay, or tried to: what the relay should have.
// It is what a snapshot sends. Safe for concurrent use.
type ledger struct {
	mu          sync.Mutex // guards the fields below
	records     map[turncred.Tid]Record
	credentials tally
	revocations revocationSet
	untilSweep  int // writes
}

func newLedger() *ledger {
	return &ledger{records: map[turncred.Tid]Record{}, credentials: tally{}, revocations: newRevocationSet(), untilSweep: pruneEvery}
}

// add enters what is about to be sent.
func (l *ledger) add(items []Item, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, it := range items {
		if it.Revocation != nil {
			l.revocations.add(normal(*it.Revocation), now)
			continue
		}
		r := *it.Record
		if _, ok := l.records[r.Tid]; ok {
			continue
		}
		l.records[r.Tid] = r
		l.credentials.add(r.Texp, r.hash())
		if l.untilSweep--; l.untilSweep <= 0 {
			l.sweepLocked(now)
		}
	}
}

func (l *ledger) sweepLocked(now time.Time) {
	for tid, r := range l.records {
		if !now.Before(r.Texp) {
			delete(l.records, tid)
		}
	}
	l.untilSweep = max(pruneEvery, len(l.records))
}

// remove strikes what the relay has refused for good.
func (l *ledger) remove(tid turncred.Tid) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.records[tid]; ok {
		l.credentials.remove(r.Texp, r.hash())
		delete(l.records, tid)
	}
}

// sums returns what is good after a time, as the relay sums it up.
func (l *ledger) sums(after, now time.Time) (credentials, revocations Sum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.credentials.after(minute(after), forgotten(now)), l.revocations.tally.after(minute(after), forgotten(now))
}

// all returns what is good at now.
func (l *ledger) all(now time.Time) (rs []Record, vs []turncred.Revocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if now.Before(r.Texp) {
			rs = append(rs, r)
		}
	}
	for _, v := range l.revocations.all {
		if now.Before(v.Until) {
			vs = append(vs, v)
		}
	}
	return rs, vs
}
