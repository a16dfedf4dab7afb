package turncheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"epcscf/relay"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const realm turncred.Realm = "ims.test"

// world is a relay on loopback that denies loopback peers, as any relay does by default,
// and a credential for it.
type world struct {
	udp, tcp, tls string
	cred          Credential
	roots         *x509.CertPool
}

func newWorld(t *testing.T) world {
	t.Helper()
	table := push.NewTable(realm, nil)
	srv, err := relay.New(relay.Config{Realm: realm, Auth: table, RelayIP: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, secure := listen(t), listen(t)
	pki := httptest.NewTLSServer(nil) // for its certificate
	roots := x509.NewCertPool()
	roots.AddCert(pki.Certificate())
	cert := pki.TLS.Certificates
	pki.Close()

	done := make(chan error, 3)
	go func() { done <- srv.ServeUDP(udp) }()
	go func() { done <- srv.ServeTCP(tcp) }()
	go func() {
		done <- srv.ServeTLS(secure, &tls.Config{Certificates: cert, MinVersion: tls.VersionTLS12})
	}()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})

	deployment := turncred.NewSecret([]byte(strings.Repeat("d", turncred.MinSecretLen)))
	codec, err := turncred.NewTidCodec(deployment)
	if err != nil {
		t.Fatal(err)
	}
	minter, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: realm, URIs: []string{"turn:x"}, Revoker: srv})
	if err != nil {
		t.Fatal(err)
	}
	c, err := push.NewIssuer(minter, "k1", table).Provision(t.Context(), turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return world{
		udp: udp.LocalAddr().String(), tcp: tcp.Addr().String(), tls: secure.Addr().String(),
		cred: Credential{c.Username, c.Password, realm}, roots: roots,
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	for _, uri := range []string{"turn:" + w.udp, "turn:" + w.tcp + "?transport=tcp", "turns:" + w.tls + "?transport=tcp", "turns:" + w.tls} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if r := Check(ctx, uri, w.cred, w.roots); r.Err != nil || r.Relayed == "" || r.Allocate <= 0 || r.RoundTrip <= 0 {
			t.Errorf("Check(%s) = %+v", uri, r)
		}
		cancel()
	}
}

func TestCheckFails(t *testing.T) {
	w := newWorld(t)
	wrong := w.cred
	wrong.Password = turncred.NewSecret([]byte("wrong"))
	closed := listen(t)
	_ = closed.Close()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	hangsUp := listen(t)
	go func() {
		for {
			c, err := hangsUp.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for _, tt := range []struct {
		name, uri string
		cred      Credential
		roots     *x509.CertPool
		want      string
	}{
		{"wrong password", "turn:" + w.udp, wrong, nil, "error 401: the relay refuses the credential"},
		{"closed UDP port", "turn:" + closed.Addr().String(), w.cred, nil, "connection refused"},
		{"closed TCP port", "turn:" + closed.Addr().String() + "?transport=tcp", w.cred, nil, "connection refused"},
		{"silence", "turn:" + silent.LocalAddr().String(), w.cred, nil, "no answer from"},
		{"hangs up", "turn:" + hangsUp.Addr().String() + "?transport=tcp", w.cred, nil, "allocate"},
		{"unknown authority", "turns:" + w.tls, w.cred, x509.NewCertPool(), "use --ca DIR/ca.pem"},
		{"another name", strings.Replace("turns:"+w.tls, "127.0.0.1", "localhost", 1), w.cred, w.roots, "does not speak for localhost"},
		{"no TLS", "turns:" + w.tcp, w.cred, w.roots, w.tcp},
		{"no URI", "stun:" + w.udp, w.cred, nil, "RFC 7065"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timeout := 20 * time.Second
			if tt.name == "silence" {
				timeout = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			r := Check(ctx, tt.uri, tt.cred, tt.roots)
			if r.Err == nil || !strings.Contains(r.Err.Error(), tt.want) {
				t.Errorf("Check(%s) = %v, want an error with %q", tt.uri, r.Err, tt.want)
			}
			if r.Err != nil && strings.Contains(r.Err.Error(), string(tt.cred.Password.Reveal())) {
				t.Errorf("the error shows the password: %v", r.Err)
			}
		})
	}
}

func TestParseURI(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want uri
		bad  bool
	}{
		{in: "turn:relay.test", want: uri{false, "udp", "relay.test", "relay.test:3478"}},
		{in: "turns:relay.test", want: uri{true, "tcp", "relay.test", "relay.test:5349"}},
		{in: "turn:192.0.2.1:9?transport=tcp", want: uri{false, "tcp", "192.0.2.1", "192.0.2.1:9"}},
		{in: "turn:[2001:db8::1]:9?transport=udp", want: uri{false, "udp", "2001:db8::1", "[2001:db8::1]:9"}},
		{in: "turns:relay.test?transport=udp", bad: true},
		{in: "turn:relay.test?transport=sctp", bad: true},
		{in: "turn:relay.test:0", bad: true},
		{in: "turn:relay.test:99999", bad: true},
		{in: "turn:", bad: true},
		{in: "turn:0]", bad: true},
		{in: "turn:relay test", bad: true},
		{in: "turn://relay.test", bad: true},
		{in: "stun:relay.test", bad: true},
		{in: "", bad: true},
	} {
		got, err := parseURI(tt.in)
		if (err != nil) != tt.bad || got != tt.want {
			t.Errorf("parseURI(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

// FuzzParseURI: a URI comes out of a header of the server's.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"turn:relay.test", "turns:[::1]:1?transport=tcp", "turn:%", "turn:[::1", "turn:0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseURI(s)
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(u.addr); err != nil {
			t.Errorf("parseURI(%q) = %+v: %v", s, u, err)
		}
	})
}
