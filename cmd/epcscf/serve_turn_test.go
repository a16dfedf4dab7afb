package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/turncred"
	"epcscf/turncred/sharedkey"
)

// relayPort returns the port of a transport in relay.listen.
func (s *served) relayPort(t *testing.T, transport string) string {
	t.Helper()
	m := regexp.MustCompile(`listen: \{.*` + transport + `: "127\.0\.0\.1:(\d+)"`).FindStringSubmatch(s.text(t))
	if m == nil {
		t.Fatalf("no %s in relay.listen", transport)
	}
	return m[1]
}

// turnClient is pion's client over conn.
func (s *served) turnClient(t *testing.T, server string, conn net.PacketConn, username, password string) *turn.Client {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	c, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server, TURNServerAddr: server, Conn: conn, LoggerFactory: logs,
		Username: username, Password: password, Realm: "ims.test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	return c
}

// allocates reports whether a credential makes an allocation, or is answered 401.
func (s *served) allocates(t *testing.T, username, password string) bool {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay, err := s.turnClient(t, "127.0.0.1:"+s.relayPort(t, "udp"), conn, username, password).Allocate()
	if err == nil {
		_ = relay.Close()
		return true
	}
	if !strings.Contains(err.Error(), "401") {
		t.Errorf("Allocate: %v, want success or 401", err)
	}
	return false
}

// The relay's certificate is renewed without a drop: an allocation over TLS goes on, and new
// connections see the new one.
func TestRelayCertificateChangesWithoutADrop(t *testing.T) {
	s := operate(t, nil)
	server := "127.0.0.1:" + s.relayPort(t, "tls")
	pem, err := os.ReadFile(s.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp4", server, &tls.Config{RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	bob := s.credentialOf(t, "bob")
	relay, err := s.turnClient(t, server, turn.NewSTUNConn(dial()), bob.Username, string(bob.Password.Reveal())).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	passes := func(text string) {
		t.Helper()
		b := make([]byte, 100)
		_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := relay.WriteTo([]byte(text), peer.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if n, _, err := peer.ReadFrom(b); err != nil || string(b[:n]) != text {
			t.Fatalf("peer: %q, %v, want %q", b[:n], err, text)
		}
	}
	passes("before")
	next := s.ca.Issue(t, s.dir, "edge", time.Now().Add(45*24*time.Hour), "127.0.0.1")
	s.hangUp(t)
	s.eventually(t, "the new certificate is shown", func() bool {
		c := dial()
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].Equal(next)
	})
	passes("after")
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
