package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func key(kind store.KeyKind, id turncred.KeyID, fill byte) store.Key {
	return store.Key{Kind: kind, ID: id, Secret: turncred.NewSecret(bytes.Repeat([]byte{fill}, 32)), State: store.KeyNext}
}

func keysLife(f *fixture) {
	k1, k2 := key(store.KeyShared, "k1", 7), key(store.KeyToken, "k1", 8)
	k1.NotBefore, k1.NotAfter = Epoch.Add(time.Minute), Epoch.Add(time.Hour)
	k2.Algorithm = "A256GCM"
	kek := store.Key{Kind: store.KeyKEK, ID: "kek1", State: store.KeyCurrent}
	for _, k := range []store.Key{k1, k2, kek, k1} {
		f.ok(f.s.AddKey(f.ctx, k))
	}
	f.is(f.s.AddKey(f.ctx, key(store.KeyShared, "k1", 9)), store.ErrConflict)
	f.reopen()

	ks, err := f.s.Keys(f.ctx, "")
	f.ok(err)
	if len(ks) != 3 || ks[0].Kind != store.KeyKEK || ks[1].Kind != store.KeyShared || ks[2].Kind != store.KeyToken {
		f.Fatalf("keys are %+v, want kek1, shared-key k1 and token k1", ks)
	}
	if got := ks[1]; !store.SameKey(got, k1) || !got.NotBefore.Equal(k1.NotBefore) || !got.NotAfter.Equal(k1.NotAfter) || got.State != store.KeyNext || !got.Created.Equal(Epoch) {
		f.Errorf("key is %+v, want %+v", got, k1)
	}
	if got := ks[2]; !store.SameKey(got, k2) || !got.NotBefore.IsZero() || !got.NotAfter.IsZero() {
		f.Errorf("key is %+v, want %+v", got, k2)
	}

	k1.State, k1.NotAfter = store.KeyCurrent, time.Time{}
	f.ok(f.s.SetKey(f.ctx, store.KeyNext, k1))
	f.is(f.s.SetKey(f.ctx, store.KeyNext, k1), store.ErrConflict)
	f.is(f.s.SetKey(f.ctx, store.KeyNext, key(store.KeyShared, "none", 1)), store.ErrNotFound)
	ks, err = f.s.Keys(f.ctx, store.KeyShared)
	f.ok(err)
	if len(ks) != 1 || ks[0].State != store.KeyCurrent || !ks[0].NotAfter.IsZero() || !store.SameKey(ks[0], k1) {
		f.Errorf("keys are %+v, want k1, current", ks)
	}

	// Of many who move a key from one state, one does.
	k1.State = store.KeyRetired
	if n := f.winners(f.atOnce(8, func(int) error { return f.s.SetKey(f.ctx, store.KeyCurrent, k1) }), store.ErrConflict); n != 1 {
		f.Errorf("%d moved the key from current to retired, want 1", n)
	}
	f.ok(f.s.DeleteKey(f.ctx, store.KeyShared, "k1"))
	f.is(f.s.DeleteKey(f.ctx, store.KeyShared, "k1"), store.ErrNotFound)
}

func keysRefused(f *fixture) {
	kek := key(store.KeyKEK, "kek1", 1)
	none := key(store.KeyShared, "k1", 1)
	none.Secret = turncred.Secret{}
	state := key(store.KeyShared, "k1", 1)
	state.State = "best"
	for _, k := range []store.Key{kek, none, state, key("other", "k1", 1), key(store.KeyToken, "", 1), key(store.KeyToken, "a-b", 1)} {
		f.is(f.s.AddKey(f.ctx, k), store.ErrInvalid)
	}
	f.ok(f.s.AddKey(f.ctx, key(store.KeyShared, "k1", 1)))
	f.is(f.s.SetKey(f.ctx, store.KeyNext, state), store.ErrInvalid)
}

