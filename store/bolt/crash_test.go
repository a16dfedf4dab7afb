package bolt

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"epcscf/store"
	"epcscf/store/storetest"
)

// child writes the file until it is killed.
func child(file string) {
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		panic(err)
	}
	s, err := Open(context.Background(), Config{File: file, KEKs: keks})
	if err != nil {
		panic(err)
	}
	storetest.WriteUntilKilled(s.PutCredentials)
}

// TestKill9: what was promised before a SIGKILL is there after it.
func TestKill9(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	promised := storetest.KilledWriter(t, file)
	s := open(t, file)
	for _, tid := range promised {
		got, err := s.Credential(t.Context(), tid)
		if err != nil {
			t.Fatalf("promised before the kill: %v", err)
		}
		storetest.WantPromised(t, tid, got)
	}
	t.Logf("%d promises, all kept", len(promised))
}

// TestNoSecretInFile looks for known secrets in the file, as they are and encoded.
func TestNoSecretInFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	s := open(t, file)
	if err := storetest.PutCanaries(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	storetest.WantNoCanary(t, file, b)
}
