package postgres

import (
	"errors"
	"testing"
	"time"

	"epcscf/store"
	"epcscf/store/storetest"
)

// testLate: a store that is opened late serves when its database does, and then refuses what
// an early one would have.
func testLate(t *testing.T, c cluster) {
	url := c.URL(c.database(t))
	old := open(t, url) // under kek1
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	empty := c.URL(c.Database(t))
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	late := func(url string, fill byte) *Store {
		t.Helper()
		keks, err := store.NewKEKs(storetest.KEK("kek1", fill))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{DSN: url, KEKs: keks}); !Away(err) {
			t.Errorf("Open = %v, want that the database is away", err)
		}
		s, err := Open(t.Context(), Config{DSN: url, KEKs: keks, Late: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() }) // always nil
		if _, err := s.Relays(t.Context()); !Away(err) {
			t.Errorf("Relays = %v, want that the database is away", err)
		}
		return s
	}
	good, otherKey, noSchema := late(url, 1), late(url, 2), late(empty, 1)
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		s    *Store
		want error
	}{{"as it should be", good, nil}, {"another key of that name", otherKey, store.ErrKEK}, {"no migrations", noSchema, ErrSchema}} {
		_, err := tt.s.Relays(t.Context())
		for deadline := time.Now().Add(20 * time.Second); Away(err) && time.Now().Before(deadline); {
			_, err = tt.s.Relays(t.Context())
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}
