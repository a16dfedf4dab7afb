package stunkey

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"epcscf/internal/realpart"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/token"
)

const domain = "ims.test"

var authority = sync.OnceValue(func() *push.Authority {
	a, err := push.NewAuthority(domain, time.Hour, time.Now())
	if err != nil {
		panic(err)
	}
	return a
})

func keysOf(t *testing.T, a *push.Authority, role push.Role, name string) *push.FixedKeys {
	t.Helper()
	cert, key, err := a.Issue(push.Peer{Domain: domain, Role: role, Name: name}, []string{"127.0.0.1"}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority().PEM())
	return &push.FixedKeys{Pair: pair, Pool: pool}
}

func secret(b byte) turncred.Secret { return turncred.NewSecret(bytes.Repeat([]byte{b}, 32)) }

// wafSide is a WAF with keys that tests change.
type wafSide struct {
	*httptest.Server
	keys atomic.Pointer[[]token.Key]
	now  atomic.Int64
	log  realpart.Output
}

func (w *wafSide) Now() time.Time            { return time.Unix(w.now.Load(), 0) }
func (w *wafSide) advance(d time.Duration)   { w.now.Add(int64(d / time.Second)) }
func (w *wafSide) publish(keys ...token.Key) { w.keys.Store(&keys) }

