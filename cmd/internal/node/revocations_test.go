package node

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

// What was revoked before a restart is there after it; a file that cannot be had is named,
// with its key.
func TestRevocationsFile(t *testing.T) {
	r := &Relay{Revocations: RevocationsFile{File: filepath.Join(t.TempDir(), "revocations.db"), From: "relay.revocations_file"}}
	want := turncred.Revocation{Subject: 7, IssuedUntil: 9, Until: time.Now().Add(time.Hour).Round(0)}
	for restart := range 3 {
		s, err := openRevocations(r, testSecret("d"))
		if err != nil {
			t.Fatal(err)
		}
		log := r.Settings.Revocations
		if restart == 0 {
			if err := log.Append(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
		all, err := log.Load(t.Context())
		if err != nil || len(all) != 1 || all[0].Subject != want.Subject || all[0].IssuedUntil != want.IssuedUntil {
			t.Errorf("after %d restarts: %+v, %v", restart, all, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}

	for name, file := range map[string]string{"no such folder": filepath.Join(t.TempDir(), "nothing", "revocations.db"), "a folder": t.TempDir()} {
		r.Revocations.File = file
		if _, err := openRevocations(r, testSecret("d")); err == nil || !strings.Contains(err.Error(), "relay.revocations_file "+file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := openRevocations(&Relay{}, testSecret("d")); s != nil || err != nil {
		t.Errorf("without a file: %v, %v", s, err)
	}
}