// reseal rotates the KEK of a store with rows.
func reseal(f *fixture) {
	var rs []push.Record
	for i := range 25 {
		rs = append(rs, Credential(turncred.Tid(fmt.Sprintf("k1-%02d", i)), Epoch.Add(time.Hour)))
	}
	f.ok(f.s.PutCredentials(f.ctx, rs))
	f.ok(f.s.AddKey(f.ctx, key(store.KeyShared, "k1", 7)))

	f.ok(f.keks.Use(KEK("kek2", 2), KEK("kek1", 1)))
	f.ok(f.s.PutCredentials(f.ctx, []push.Record{rs[0], Credential("k1-new", Epoch.Add(time.Hour))}))
	f.reopen()
	total := 0
	for {
		n, err := f.s.Reseal(f.ctx, 10)
		f.ok(err)
		if n > 10 {
			f.Errorf("Reseal(10) = %d", n)
		}
		if total += n; n == 0 {
			break
		}
	}
	if total != 26 {
		f.Errorf("%d rows were resealed, want 26", total)
	}
	f.ok(f.keks.Use(KEK("kek2", 2))) // the old one is gone
	f.reopen()
	if got := f.live(); len(got) != 26 {
		f.Errorf("%d credentials, want 26", len(got))
	}
	ks, err := f.s.Keys(f.ctx, "")
	f.ok(err)
	if len(ks) != 1 || !store.SameKey(ks[0], key(store.KeyShared, "k1", 7)) {
		f.Errorf("keys are %+v, want k1", ks)
	}
}

func wrongKEK(f *fixture) {
	r := Credential("k1-one", Epoch.Add(time.Hour))
	f.ok(f.s.PutCredentials(f.ctx, []push.Record{r}))
	f.ok(f.s.Close())
	for name, current := range map[string]store.KEK{"other bytes": KEK("kek1", 3), "other id": KEK("kek2", 1)} {
		keks, err := store.NewKEKs(current)
		f.ok(err)
		s, err := f.world.Open(Config{keks, f.clock.Now})
		if err == nil {
			_ = s.Close()
		}
		f.Logf("%s: %v", name, err)
		f.is(err, store.ErrKEK)
	}
	f.reopen()
	f.wantCredential(r)
}

func watch(f *fixture) {
	c, err := f.s.Cursor(f.ctx)
	f.ok(err)
	type seen struct {
		changes []store.Change
		cursor  store.Cursor
	}
	told := make(chan seen, 64)
	stop := f.watch(c, func(cs []store.Change, c store.Cursor) error {
		told <- seen{cs, c}
		return nil
	})
	r := turncred.Revocation{Tid: "k1-one", Until: Epoch.Add(time.Hour)}
	id, err := store.RevocationID(r)
	f.ok(err)
	f.ok(f.s.AddRevocation(f.ctx, r))
	f.ok(f.s.AddKey(f.ctx, key(store.KeyShared, "k1", 7)))

	want := []store.Change{{Kind: store.ChangedRevocation, ID: id}, {Kind: store.ChangedKey, ID: "shared-key/k1"}}
	var got []store.Change
	var last store.Cursor
	deadline := time.After(20 * time.Second)
	for !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
		select {
		case s := <-told:
			got, last = append(got, s.changes...), s.cursor
		case <-deadline:
			f.Fatalf("told of %v, want %v", got, want)
		}
	}
	stop()

	// From the last cursor on, what came meanwhile is told.
	k := key(store.KeyShared, "k1", 7)
	k.State = store.KeyCurrent
	f.ok(f.s.SetKey(f.ctx, store.KeyNext, k))
	f.ok(f.s.AddKey(f.ctx, key(store.KeyShared, "k2", 7)))
	again := make(chan store.Change, 64)
	stop = f.watch(last, func(cs []store.Change, _ store.Cursor) error {
		for _, c := range cs {
			again <- c
		}
		return nil
	})
	defer stop()
	for c := range again {
		if c == (store.Change{Kind: store.ChangedKey, ID: "shared-key/k2"}) {
			return
		}
	}
}

// watch watches in the background; stop ends it and waits.
func (f *fixture) watch(c store.Cursor, tell func([]store.Change, store.Cursor) error) (stop func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan error, 1)
	go func() { done <- f.s.Watch(ctx, c, tell) }()
	return func() {
		cancel()
		f.is(<-done, ctx.Err())
	}
}

func oldCursor(f *fixture) {
	f.is(f.s.Watch(f.ctx, "no cursor", func([]store.Change, store.Cursor) error { return nil }), store.ErrCursor)
	f.is(f.s.Watch(f.ctx, "", func([]store.Change, store.Cursor) error { return nil }), store.ErrCursor)
}