func newWAF(t *testing.T, role push.Role) *wafSide {
	t.Helper()
	w := &wafSide{}
	w.now.Store(time.Now().Unix())
	w.publish()
	h, err := NewHandler(HandlerConfig{
		Domain: domain, Relays: map[string][]string{"turn1.test": {"relay1"}, "turn2.test": {"relay2"}},
		Keys: func(string) []token.Key { return *w.keys.Load() }, Now: w.Now, Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Server = httptest.NewUnstartedServer(h)
	w.TLS = push.ServerTLS(keysOf(t, authority(), role, "waf1"))
	w.EnableHTTP2 = true
	w.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.StartTLS()
	t.Cleanup(w.Close)
	return w
}

func client(t *testing.T, w *wafSide, name string, keys push.Keys, use func([]token.Key) error) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{URL: w.URL, Name: name, Domain: domain, Keys: keys, Use: use, Now: w.Now, Logger: slog.New(slog.NewTextHandler(&w.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// seal makes a token as the WAF does with k.
func seal(t *testing.T, k token.Key, now time.Time) []byte {
	t.Helper()
	s, err := token.NewSealer(k, "turn1.test")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Seal(token.Claims{MACKey: turncred.NewSecret(make([]byte, 20)), Issued: now, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A relay has each key before tokens are made with it, and keeps it until the last has ended.
func TestRelayFollowsTheKeys(t *testing.T) {
	w := newWAF(t, push.RoleWAF)
	var ring *token.KeyRing
	c := client(t, w, "turn1.test", keysOf(t, authority(), push.RoleRelay, "relay1"), func(all []token.Key) (err error) { ring, err = token.NewKeyRing(all...); return err })
	opens := func(k token.Key, want bool) {
		t.Helper()
		if _, err := ring.Open(k.ID, "turn1.test", seal(t, k, w.Now())); (err == nil) != want {
			t.Errorf("token under %s: %v", k.ID, err)
		}
	}
	renew := func() time.Duration {
		t.Helper()
		wait, err := c.renew(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return wait
	}
	start := w.Now()
	old := token.Key{ID: "old", Secret: secret(1), NotAfter: start.Add(time.Hour)}
	next := token.Key{ID: "next", Secret: secret(2), Algorithm: token.A128GCM, NotBefore: start.Add(time.Hour), NotAfter: start.Add(2 * time.Hour)}
	w.publish(old, next)
	if wait := renew(); wait > askEvery {
		t.Errorf("asks again after %v, want %v at most", wait, askEvery)
	}
	opens(old, true)
	opens(next, false)
	w.advance(46 * time.Minute) // the next key is handed out a quarter of an hour ahead
	renew()
	opens(old, true)
	opens(next, true)
	w.advance(time.Hour)
	renew()
	opens(old, true) // a token of its last minute lives for an hour
	w.advance(14*time.Minute + 6*time.Second)
	w.publish(token.Key{ID: "last", Secret: secret(3)})
	renew()
	opens(old, false)
	opens(next, true)
	if strings.Contains(w.log.String(), "AQEBAQEB") {
		t.Error("the log shows a key")
	}
}

func TestRelayKeepsWhatItHas(t *testing.T) {
	w := newWAF(t, push.RoleWAF)
	var ring *token.KeyRing
	c := client(t, w, "turn1.test", keysOf(t, authority(), push.RoleRelay, "relay1"), func(all []token.Key) (err error) { ring, err = token.NewKeyRing(all...); return err })
	good := token.Key{ID: "good", Secret: secret(1)}
	w.publish(good)
	if _, err := c.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]token.Key{
		"no key": {}, "the kid of another": {{ID: "good", Secret: secret(2)}}, "too short": {{ID: "short", Secret: turncred.NewSecret([]byte("x"))}},
		"ended": {{ID: "ended", Secret: secret(1), NotAfter: w.Now()}}, "foreign": {{ID: "foreign", Secret: secret(1), Foreign: true}},
		"kid": {{ID: "a-b", Secret: secret(1)}}, "algorithm": {{ID: "alg", Secret: secret(1), Algorithm: "A256CBC-HS512"}},
	} {
		w.publish(bad...)
		if _, err := c.renew(t.Context()); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := ring.Open("good", "turn1.test", seal(t, good, w.Now())); err != nil {
			t.Errorf("%s: the key that was there is gone", name)
		}
	}
}

func TestOnlyTheRelayGetsItsKeys(t *testing.T) {
	w := newWAF(t, push.RoleWAF)
	w.publish(token.Key{ID: "k", Secret: secret(1)})
	elsewhere, err := push.NewAuthority(domain, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		keys *push.FixedKeys
		name string
	}{
		"another relay's": {keysOf(t, authority(), push.RoleRelay, "relay1"), "turn2.test"}, "nobody's": {keysOf(t, authority(), push.RoleRelay, "relay1"), "turn3.test"},
		"an edge": {keysOf(t, authority(), push.RoleEdge, "relay1"), "turn1.test"}, "another authority's": {keysOf(t, elsewhere, push.RoleRelay, "relay1"), "turn1.test"},
	} {
		if _, err := client(t, w, tt.name, tt.keys, func([]token.Key) error { return nil }).renew(t.Context()); err == nil {
			t.Errorf("%s: got a key", name)
		}
	}
	// Without a certificate there is no handshake, and without TLS no key.
	if resp, err := http.Get("https://" + strings.TrimPrefix(w.URL, "https://") + Path); err == nil {
		_ = resp.Body.Close()
		t.Error("no certificate: answered")
	}
	rec := httptest.NewRecorder()
	w.Config.Handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, Path+"?service=stun&name=turn1.test", nil))
	if rec.Code != http.StatusForbidden {
		t.Errorf("without TLS: %d, want 403", rec.Code)
	}
	// Who is not the WAF is told nothing, and gives no keys.
	other := newWAF(t, push.RoleRelay)
	other.publish(token.Key{ID: "k", Secret: secret(1)})
	if _, err := client(t, other, "turn1.test", keysOf(t, authority(), push.RoleRelay, "relay1"), func([]token.Key) error { return nil }).renew(t.Context()); err == nil {
		t.Error("a relay gave keys")
	}
}

func TestRunAsksAgain(t *testing.T) {
	w := newWAF(t, push.RoleWAF)
	used := make(chan struct{}, 8)
	c := client(t, w, "turn1.test", keysOf(t, authority(), push.RoleRelay, "relay1"), func([]token.Key) error { used <- struct{}{}; return nil })
	waits, fire := make(chan time.Duration, 8), make(chan time.Time)
	c.after = func(d time.Duration) <-chan time.Time { waits <- d; return fire }
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	next := func() time.Duration {
		t.Helper()
		select {
		case d := <-waits:
			return d
		case <-time.After(10 * time.Second):
			t.Fatal("Run does not wait")
			return 0
		}
	}
	if d := next(); d > 2*time.Second { // no key yet: soon
		t.Errorf("after a failure it waits %v", d)
	}
	fire <- time.Time{}
	if d := next(); d < 2*time.Second { // later each time
		t.Errorf("after two failures it waits %v", d)
	}
	w.publish(token.Key{ID: "k", Secret: secret(1), NotAfter: w.Now().Add(4 * time.Minute)})
	fire <- time.Time{}
	if d := next(); d > 3*time.Minute { // well before exp
		t.Errorf("it waits %v for the end of a key of four minutes", d)
	}
	<-used
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestConfigs(t *testing.T) {
	if _, err := NewHandler(HandlerConfig{}); err == nil {
		t.Error("an empty HandlerConfig")
	}
	keys := &push.FixedKeys{}
	use := func([]token.Key) error { return errors.New("") }
	for _, url := range []string{"", "http://waf.test", "https://", "https://waf.test/path"} {
		if _, err := NewClient(ClientConfig{URL: url, Name: "a", Domain: "b", Keys: keys, Use: use}); err == nil {
			t.Errorf("URL %q", url)
		}
	}
	if _, err := NewClient(ClientConfig{URL: "https://waf.test"}); err == nil {
		t.Error("an empty ClientConfig")
	}
}
