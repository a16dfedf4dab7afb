package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// asServer in the environment makes this test's program epcscf itself, so that a process of
// its own can be killed.
const asServer = "EPCSCF_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// spawn starts the server as a process of its own, and returns what kills it (-9).
func (s *served) spawn(t *testing.T) (kill func()) {
	t.Helper()
	return s.spawnAs(t, "serve")
}

// spawnAs is spawn for serve or relay.
func (s *served) spawnAs(t *testing.T, command string) (kill func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, command, "-c", s.file)
	cmd.Env = append(os.Environ(), asServer+"=1")
	cmd.Stdout, cmd.Stderr = s.out, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	s.eventually(t, "it is ready", s.ready)
	return kill
}

// A revocation outlives the process that took it, killed in the moment in which the WIC
// heard that it is de-registered; another user's credential is good before and after.
func TestRevocationsOutliveKill9(t *testing.T) {
	s := prepare(t, t.TempDir(), nil, nil)
	kill := s.spawn(t)
	var revoked struct{ Username, Password string }
	out := s.wic(t, "register", "--show-password") // which de-registers before it ends
	if err := json.Unmarshal([]byte(out), &revoked); err != nil || revoked.Password == "" {
		t.Fatalf("wic register: %v\n%s", err, out)
	}
	bob := s.credentialOf(t, "bob")
	for round := range 3 {
		if s.allocates(t, revoked.Username, revoked.Password) {
			t.Errorf("round %d: a revoked credential makes an allocation", round)
		}
		if !s.allocates(t, bob.Username, string(bob.Password.Reveal())) {
			t.Errorf("round %d: another user's credential is refused", round)
		}
		kill()
		kill = s.spawn(t)
	}
	s.wic(t, "relay-check") // registered anew
}
