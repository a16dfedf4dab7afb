package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func (f *fixture) wantCredential(want push.Record) {
	f.Helper()
	got, err := f.s.Credential(f.ctx, want.Tid)
	f.ok(err)
	if !store.SameRecord(got, want) {
		f.Fatalf("credential %s is %+v, want %+v", want.Tid, got, want)
	}
}

// live returns the Tids of those not expired, sorted.
func (f *fixture) live() []turncred.Tid {
	f.Helper()
	seen := map[turncred.Tid]push.Record{}
	f.ok(f.s.EachCredential(f.ctx, func(r push.Record) error {
		if _, ok := seen[r.Tid]; ok {
			f.Errorf("%s came twice", r.Tid)
		}
		seen[r.Tid] = r
		return nil
	}))
	for _, r := range seen {
		if !store.SameRecord(r, Credential(r.Tid, r.Texp)) {
			f.Errorf("%s came back as %+v", r.Tid, r)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func credentialsOnce(f *fixture) {
	r := Credential("k1-one", Epoch.Add(time.Hour))
	f.ok(f.s.PutCredentials(f.ctx, []push.Record{r}))
	f.wantCredential(r)
	f.ok(f.s.PutCredentials(f.ctx, []push.Record{r})) // the same again

	changes := map[string]func(*push.Record){
		"key":      func(r *push.Record) { r.Key = Credential("k1-two", r.Texp).Key },
		"user":     func(r *push.Record) { r.Username = "other" },
		"realm":    func(r *push.Record) { r.Realm = "other.example" },
		"texp":     func(r *push.Record) { r.Texp = r.Texp.Add(time.Second) },
		"subject":  func(r *push.Record) { r.Identity.Subject++ },
		"issued":   func(r *push.Record) { r.Identity.Issued++ },
		"binding":  func(r *push.Record) { r.Identity.Binding-- },
		"no realm": func(r *push.Record) { r.Realm = "" },
	}
	for name, change := range changes {
		other := r
		change(&other)
		err := f.s.PutCredentials(f.ctx, []push.Record{other})
		if !errors.Is(err, store.ErrConflict) || !errors.Is(err, push.ErrConflict) {
			f.Errorf("another %s: %v, want both conflicts", name, err)
		}
	}
	f.wantCredential(r)
	f.reopen()
	f.wantCredential(r)
	_, err := f.s.Credential(f.ctx, "k1-none")
	f.is(err, store.ErrNotFound)
}

func credentialsBatch(f *fixture) {
	texp := Epoch.Add(time.Hour)
	a, b, c := Credential("k1-a", texp), Credential("k1-b", texp), Credential("k1-c", texp)
	f.ok(f.s.PutCredentials(f.ctx, nil))
	f.ok(f.s.PutCredentials(f.ctx, []push.Record{a, b, a}))
	f.ok(f.s.PutCredentials(f.ctx, []push.Record{b, c}))
	for _, r := range []push.Record{a, b, c} {
		f.wantCredential(r)
	}

	// One in conflict, and none is written.
	other := a
	other.Username = "other"
	f.is(f.s.PutCredentials(f.ctx, []push.Record{Credential("k1-d", texp), other, Credential("k1-e", texp)}), store.ErrConflict)
	d := Credential("k1-f", texp)
	d2 := d
	d2.Identity.Subject = 1
	f.is(f.s.PutCredentials(f.ctx, []push.Record{d, d2}), store.ErrConflict)
	if got, want := f.live(), []turncred.Tid{"k1-a", "k1-b", "k1-c"}; !slices.Equal(got, want) {
		f.Errorf("after conflicts there are %v, want %v", got, want)
	}
}

func credentialsExpire(f *fixture) {
	var rs []push.Record
	for i := range 40 {
		rs = append(rs, Credential(turncred.Tid(fmt.Sprintf("k1-%02d", i)), Epoch.Add(time.Duration(i)*time.Minute)))
	}
	f.ok(f.s.PutCredentials(f.ctx, rs))
	f.clock.Pass(30 * time.Minute) // the 31st expires now, so nine are left
	if got := f.live(); len(got) != 9 || got[0] != "k1-31" {
		f.Errorf("live are %v, want k1-31 to k1-39", got)
	}
	n, err := f.s.Prune(f.ctx)
	f.ok(err)
	if n != 31 {
		f.Errorf("Prune = %d, want 31", n)
	}
	if got := f.live(); len(got) != 9 {
		f.Errorf("after Prune live are %v, want nine", got)
	}
	_, err = f.s.Credential(f.ctx, "k1-30")
	f.is(err, store.ErrNotFound)

	stop := errors.New("stop")
	f.is(f.s.EachCredential(f.ctx, func(push.Record) error { return stop }), stop)
}

// credentialsManyWriters has the same Tid written by many at once, with one body and with two.
func credentialsManyWriters(f *fixture) {
	texp := Epoch.Add(time.Hour)
	r := Credential("k1-same", texp)
	for _, err := range f.atOnce(16, func(int) error { return f.s.PutCredentials(f.ctx, []push.Record{r}) }) {
		f.ok(err)
	}
	bodies := [2]push.Record{Credential("k1-rivals", texp), Credential("k1-rivals", texp)}
	bodies[1].Identity.Subject = 3
	errs := f.atOnce(16, func(i int) error { return f.s.PutCredentials(f.ctx, []push.Record{bodies[i%2]}) })
	if n := f.winners(errs, store.ErrConflict); n != 8 {
		f.Errorf("%d of 16 writers of two bodies were told that theirs is there, want the 8 of one", n)
	}
	got, err := f.s.Credential(f.ctx, "k1-rivals")
	f.ok(err)
	for i, err := range errs {
		if (err == nil) != store.SameRecord(got, bodies[i%2]) {
			f.Errorf("writer %d of body %d got %v, but stored is %+v", i, i%2, err, got.Identity)
		}
	}

	// Batches that overlap, in opposite order.
	var rs []push.Record
	for i := range 50 {
		rs = append(rs, Credential(turncred.Tid(fmt.Sprintf("k2-%02d", i)), texp))
	}
	back := slices.Clone(rs)
	slices.Reverse(back)
	for _, err := range f.atOnce(8, func(i int) error {
		return f.s.PutCredentials(f.ctx, [][]push.Record{rs, back}[i%2])
	}) {
		f.ok(err)
	}
	for _, r := range rs {
		f.wantCredential(r)
	}
}

func credentialsRefused(f *fixture) {
	for name, change := range map[string]func(*push.Record){
		"no Tid":     func(r *push.Record) { r.Tid = "" },
		"no key":     func(r *push.Record) { r.Key = turncred.LongTermKey{} },
		"short key":  func(r *push.Record) { r.Key.SHA256 = r.Key.MD5 },
		"year 50000": func(r *push.Record) { r.Texp = time.Unix(1<<41, 0) },
		"issue time": func(r *push.Record) { r.Identity.Issued = 1 << 40 },
		"long name":  func(r *push.Record) { r.Username = string(make([]byte, 2000)) },
	} {
		r := Credential("k1-bad", Epoch.Add(time.Hour))
		change(&r)
		if err := f.s.PutCredentials(f.ctx, []push.Record{r}); !errors.Is(err, store.ErrInvalid) {
			f.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func revocationsGrow(f *fixture) {
	binding := turncred.Binding(0xABCD)
	rs := []turncred.Revocation{
		{Tid: "k1-one", Until: Epoch.Add(time.Minute)},
		{KeyID: "k2", IssuedUntil: 1<<40 - 1, Until: Epoch.Add(time.Hour)},
		{Subject: 1<<64 - 1, IssuedUntil: 77, KeepLive: true, Until: Epoch.Add(time.Hour)},
		{Subject: 1<<64 - 1, Binding: &binding, IssuedUntil: 77, Until: Epoch.Add(time.Hour)},
		{Subject: 5, IssuedUntil: 78, Until: Epoch.Add(2 * time.Hour)},
	}
	for _, r := range rs {
		f.ok(f.s.AddRevocation(f.ctx, r))
		f.ok(f.s.AddRevocation(f.ctx, r))
	}
	f.reopen()
	f.wantRevocations(rs)

	// The same with an earlier end changes nothing, with a later one it lasts longer.
	sooner, later := rs[4], rs[0]
	sooner.Until, later.Until = Epoch.Add(time.Second), Epoch.Add(3*time.Hour)
	f.ok(f.s.AddRevocation(f.ctx, sooner))
	f.ok(f.s.AddRevocation(f.ctx, later))
	rs[0] = later
	f.wantRevocations(rs)

	f.clock.Pass(time.Hour)
	f.wantRevocations([]turncred.Revocation{later, rs[4]})
	n, err := f.s.Prune(f.ctx)
	f.ok(err)
	if n < 3 {
		f.Errorf("Prune = %d, want the 3 that expired", n)
	}
	f.wantRevocations([]turncred.Revocation{later, rs[4]})

	for _, err := range f.atOnce(8, func(i int) error {
		return f.s.AddRevocation(f.ctx, turncred.Revocation{Subject: 9, IssuedUntil: turncred.IssueTime(i / 2), Until: Epoch.Add(2 * time.Hour)})
	}) {
		f.ok(err)
	}
	got, err := f.s.Revocations(f.ctx)
	f.ok(err)
	if len(got) != 6 {
		f.Errorf("%d revocations, want 6", len(got))
	}
}

func (f *fixture) wantRevocations(want []turncred.Revocation) {
	f.Helper()
	got, err := f.s.Revocations(f.ctx)
	f.ok(err)
	text := func(rs []turncred.Revocation) (lines []string) {
		for _, r := range rs {
			binding := "any"
			if r.Binding != nil {
				binding = fmt.Sprint(*r.Binding)
			}
			lines = append(lines, fmt.Sprintf("%s|%s|%v|%s|%d|%v|%d", r.Tid, r.KeyID, r.Subject, binding, r.IssuedUntil, r.KeepLive, r.Until.Unix()))
		}
		slices.Sort(lines)
		return lines
	}
	if g, w := text(got), text(want); !slices.Equal(g, w) {
		f.Fatalf("revocations are\n%q, want\n%q", g, w)
	}
}
