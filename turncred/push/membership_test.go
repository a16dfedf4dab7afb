package push

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/turncred"
)

// TestMembersComeAndGo: a relay that is added gets users, hears what was revoked before it
// came, and one that is removed gets nobody and nothing more.
func TestMembersComeAndGo(t *testing.T) {
	a, b := startRelay(t, nil), startRelay(t, nil)
	reg := prometheus.NewRegistry()
	f, _ := startFleet(t, func(c *FleetConfig) { c.Empty, c.Metrics = true, reg })
	if _, err := f.Place(t.Context(), records(t, 1)[0]); err == nil {
		t.Error("Place without a relay succeeds")
	}
	if err := f.Add(t.Context(), a.config("a")); err != nil {
		t.Fatal(err)
	}
	if err := f.Add(t.Context(), a.config("a")); err == nil {
		t.Error("a name is taken twice")
	}
	eventually(t, "a answers", func() bool { return f.answering() == 1 })
	gone := records(t, 3)
	for _, r := range gone {
		if err := f.Revoke(t.Context(), turncred.Revocation{Tid: r.Tid, Until: r.Texp}); err != nil {
			t.Fatal(err)
		}
	}
	heard := func(r Record) bool { return b.revoker.revoked(r.Tid, r.Identity) }
	for round := range 3 { // it may come back, with what it had
		if err := f.Add(t.Context(), b.config("b")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "b has heard what was revoked before", func() bool { return !slices.ContainsFunc(gone, func(r Record) bool { return !heard(r) }) })
		eventually(t, "both answer", func() bool { return f.answering() == 2 })
		var at []string
		for _, r := range records(t, 32) {
			uris, err := f.Place(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, uris...)
		}
		if !slices.Contains(at, "turn:a") || !slices.Contains(at, "turn:b") {
			t.Errorf("round %d: users went to %v", round, at)
		}
		if !f.Remove("b") || f.Remove("b") {
			t.Error("Remove reports what is not so")
		}
		for _, r := range records(t, 32) {
			if uris, err := f.Place(t.Context(), r); err != nil || !slices.Equal(uris, []string{"turn:a"}) {
				t.Errorf("after b has left: %v, %v", uris, err)
			}
		}
	}
	families, err := reg.Gather()
	if err != nil || len(families) == 0 {
		t.Fatalf("metrics: %v", err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "relay" && l.GetValue() != "a" {
					t.Errorf("%s has relay %q, which has left", family.GetName(), l.GetValue())
				}
			}
		}
	}
}

// TestHas: a key counts as there when each relay that takes users says so.
func TestHas(t *testing.T) {
	has := func(keys ...turncred.KeyID) func(*ServerConfig) {
		return func(c *ServerConfig) { c.Status = func() Status { return Status{Ready: true, Keys: keys} } }
	}
	a, b := startRelay(t, has("k1", "k2")), startRelay(t, has("k1"))
	f, _ := startFleet(t, nil, a.config("a"), b.config("b"))
	eventually(t, "both answer", func() bool { return f.answering() == 2 })
	for _, tt := range []struct {
		kid         turncred.KeyID
		every, some bool
	}{{"k1", true, true}, {"k2", false, true}, {"k3", false, false}} {
		if every, some := f.Has(tt.kid); every != tt.every || some != tt.some {
			t.Errorf("Has(%s) = %v, %v, want %v, %v", tt.kid, every, some, tt.every, tt.some)
		}
	}
	if got := f.Offered(); len(got) != 2 {
		t.Errorf("Offered = %v, want both", got)
	}
	f.SetWeight("b", 0)
	if got := f.Offered(); !slices.Equal(got, []string{"turn:a"}) {
		t.Errorf("Offered = %v, want a's alone", got)
	}
	if every, _ := f.Has("k2"); !every {
		t.Error("a drained relay holds a key up")
	}
}
