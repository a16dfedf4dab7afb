package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"epcscf/store"
	"epcscf/store/internal/groupcommit"
	"epcscf/store/internal/keyvalue"
	"epcscf/store/storetest"
	"epcscf/turncred"
)

func TestMain(m *testing.M) {
	if file := storetest.ChildPath(); file != "" {
		child(file)
		return
	}
	goleak.VerifyTestMain(m)
}

type world struct{ file string }

func (w world) Open(cfg storetest.Config) (store.Store, error) {
	s, err := Open(context.Background(), Config{File: w.file, KEKs: cfg.KEKs, Now: cfg.Now})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.World { return world{filepath.Join(t.TempDir(), "store.db")} })
}

func open(t testing.TB, file string) *Store {
	t.Helper()
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{File: file, KEKs: keks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(dir, "held.db")
	open(t, held)
	wide := filepath.Join(dir, "wide.db")
	alien := filepath.Join(dir, "alien.db")
	for file, mode := range map[string]os.FileMode{wide: 0o640, alien: 0o600} {
		if err := os.WriteFile(file, make([]byte, 20000), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		file string
		want error
	}{{held, store.ErrLocked}, {alien, store.ErrCorrupt}, {wide, nil}, {filepath.Join(dir, "none", "x.db"), nil}} {
		_, err := Open(t.Context(), Config{File: tt.file, KEKs: keks})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("Open(%s) = %v, want %v", tt.file, err, tt.want)
		}
		t.Log(err)
	}
	fi, err := os.Stat(held)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v, want 0600", fi.Mode(), err)
	}
}

// TestGroupCommit: a transaction that fails after it has written leaves the others, and one
// whose caller gave up is not run.
func TestGroupCommit(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "store.db"), fileMode, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(db)
	if err != nil {
		t.Fatal(err)
	}
	bad := errors.New("bad")
	put := func(key string, err error) update {
		return func(tx keyvalue.Tx) error { return errors.Join(tx.Put("users", key, []byte("x")), err) }
	}
	errs := e.commit([]update{put("a", nil), put("b", bad), put("c", nil)})
	if errs[0] != nil || !errors.Is(errs[1], bad) || errs[2] != nil {
		t.Errorf("commit = %v, want the error of b alone", errs)
	}
	err = e.View(func(tx keyvalue.Tx) error {
		if tx.Get("users", "a") == nil || tx.Get("users", "b") != nil || tx.Get("users", "c") == nil {
			t.Error("want a and c to be written, and b not")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	begun, goOn := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- e.Update(t.Context(), func(keyvalue.Tx) error {
			close(begun)
			<-goOn
			return nil
		})
	}()
	<-begun
	cancel()
	if err := e.Update(ctx, func(keyvalue.Tx) error {
		t.Error("it ran, though its caller had given up")
		return nil
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("Update = %v, want context.Canceled", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := e.Update(t.Context(), func(keyvalue.Tx) error { return nil }); !errors.Is(err, groupcommit.ErrClosed) {
		t.Errorf("Update after Close = %v, want ErrClosed", err)
	}
}

func TestJournal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	s := open(t, file)
	until := time.Now().Add(time.Hour)
	ids := map[uint64]string{}
	for i := range 3 {
		relay := fmt.Sprint("relay", i)
		id, err := s.Journal().Add(t.Context(), relay, turncred.Revocation{Subject: turncred.Subject(i + 1), Until: until})
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = relay
	}
	if _, err := s.Journal().Add(t.Context(), "late", turncred.Revocation{Subject: 9, Until: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	j := open(t, file).Journal()
	// Each that is pending is delivered, but for relay1.
	seen := map[uint64]string{}
	pending := func(deliver bool) {
		t.Helper()
		clear(seen)
		err := j.Pending(t.Context(), func(id uint64, relay string, r turncred.Revocation) error {
			if !r.Until.Equal(until) {
				t.Errorf("%s: until %v, want %v", relay, r.Until, until)
			}
			seen[id] = relay
			if !deliver || relay == "relay1" {
				return nil
			}
			return j.Done(t.Context(), id)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pending(true)
	if len(seen) != 3 || fmt.Sprint(seen) != fmt.Sprint(ids) {
		t.Errorf("pending were %v, want %v", seen, ids)
	}
	pending(false)
	if len(seen) != 1 {
		t.Errorf("pending are %v, want relay1's", seen)
	}
	for id := range seen {
		for range 2 {
			if err := j.Done(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	}
}
