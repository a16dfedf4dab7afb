package bearer

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"epcscf/turncred"
)

// wafKeys serves a JWKS that tests change.
type wafKeys struct {
	*httptest.Server
	asked atomic.Int64
	down  atomic.Bool
	set   atomic.Pointer[jose.JSONWebKeySet]
}

func newWAFKeys(t *testing.T, signers ...signer) *wafKeys {
	t.Helper()
	w := &wafKeys{}
	w.publish(signers...)
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.asked.Add(1)
		if w.down.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(rw).Encode(w.set.Load())
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *wafKeys) publish(signers ...signer) {
	set := &jose.JSONWebKeySet{}
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{KeyID: s.kid, Key: s.public(), Use: "sig", Algorithm: string(s.alg)})
	}
	w.set.Store(set)
}

func TestRemoteKeys(t *testing.T) {
	a, b := newSigner(t, "a", jose.EdDSA), newSigner(t, "b", jose.ES256)
	waf := newWAFKeys(t, a)
	now := noon
	keys := NewRemoteKeys(waf.URL, nil, func() time.Time { return now })
	has := func(kid string, want error) {
		t.Helper()
		if _, err := keys.Key(t.Context(), kid); !errors.Is(err, want) {
			t.Errorf("Key(%s): %v, want %v", kid, err, want)
		}
	}
	asked := func(want int64) {
		t.Helper()
		if n := waf.asked.Load(); n != want {
			t.Errorf("asked %d times, want %d", n, want)
		}
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { has("a", nil) })
	}
	all.Wait()
	asked(1)
	if k, _ := keys.Key(t.Context(), "a"); !a.public().(ed25519.PublicKey).Equal(k) {
		t.Error("another key")
	}
	// Tokens with made-up kids do not reach the WAF each time.
	for range 20 {
		has("b", ErrInvalid)
	}
	asked(1)
	// Rotation: the new kid is found once the pause is over.
	waf.publish(a, b)
	now = now.Add(keysPause)
	has("b", nil)
	asked(2)
	// The WAF is down: what is known goes on, what is not can't be told.
	waf.down.Store(true)
	now = now.Add(keysPause)
	has("c", ErrUnavailable)
	has("a", nil)
	asked(3)
	now = now.Add(keysFresh)
	has("a", nil)
}

func TestRemoteKeysTakesNoPrivateOrForeignKeys(t *testing.T) {
	ed := newSigner(t, "private", jose.EdDSA)
	waf := newWAFKeys(t)
	waf.set.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{KeyID: "private", Key: ed.private}, {KeyID: "enc", Key: ed.public(), Use: "enc"}, {KeyID: "mac", Key: []byte("0123456789abcdef0123456789abcdef")},
	}})
	keys := NewRemoteKeys(waf.URL, nil, at(0))
	for _, kid := range []string{"private", "enc", "mac"} {
		if _, err := keys.Key(t.Context(), kid); !errors.Is(err, ErrInvalid) {
			t.Errorf("Key(%s): %v, want ErrInvalid", kid, err)
		}
	}
}

// wafIntrospection answers for one token.
type wafIntrospection struct {
	*httptest.Server
	asked   atomic.Int64
	revoked atomic.Bool
	down    atomic.Bool
}

func newWAFIntrospection(t *testing.T) *wafIntrospection {
	t.Helper()
	w := &wafIntrospection{}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		id, secret, _ := r.BasicAuth()
		if id != "edge+1" || secret != "s%2F%3A" || w.down.Load() {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.PostFormValue("token") != "good" || w.revoked.Load() {
			_, _ = rw.Write([]byte(`{"active":false}`))
			return
		}
		raw, _ := json.Marshal(claims())
		_, _ = rw.Write(append([]byte(`{"active":true,`), raw[1:]...))
	}))
	t.Cleanup(w.Close)
	return w
}

func TestIntrospection(t *testing.T) {
	waf := newWAFIntrospection(t)
	now := noon
	v, err := NewIntrospection(IntrospectionConfig{
		Expected: wanted, URL: waf.URL, ClientID: "edge 1", Secret: turncred.NewSecret([]byte("s/:")),
		Client: waf.Client(), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(token string, want error) {
		t.Helper()
		c, err := v.Verify(t.Context(), token)
		if !errors.Is(err, want) || err == nil && c.IMPI != "alice@ims.test" || err != nil && c.IMPI != "" {
			t.Errorf("Verify(%s) = %v, %v, want %v", token, c, err, want)
		}
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { verify("good", nil) })
	}
	all.Wait()
	if n := waf.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once: the cache", n)
	}
	verify("bad", ErrInvalid)
	verify("bad", ErrInvalid)
	if n := waf.asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	waf.revoked.Store(true)
	now = now.Add(time.Second) // a revocation is seen after CacheTTL
	verify("good", ErrInvalid)
	waf.revoked.Store(false)
	waf.down.Store(true)
	now = now.Add(time.Second)
	verify("good", ErrUnavailable)
	waf.down.Store(false)
	verify("good", nil)
	now = noon.Add(10*time.Minute + 6*time.Second) // the WAF's clock is slow
	verify("good", ErrInvalid)
	for range 2 * maxCached {
		v.keep([32]byte{byte(len(v.cache)), byte(len(v.cache) >> 8)}, answer{until: now.Add(time.Hour)})
	}
	if len(v.cache) > maxCached {
		t.Errorf("%d answers cached, want %d at most", len(v.cache), maxCached)
	}
}

func TestVerifiersCheckTheirConfig(t *testing.T) {
	if _, err := NewOffline(Expected{Issuer: "https://waf.test"}, staticKeys{}, nil, nil); err == nil {
		t.Error("NewOffline without an audience")
	}
	for _, url := range []string{"", "http://waf.test/introspect", "://"} {
		if _, err := NewIntrospection(IntrospectionConfig{Expected: wanted, URL: url, ClientID: "a", Secret: turncred.NewSecret([]byte("b"))}); err == nil {
			t.Errorf("NewIntrospection with URL %q", url)
		}
	}
}
