package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// sealedRow is a row of credentials.
type sealedRow struct {
	push.Record // without its keys
	sealed      store.Sealed
}

func scanCredential(row pgx.Row) (r sealedRow, err error) {
	var subject, issued int64
	var binding int32
	err = row.Scan(&r.Tid, &r.Username, &r.Realm, &r.Texp, &subject, &issued, &binding, &r.sealed.KEK, &r.sealed.Box)
	r.Identity = turncred.Identity{Subject: turncred.Subject(subject), Issued: turncred.IssueTime(issued), Binding: turncred.Binding(binding)}
	return r, err
}

func (s *Store) openRow(r sealedRow) (push.Record, error) {
	err := s.cfg.KEKs.OpenRecord(&r.Record, r.sealed)
	return r.Record, err
}

const (
	// putWriters is how many inserts may be on their way at the same time.
	putWriters = 4
	// maxPuts is how many calls of PutCredentials share an insert at most.
	maxPuts = 128
	// putTimeout bounds an insert, which no single caller's context does.
	putTimeout = 5 * time.Second
)

// PutCredentials implements store.Credentials. Calls that come while others are on their way
// share an insert: at 2,000 a second that costs the database a fraction.
func (s *Store) PutCredentials(ctx context.Context, rs []push.Record) error {
	for _, r := range rs {
		if err := store.CheckCredential(r); err != nil {
			return err
		}
	}
	if len(rs) == 0 {
		return ctx.Err()
	}
	return s.puts.Do(ctx, rs)
}

// commitPuts writes the records of several calls.
func (s *Store) commitPuts(calls [][]push.Record) []error {
	ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
	defer cancel()
	errs := make([]error, len(calls))
	err := s.put(ctx, slices.Concat(calls...))
	for i, rs := range calls {
		switch {
		case err == nil || len(calls) == 1:
			errs[i] = err
		case errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrKEK):
			errs[i] = s.put(ctx, rs) // one of them is to blame, and the others are not
		default:
			errs[i] = err
		}
	}
	return errs
}

// put writes all of rs or none.
func (s *Store) put(ctx context.Context, rs []push.Record) error {
	// In one order everywhere, so that inserts do not deadlock.
	rs = slices.Clone(rs)
	slices.SortFunc(rs, func(a, b push.Record) int { return strings.Compare(string(a.Tid), string(b.Tid)) })
	for i := 1; i < len(rs); i++ {
		if rs[i-1].Tid == rs[i].Tid && !store.SameRecord(rs[i-1], rs[i]) {
			return store.ConflictError(rs[i].Tid)
		}
	}
	rs = slices.CompactFunc(rs, func(a, b push.Record) bool { return a.Tid == b.Tid })
	columns, err := s.columns(rs)
	if err != nil {
		return err
	}
	insert := func(q querier) error {
		n, err := exec(ctx, q, putCredentials, columns...)
		if err != nil || n == int64(len(rs)) {
			return err
		}
		return s.compare(ctx, q, rs)
	}
	if len(rs) == 1 { // no transaction is needed: of a row that was there it writes nothing
		return insert(s.pool)
	}
	return s.inTx(ctx, func(tx pgx.Tx) error { return insert(tx) })
}

func wholeSeconds(t time.Time) time.Time { return time.Unix(t.Unix(), 0) }

// compare finds a record that is there with another body.
func (s *Store) compare(ctx context.Context, q querier, rs []push.Record) error {
	tids := make([]string, len(rs))
	for i, r := range rs {
		tids[i] = string(r.Tid)
	}
	there, err := rows(ctx, q, scanCredential, theseCredentials, tids)
	if err != nil {
		return err
	}
	byTid := make(map[turncred.Tid]push.Record, len(there))
	for _, row := range there {
		r, err := s.openRow(row)
		if err != nil {
			return err
		}
		byTid[r.Tid] = r
	}
	for _, r := range rs {
		if !store.SameRecord(byTid[r.Tid], r) {
			return store.ConflictError(r.Tid)
		}
	}
	return nil
}

// columns are the arguments of putCredentials.
func (s *Store) columns(rs []push.Record) ([]any, error) {
	n := len(rs)
	tids, names, realms, keks := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	texps, subjects, issued := make([]time.Time, n), make([]int64, n), make([]int64, n)
	bindings, boxes := make([]int32, n), make([][]byte, n)
	for i, r := range rs {
		sealed, err := s.cfg.KEKs.SealRecord(r)
		if err != nil {
			return nil, err
		}
		tids[i], names[i], realms[i], texps[i] = string(r.Tid), r.Username, string(r.Realm), wholeSeconds(r.Texp)
		subjects[i], issued[i], bindings[i] = int64(r.Identity.Subject), int64(r.Identity.Issued), int32(r.Identity.Binding)
		keks[i], boxes[i] = string(sealed.KEK), sealed.Box
	}
	return []any{tids, names, realms, texps, subjects, issued, bindings, keks, boxes}, nil
}

// Credential implements store.Credentials.
func (s *Store) Credential(ctx context.Context, tid turncred.Tid) (push.Record, error) {
	row, err := one(ctx, s.pool, scanCredential, notFound("credential", string(tid)), theseCredentials, []string{string(tid)})
	if err != nil {
		return push.Record{}, err
	}
	return s.openRow(row)
}

// page is how many rows are read at a time: a long cursor would hold back the vacuum.
const page = 5000

// EachCredential implements store.Credentials.
func (s *Store) EachCredential(ctx context.Context, f func(push.Record) error) error {
	// Expired is what Texp says to the second, so the first is one of the next.
	texp, tid := wholeSeconds(s.cfg.Now()).Add(time.Second), turncred.Tid("")
	for {
		rs, err := rows(ctx, s.pool, scanCredential, liveCredentials, texp, tid, page)
		if err != nil {
			return err
		}
		for _, row := range rs {
			r, err := s.openRow(row)
			if err != nil {
				return err
			}
			if err := f(r); err != nil {
				return err
			}
		}
		if len(rs) < page {
			return nil
		}
		texp, tid = rs[len(rs)-1].Texp, rs[len(rs)-1].Tid
	}
}
