package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/turncred"
	"epcscf/turncred/sharedkey"
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
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "serve", "-c", s.file)
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

// allocates reports whether a credential makes an allocation, or is answered 401.
func (s *served) allocates(t *testing.T, username, password string) bool {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	server := "127.0.0.1:" + s.relayPort(t, "udp")
	c, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server, TURNServerAddr: server, Conn: conn, LoggerFactory: logs,
		Username: username, Password: password, Realm: "ims.test",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	relay, err := c.Allocate()
	if err == nil {
		_ = relay.Close()
		return true
	}
	if !strings.Contains(err.Error(), "401") {
		t.Errorf("Allocate: %v, want success or 401", err)
	}
	return false
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

// credentialOf makes a credential with the keys of the file.
func (s *served) credentialOf(t *testing.T, impi turncred.IMPI) turncred.Credential {
	t.Helper()
	return s.credentialAt(t, impi, time.Now())
}

// credentialAt is credentialOf at another time, for five minutes.
func (s *served) credentialAt(t *testing.T, impi turncred.IMPI, now time.Time) turncred.Credential {
	t.Helper()
	ring, err := turncred.NewKeyRing(turncred.Key{ID: "k1", Secret: turncred.NewSecret([]byte(strings.Repeat("k", 32)))})
	if err != nil {
		t.Fatal(err)
	}
	issuer := sharedkey.NewIssuer(s.minter(t, func() time.Time { return now }), ring, sharedkey.HMACSHA1)
	c, err := issuer.Provision(t.Context(), turncred.Request{IMPI: impi, Life: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// minter makes what the server's own would.
func (s *served) minter(t *testing.T, now func() time.Time) *turncred.Minter {
	t.Helper()
	codec, err := turncred.NewTidCodec(turncred.NewSecret([]byte(strings.Repeat("d", 32))))
	if err != nil {
		t.Fatal(err)
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Revoker: nobody{}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// nobody is a turncred.Revoker that tells nobody.
type nobody struct{}

func (nobody) Revoke(context.Context, turncred.Revocation) error { return nil }
