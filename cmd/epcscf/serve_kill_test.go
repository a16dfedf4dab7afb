package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
)

// asServer in the environment makes this test's program epcscf itself, so that a process of
// its own can be killed.
const asServer = "EPCSCF_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // as main does
		code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
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
	return s.spawnProcess(t, command).kill
}

// server is one in a process of its own.
type server struct {
	cmd   *exec.Cmd
	ended bool
}

func (p *server) kill() {
	if !p.ended {
		p.ended = true
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// end is SIGTERM, which a server must obey and end well.
func (p *server) end(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	p.ended = true
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func (p *server) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// spawnProcess is spawnAs for more than the end of it.
func (s *served) spawnProcess(t *testing.T, command string) *server {
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
	p := &server{cmd: cmd}
	t.Cleanup(p.kill)
	s.eventually(t, "it is ready", s.ready)
	return p
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
