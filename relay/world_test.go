package relay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
	"epcscf/turncred/token"
)

const testRealm turncred.Realm = "ims.test"

var (
	loopback  = netip.MustParseAddr("127.0.0.1")
	loopbackP = netip.MustParsePrefix("127.0.0.0/8")
)

// clock is a time that tests turn.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_800_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// kmText is the key of approach 1, and coturn's static-auth-secret.
var kmText = strings.Repeat("k", turncred.MinSecretLen)

// world is a relay on loopback with both approaches behind it, as a node wires them.
type world struct {
	*Server
	udp, tcp, tls netip.AddrPort
	roots         *x509.CertPool
	sharedKey     turncred.Provisioner
	push          turncred.Provisioner
	tokens        *token.Issuer
	maxTTL        time.Duration // of approach 1's authenticator; default 1 h
}

// newWorld starts a relay. edit, where not nil, changes its Config first.
func newWorld(t testing.TB, edit func(*Config)) *world {
	t.Helper()
	return startWorld(t, &world{}, edit)
}

func startWorld(t testing.TB, w *world, edit func(*Config)) *world {
	t.Helper()
	cfg := Config{
		Realm: testRealm, RelayIP: loopback, AllowPeers: []netip.Prefix{loopbackP},
		MinPort: 20000, MaxPort: 60000, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if edit != nil {
		edit(&cfg)
	}
	w.credentials(t, &cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Server = s
	var serving sync.WaitGroup
	serve := func(f func() error) {
		serving.Go(func() {
			if err := f(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, tlsLn := listenTCP(t), listenTCP(t)
	cert, roots := certificate(t)
	w.udp, w.tcp, w.tls, w.roots = addrPortOf(pc.LocalAddr()), addrPortOf(tcp.Addr()), addrPortOf(tlsLn.Addr()), roots
	serve(func() error { return s.ServeUDP(pc) })
	serve(func() error { return s.ServeTCP(tcp) })
	serve(func() error { return s.ServeTLS(tlsLn, &tls.Config{Certificates: []tls.Certificate{cert}}) })
	eventually(t, "the listeners are served, and no peers", func() bool {
		return s.policy.barred(w.udp) && s.policy.barred(w.tcp) && s.policy.barred(w.tls)
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		serving.Wait()
	})
	return w
}

// credentials makes an issuer and an authenticator of each approach.
func (w *world) credentials(t testing.TB, cfg *Config) {
	t.Helper()
	codec, err := turncred.NewTidCodec(turncred.NewSecret(bytes.Repeat([]byte{7}, turncred.MinSecretLen)))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := turncred.NewKeyRing(turncred.Key{ID: "k1", Secret: turncred.NewSecret([]byte(kmText))})
	if err != nil {
		t.Fatal(err)
	}
	minter := func() *turncred.Minter {
		m, err := turncred.NewMinter(turncred.MinterConfig{
			Codec: codec, Realm: testRealm, URIs: []string{"turn:127.0.0.1"}, Revoker: w, Now: cfg.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	w.sharedKey = sharedkey.NewIssuer(minter(), keys, sharedkey.HMACSHA1)
	auth, err := sharedkey.NewAuthenticator(sharedkey.AuthenticatorConfig{Ring: keys, Codec: codec, Realm: testRealm, MaxTTL: w.maxTTL})
	if err != nil {
		t.Fatal(err)
	}
	table := push.NewTable(testRealm, cfg.Now)
	w.push = push.NewIssuer(minter(), "p1", table)
	ring, tokens := tokenSide(t)
	if w.tokens, err = token.NewIssuer(minter(), ring, serverName); err != nil {
		t.Fatal(err)
	}
	if cfg.Auth == nil {
		cfg.Auth = turncred.Chain{auth, table, tokens}
	}
}

// credential makes one for a user's binding by approach 1, good for ten minutes.
func (w *world) credential(t testing.TB, impi turncred.IMPI, b turncred.Binding) turncred.Credential {
	t.Helper()
	return provision(t, w.sharedKey, impi, b, 10*time.Minute)
}

func provision(t testing.TB, p turncred.Provisioner, impi turncred.IMPI, b turncred.Binding, life time.Duration) turncred.Credential {
	t.Helper()
	c, err := p.Provision(context.Background(), turncred.Request{IMPI: impi, Binding: b, Life: life})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// testWriter sends log lines to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimSuffix(b, []byte("\n"))))
	return len(b), nil
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 5 s: %s", what)
}

func (w *world) dropped(why dropReason) int { return int(testutil.ToFloat64(w.metrics.drops[why])) }
