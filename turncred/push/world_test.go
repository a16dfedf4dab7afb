package push

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"epcscf/turncred"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testDomain                = "ims.test"
	testRealm  turncred.Realm = "ims.test"
)

// authority is one for all tests.
var authority = sync.OnceValue(func() *Authority {
	a, err := NewAuthority(testDomain, time.Hour, time.Now())
	if err != nil {
		panic(err)
	}
	return a
})

// keysOf issues a certificate of the authority.
func keysOf(t testing.TB, a *Authority, role Role, name string, life time.Duration) *FixedKeys {
	t.Helper()
	cert, key, err := a.Issue(Peer{testDomain, role, name}, []string{"127.0.0.1"}, life, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return &FixedKeys{Pair: pair, Pool: poolOf(t, a)}
}

func poolOf(t testing.TB, as ...*Authority) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	for _, a := range as {
		if !pool.AppendCertsFromPEM(a.PEM()) {
			t.Fatal("no certificate in the authority's PEM")
		}
	}
	return pool
}

// changingKeys are Keys that a test renews.
type changingKeys struct{ now atomic.Pointer[FixedKeys] }

func changing(k *FixedKeys) *changingKeys {
	c := &changingKeys{}
	c.now.Store(k)
	return c
}

func (c *changingKeys) Certificate() *tls.Certificate { return &c.now.Load().Pair }
func (c *changingKeys) Authorities() *x509.CertPool   { return c.now.Load().Pool }

// memoryLog is a CredentialLog and a disk that may fail.
type memoryLog struct {
	mu      sync.Mutex
	records []Record
	err     error
}

func (l *memoryLog) Put(_ context.Context, rs []Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.records = append(l.records, rs...)
	}
	return l.err
}

func (l *memoryLog) Load(_ context.Context, f func(Record) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// memoryRevoker is what a relay keeps of revocations.
type memoryRevoker struct {
	mu  sync.Mutex
	all []turncred.Revocation
	err error
}

func (v *memoryRevoker) Revoke(_ context.Context, r turncred.Revocation) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err == nil {
		v.all = append(v.all, r)
	}
	return v.err
}

func (v *memoryRevoker) revoked(tid turncred.Tid, id turncred.Identity) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.all {
		if r.Hits(tid, id) {
			return true
		}
	}
	return false
}

// relayWorld is a relay's side of the interface on loopback. Each exchange is held against
// the OpenAPI document.
type relayWorld struct {
	*Server
	addr    string
	table   *Table
	log     *memoryLog
	revoker *memoryRevoker
	events  *EventLog
	keys    *changingKeys
	checked *exchanges
}

func startRelay(t testing.TB, change func(*ServerConfig)) *relayWorld {
	t.Helper()
	w := &relayWorld{log: &memoryLog{}, revoker: &memoryRevoker{}, keys: changing(keysOf(t, authority(), RoleRelay, "relay1", time.Hour)), checked: &exchanges{t: t}}
	var err error
	if w.events, err = NewEventLog(nil); err != nil {
		t.Fatal(err)
	}
	if w.table, err = OpenTable(t.Context(), testRealm, w.log, nil); err != nil {
		t.Fatal(err)
	}
	cfg := ServerConfig{Domain: testDomain, Name: "relay1", Realm: testRealm, Keys: w.keys, Table: w.table, Revoker: w.revoker, Events: w.events}
	if change != nil {
		change(&cfg)
	}
	if w.Server, err = NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	w.http.Handler = w.checked.handler(w.http.Handler)
	w.addr = serve(t, w.Server, "127.0.0.1:0")
	return w
}

// serve runs a server until the test ends.
func serve(t testing.TB, s *Server, addr string) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// client returns one of a role and name, with a certificate of the authority.
func (w *relayWorld) client(t testing.TB, role Role, name string, epoch uint64) *Client {
	t.Helper()
	return w.clientWith(t, keysOf(t, authority(), role, name, time.Hour), name, epoch)
}

func (w *relayWorld) clientWith(t testing.TB, k Keys, name string, epoch uint64) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Address: w.addr, Domain: testDomain, Name: name, Epoch: epoch, Keys: k, transport: w.checked.transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// records makes n credentials of a user each, good for an hour.
func records(t testing.TB, n int) []Record {
	t.Helper()
	codec, err := turncred.NewTidCodec(turncred.NewSecret([]byte(strings.Repeat("d", turncred.MinSecretLen))))
	if err != nil {
		t.Fatal(err)
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: testRealm, URIs: []string{"turn:x"}, Revoker: noRevoker{}})
	if err != nil {
		t.Fatal(err)
	}
	var rs []Record
	keep := sinkFunc(func(_ context.Context, r Record) error {
		rs = append(rs, r)
		return nil
	})
	is := NewIssuer(m, "p1", keep)
	for i := range n {
		if _, err := is.Provision(t.Context(), turncred.Request{IMPI: turncred.IMPI(fmt.Sprintf("user%d@ims.test", i)), Binding: 7, Life: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	return rs
}

// alive reports whether the relay would take a credential.
func (w *relayWorld) alive(r Record) bool {
	p, err := w.table.Authenticate(r.Username, time.Now())
	return err == nil && p.Key.Equal(r.Key) && !w.revoker.revoked(r.Tid, r.Identity)
}

// eventually polls until is holds.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// in reports whether status is one of a few.
func in(status int, all ...int) bool {
	for _, s := range all {
		if s == status {
			return true
		}
	}
	return false
}

// chain is what a peer shows.
func (k *FixedKeys) chain() []*x509.Certificate { return []*x509.Certificate{k.Pair.Leaf} }
