package coturn

import (
	"bufio"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

// TestRevokeEndsSessions: with approach 1, of two devices of one user and another user, only
// the sessions of the device that is revoked end.
func TestRevokeEndsSessions(t *testing.T) {
	s := startServer(t, "--use-auth-secret", "--static-auth-secret="+string(testKm.Reveal()))
	e, _ := newEdge(t, Config{Admin: s.admin}, turncred.ApproachSharedKey)
	type device struct {
		impi    turncred.IMPI
		binding turncred.Binding
	}
	live := map[device]*client{}
	for _, d := range []device{{"alice", 1}, {"alice", 2}, {"bob", 1}} {
		c, err := allocate(t, s, e.issue(t, d.impi, d.binding))
		if err != nil {
			t.Fatalf("%v: %v", d, err)
		}
		live[d] = c
	}
	revoked := device{"alice", 1}
	e.revoke(t, turncred.Scope{IMPI: revoked.impi, Binding: revoked.binding})
	for d, c := range live {
		if got := c.relays(t); got != (d != revoked) {
			t.Errorf("%v relays: %v", d, got)
		}
	}
	// What is issued from then on is good.
	if c, err := allocate(t, s, e.issue(t, revoked.impi, revoked.binding)); err != nil || !c.relays(t) {
		t.Errorf("a new credential of the device: %v", err)
	}
}

func TestAdminRefusesPassword(t *testing.T) {
	s := startServer(t, "--use-auth-secret", "--static-auth-secret="+string(testKm.Reveal()))
	s.admin.Password = turncred.NewSecret([]byte("not it"))
	if _, err := s.admin.endSessions(t.Context(), func(string) bool { return true }); !errors.Is(err, ErrPassword) {
		t.Errorf("error %v, want ErrPassword", err)
	}
}

func TestAdminUnreachable(t *testing.T) {
	a := &Admin{Addr: "127.0.0.1:1", Timeout: time.Second}
	if _, err := a.endSessions(t.Context(), func(string) bool { return true }); err == nil || !strings.Contains(err.Error(), "admin interface") {
		t.Errorf("error %v, want one that names the admin interface", err)
	}
}

// FuzzConversation: whatever stands at the other end, a conversation ends, and a user's
// sessions are only those that bear his name.
func FuzzConversation(f *testing.F) {
	f.Add("Enter password: \r\n> \r\n    user: <a-b:1>, 2 sessions\r\n\r\n> ")
	f.Add("Enter password: \r\nEnter password: ")
	f.Add("Enter password: \r\n> \r\n    1) id=001, user <a>:\r\n    2) id=002, user <b>:\r\n> ")
	f.Fuzz(func(t *testing.T, answer string) {
		client, far := net.Pipe()
		defer func() { _ = client.Close() }()
		go func() {
			defer func() { _ = far.Close() }()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			_, _ = far.Write([]byte(answer))
		}()
		c := &conversation{conn: client, r: bufio.NewReader(client)}
		if c.login(turncred.NewSecret([]byte("x"))) != nil {
			return
		}
		if ids, err := c.sessions("a"); err == nil && slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(id, ", user <a>:") }) {
			t.Errorf("sessions %q of %q", ids, answer)
		}
	})
}
