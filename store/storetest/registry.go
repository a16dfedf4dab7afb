package storetest

import (
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

func relays(f *fixture) {
	a := store.Relay{Name: "a", Address: "10.0.0.1:7443", URIs: []string{"turns:a.example:443", "turn:a.example"}, Weight: 3, Region: "eu", State: store.RelayDraining}
	f.ok(f.s.PutRelay(f.ctx, store.Relay{Name: "b", Address: "10.0.0.2:7443"}))
	f.ok(f.s.PutRelay(f.ctx, a))
	f.is(f.s.PutRelay(f.ctx, store.Relay{}), store.ErrInvalid)
	f.is(f.s.PutRelay(f.ctx, store.Relay{Name: "c", Weight: -1}), store.ErrInvalid)
	f.reopen()

	rs := f.relays()
	if len(rs) != 2 || rs[0].Name != "a" || rs[1].Name != "b" {
		f.Fatalf("relays are %+v, want a and b", rs)
	}
	if got := rs[0]; got.Address != a.Address || !slices.Equal(got.URIs, a.URIs) || got.Weight != 3 || got.Region != "eu" || got.State != store.RelayActive || !got.LastSeen.IsZero() {
		f.Errorf("relay is %+v, want %+v, active", got, a)
	}

	f.ok(f.s.SeeRelay(f.ctx, "a", []turncred.KeyID{"k1", "k2"}, Epoch.Add(time.Second)))
	f.ok(f.s.SetRelayState(f.ctx, "a", store.RelayDraining))
	a.Weight = 4
	f.ok(f.s.PutRelay(f.ctx, a))
	if got := f.relays()[0]; got.Weight != 4 || got.State != store.RelayDraining || !slices.Equal(got.Keys, []turncred.KeyID{"k1", "k2"}) || !got.LastSeen.Equal(Epoch.Add(time.Second)) {
		f.Errorf("relay is %+v, want it draining, with its keys, of weight 4", got)
	}
	f.is(f.s.SetRelayState(f.ctx, "a", "gone"), store.ErrInvalid)
	f.is(f.s.SetRelayState(f.ctx, "z", store.RelayActive), store.ErrNotFound)
	f.is(f.s.SeeRelay(f.ctx, "z", nil, Epoch), store.ErrNotFound)
	f.ok(f.s.DeleteRelay(f.ctx, "a"))
	f.is(f.s.DeleteRelay(f.ctx, "a"), store.ErrNotFound)
	if rs := f.relays(); len(rs) != 1 {
		f.Errorf("relays are %+v, want b", rs)
	}
}

func (f *fixture) relays() []store.Relay {
	f.Helper()
	rs, err := f.s.Relays(f.ctx)
	f.ok(err)
	return rs
}

func epochs(f *fixture) {
	began := uint64(Epoch.Unix())
	for n := range uint64(3) { // the clock stands still
		got, err := f.s.NextEpoch(f.ctx, "edge1")
		f.ok(err)
		if got != began+n {
			f.Errorf("epoch is %d, want %d", got, began+n)
		}
		f.reopen()
	}
	f.clock.Pass(time.Minute)
	began += 60
	if got, err := f.s.NextEpoch(f.ctx, "edge1"); err != nil || got != began {
		f.Errorf("epoch is %d, %v, want %d: above what a restored backup knows", got, err, began)
	}

	// Of many starts at once each gets an epoch of its own.
	got := make([]uint64, 8)
	for _, err := range f.atOnce(8, func(i int) (err error) {
		got[i], err = f.s.NextEpoch(f.ctx, "edge1")
		return err
	}) {
		f.ok(err)
	}
	slices.Sort(got)
	for i, epoch := range got {
		if epoch != began+1+uint64(i) {
			f.Errorf("epochs are %v, want the 8 after %d", got, began)
			break
		}
	}

	for _, tt := range []struct {
		epoch, highest uint64
		err            error
	}{{5, 5, nil}, {5, 5, nil}, {4, 5, store.ErrConflict}, {9, 9, nil}, {1, 9, store.ErrConflict}} {
		highest, err := f.s.RaiseEpoch(f.ctx, "edge2", tt.epoch)
		f.is(err, tt.err)
		if highest != tt.highest {
			f.Errorf("RaiseEpoch(%d) = %d, want %d", tt.epoch, highest, tt.highest)
		}
	}
	_, err := f.s.NextEpoch(f.ctx, "")
	f.is(err, store.ErrInvalid)
	es, err := f.s.Edges(f.ctx)
	f.ok(err)
	if want := []store.Edge{{Name: "edge1", Epoch: began + 8}, {Name: "edge2", Epoch: 9}}; !slices.Equal(es, want) {
		f.Errorf("edges are %v, want %v", es, want)
	}
}

func auditTrail(f *fixture) {
	for _, action := range []string{"key.add", "key.rotate", "relay.drain"} {
		f.ok(f.s.Record(f.ctx, store.Event{Actor: "operator:anna", Action: action, Object: "o", Detail: "d"}))
		f.clock.Pass(time.Minute)
	}
	f.ok(f.s.Record(f.ctx, store.Event{At: Epoch.Add(time.Second), Actor: "edge:1", Action: "late"}))
	f.reopen()
	for _, tt := range []struct {
		from, before time.Time
		want         []string
	}{
		{want: []string{"key.add", "late", "key.rotate", "relay.drain"}},
		{from: Epoch.Add(time.Second), before: Epoch.Add(2 * time.Minute), want: []string{"late", "key.rotate"}},
		{from: Epoch.Add(time.Hour)},
	} {
		var got []string
		f.ok(f.s.Events(f.ctx, tt.from, tt.before, func(e store.Event) error {
			got = append(got, e.Action)
			return nil
		}))
		if !slices.Equal(got, tt.want) {
			f.Errorf("Events(%v, %v) = %v, want %v", tt.from, tt.before, got, tt.want)
		}
	}
	f.clock.Pass(store.AuditKept - 2*time.Minute)
	n, err := f.s.Prune(f.ctx)
	f.ok(err)
	if n != 3 {
		f.Errorf("Prune = %d, want 3", n)
	}
}
