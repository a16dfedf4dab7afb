package coturn

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pion/turn/v3"

	"epcscf/internal/realpart"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

const (
	testRealm    = turncred.Realm("turn.test")
	testPassword = "admin-password"
)

var (
	testKm         = turncred.NewSecret(bytes.Repeat([]byte("k"), turncred.MinSecretLen))
	testDeployment = turncred.NewSecret(bytes.Repeat([]byte("d"), turncred.MinSecretLen))
)

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// freePort returns a port that is free over TCP and UDP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp4", ln.Addr().String())
		_ = ln.Close()
		if err == nil {
			_ = pc.Close()
			return ln.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// server is Debian's coturn.
type server struct {
	addr  string
	admin *Admin
	log   realpart.Output
}

// startServer runs turnserver with args beside those that every test wants.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	path := realpart.Program(t, "turnserver", "coturn")
	port, cli := freePort(t), freePort(t)
	s := &server{
		addr:  fmt.Sprintf("127.0.0.1:%d", port),
		admin: &Admin{Addr: fmt.Sprintf("127.0.0.1:%d", cli), Password: turncred.NewSecret([]byte(testPassword))},
	}
	cmd := exec.Command(path, append([]string{
		"-n", "--listening-ip=127.0.0.1", fmt.Sprintf("--listening-port=%d", port), "--relay-ip=127.0.0.1",
		"--cli-ip=127.0.0.1", fmt.Sprintf("--cli-port=%d", cli), "--cli-password=" + testPassword, "--cli-max-output-sessions=100000",
		"--realm=" + string(testRealm), "--allow-loopback-peers", "--no-tls", "--no-dtls", "--relay-threads=1",
		"--log-file=stdout", "--pidfile=" + filepath.Join(t.TempDir(), "pid"),
	}, args...)...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	eventually(t, "turnserver listens", func() bool {
		for _, addr := range []string{s.addr, s.admin.Addr} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			_ = conn.Close()
		}
		return true
	})
	return s
}

// client is one browser's allocation at coturn.
type client struct {
	turn    *turn.Client
	socket  net.PacketConn
	relayed net.PacketConn
}

// allocate makes an allocation with a credential, or returns why coturn refused it.
func allocate(t *testing.T, s *server, c turncred.Credential) (*client, error) {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tc, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: s.addr, STUNServerAddr: s.addr, Conn: socket,
		Username: c.Username, Password: string(c.Password.Reveal()), Realm: string(c.Realm),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tc.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tc.Close(); _ = socket.Close() })
	relayed, err := tc.Allocate()
	if err != nil {
		return nil, err
	}
	return &client{tc, socket, relayed}, nil
}

// relays reports whether a datagram passes from the client through coturn to a peer.
func (c *client) relays(t *testing.T) bool {
	t.Helper()
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	if _, err := c.relayed.WriteTo([]byte("hello"), peer.LocalAddr()); err != nil {
		return false // no permission: the allocation is gone
	}
	_ = peer.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	_, _, err = peer.ReadFrom(make([]byte, 16))
	return err == nil
}

// edge makes credentials as the eP-CSCF does.
type edge struct {
	codec  *turncred.TidCodec
	issuer turncred.Provisioner
}

func newEdge(t *testing.T, cfg Config, approach turncred.Approach) (edge, *Relay) {
	t.Helper()
	codec, err := turncred.NewTidCodec(testDeployment)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Codec, cfg.Realm = codec, testRealm
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	minter, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: testRealm, URIs: []string{"turn:127.0.0.1"}, Revoker: r})
	if err != nil {
		t.Fatal(err)
	}
	if approach == turncred.ApproachPush {
		return edge{codec, push.NewIssuer(minter, "k1", r)}, r
	}
	ring, err := turncred.NewKeyRing(turncred.Key{ID: "k1", Secret: testKm})
	if err != nil {
		t.Fatal(err)
	}
	return edge{codec, sharedkey.NewIssuer(minter, ring, sharedkey.HMACSHA1)}, r
}

func (e edge) issue(t *testing.T, impi turncred.IMPI, binding turncred.Binding) turncred.Credential {
	t.Helper()
	c, err := e.issuer.Provision(t.Context(), turncred.Request{IMPI: impi, Binding: binding, Life: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (e edge) revoke(t *testing.T, s turncred.Scope) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.issuer.Revoke(ctx, s); err != nil {
		t.Fatal(err)
	}
}
