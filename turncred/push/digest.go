package push

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"epcscf/turncred"
)

// Sum tells one set from another, whatever the order: how many members, and the sum of
// their hashes. Peers that may write at all make them, so nobody need be kept from
// finding two sets of one sum.
type Sum struct {
	Count uint64
	Hash  uint64
}

func (s Sum) plus(o Sum) Sum  { return Sum{s.Count + o.Count, s.Hash + o.Hash} }
func (s Sum) minus(o Sum) Sum { return Sum{s.Count - o.Count, s.Hash - o.Hash} }

// sumBody is a Sum on the wire.
type sumBody struct {
	Count uint64 `json:"count"`
	Sum   string `json:"sum"` // 16 hexadecimal digits
}

func (s Sum) body() sumBody { return sumBody{s.Count, fmt.Sprintf("%016x", s.Hash)} }

func (b sumBody) sum() (Sum, error) {
	h, err := strconv.ParseUint(b.Sum, 16, 64)
	if err != nil || len(b.Sum) != 16 {
		return Sum{}, fmt.Errorf("sum %.20q: want 16 hexadecimal digits", b.Sum)
	}
	return Sum{b.Count, h}, nil
}

// period is the grain of expiry in a tally.
const period = time.Minute

// tally sums what is good until when, by the minute, so that two sides whose clocks
// differ, or of which one has swept, compare the same: what is good beyond a minute that
// both have yet to reach.
type tally map[int64]Sum

func minute(t time.Time) int64 { return t.Unix() / int64(period/time.Second) }

// forgotten is the minute before which a tally need not reach: no clock is that far ahead.
func forgotten(now time.Time) int64 { return minute(now.Add(-time.Hour)) }

func (t tally) add(until time.Time, hash uint64) {
	t[minute(until)] = t[minute(until)].plus(Sum{1, hash})
}

func (t tally) remove(until time.Time, hash uint64) {
	m := minute(until)
	if t[m] = t[m].minus(Sum{1, hash}); t[m].Count == 0 {
		delete(t, m)
	}
}

// after sums what is good beyond the minute m, and forgets the minutes before past.
func (t tally) after(m, past int64) (s Sum) {
	for k, v := range t {
		switch {
		case k > m:
			s = s.plus(v)
		case k < past:
			delete(t, k)
		}
	}
	return s
}

// hash tells a record from another.
func (r Record) hash() uint64 {
	b := make([]byte, 0, 256)
	b = appendText(b, string(r.Tid))
	b = appendText(b, r.Username)
	b = appendText(b, string(r.Realm))
	b = append(append(b, r.Key.MD5.Reveal()...), r.Key.SHA256.Reveal()...)
	for _, n := range []uint64{uint64(r.Texp.Unix()), uint64(r.Identity.Subject), uint64(r.Identity.Issued), uint64(r.Identity.Binding)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return hash64(b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func hash64(b []byte) uint64 {
	h := sha256.Sum256(b)
	return binary.BigEndian.Uint64(h[:8])
}

// scope is what a revocation takes back, without until when: those of one scope merge.
type scope struct {
	tid        turncred.Tid
	kid        turncred.KeyID
	subject    turncred.Subject
	binding    turncred.Binding
	oneBinding bool
	keepLive   bool
}

func scopeOf(r turncred.Revocation) scope {
	s := scope{tid: r.Tid, keepLive: r.KeepLive}
	if r.Tid != "" {
		return s
	}
	s.kid = r.KeyID
	if r.KeyID != "" {
		return s
	}
	s.subject = r.Subject
	if r.Binding != nil {
		s.binding, s.oneBinding = *r.Binding, true
	}
	return s
}

func hashRevocation(r turncred.Revocation) uint64 {
	s := scopeOf(r)
	b := appendText(nil, string(s.tid))
	b = appendText(b, string(s.kid))
	b = fmt.Appendf(b, "%d %d %t %t %d %d", s.subject, s.binding, s.oneBinding, s.keepLive, r.IssuedUntil, r.Until.Unix())
	return hash64(b)
}

// normal gives a revocation the form that it has on the wire: whole seconds, and no field
// that its scope ignores.
func normal(r turncred.Revocation) turncred.Revocation {
	if up := r.Until.Truncate(time.Second); up.Before(r.Until) {
		r.Until = up.Add(time.Second)
	}
	r.Until = time.Unix(r.Until.Unix(), 0)
	switch {
	case r.Tid != "":
		return turncred.Revocation{Tid: r.Tid, KeepLive: r.KeepLive, Until: r.Until}
	case r.KeyID != "":
		r.Subject, r.Binding = 0, nil
	}
	return r
}

// revocationSet are revocations, one a scope, since they only grow.
type revocationSet struct {
	all        map[scope]turncred.Revocation
	tally      tally
	untilSweep int // additions
}

func newRevocationSet() revocationSet {
	return revocationSet{all: map[scope]turncred.Revocation{}, tally: tally{}, untilSweep: pruneEvery}
}

// add takes r in, which must be normal.
func (v *revocationSet) add(r turncred.Revocation, now time.Time) {
	k := scopeOf(r)
	if old, ok := v.all[k]; ok {
		v.tally.remove(old.Until, hashRevocation(old))
		r.IssuedUntil = max(r.IssuedUntil, old.IssuedUntil)
		if old.Until.After(r.Until) {
			r.Until = old.Until
		}
	}
	v.all[k] = r
	v.tally.add(r.Until, hashRevocation(r))
	if v.untilSweep--; v.untilSweep > 0 {
		return
	}
	for k, r := range v.all {
		if now.After(r.Until) {
			v.tally.remove(r.Until, hashRevocation(r))
			delete(v.all, k)
		}
	}
	v.untilSweep = max(pruneEvery, len(v.all))
}
