package waf

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/waf/bearer"
)

// visitor is a browser and its page without a network: what is left is our own work.
type visitor struct {
	b       *testing.B
	w       *world
	cookies map[string]string
	addr    string
}

func (v *visitor) do(method, at string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(v.b.Context(), method, at, strings.NewReader(form.Encode()))
	r.RemoteAddr = v.addr
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for name, value := range v.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	rec := httptest.NewRecorder()
	v.w.ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		v.cookies[c.Name] = c.Value
	}
	return rec
}

// login is a whole one: five requests, from the authorization request to the tokens.
func (v *visitor) login() {
	verifier := oauth2.GenerateVerifier()
	at := request(func(q url.Values) {
		q.Set("code_challenge", oauth2.S256ChallengeFromVerifier(verifier))
		q.Set("scope", "stun "+ScopeRegistration)
	})
	form := shown{body: v.do(http.MethodGet, at, nil).Body.String()}.form()
	form.Set("user", "alice")
	form.Set("password", alicePass)
	next := v.do(http.MethodPost, pathSignIn, form).Header().Get("Location")
	form = shown{body: v.do(http.MethodGet, next, nil).Body.String()}.form()
	form.Set("decision", "allow")
	back, err := url.Parse(v.do(http.MethodPost, pathConsent, form).Header().Get("Location"))
	if err != nil {
		v.b.Fatal(err)
	}
	got := v.do(http.MethodPost, pathToken, url.Values{
		"grant_type": {grantAuthorizationCode}, "client_id": {"wic"}, "redirect_uri": {redirectURI}, "code": {back.Query().Get("code")}, "code_verifier": {verifier},
	})
	if got.Code != http.StatusOK {
		v.b.Fatalf("%d %s", got.Code, got.Body)
	}
}

// BenchmarkLogin is code and PKCE with both tokens, in memory: with argon2id as it is
// configured by default, and with next to none of it.
func BenchmarkLogin(b *testing.B) {
	for name, h := range map[string]*Hasher{"without-argon2id": cheap(), "with-argon2id": NewHasher()} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, func(c *Config) { c.Hasher, c.Logger = h, nil })
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					v := &visitor{b: b, w: w, cookies: map[string]string{}, addr: "[2001:db8:" + randomGroup() + ":" + randomGroup() + "::1]:1"}
					v.login()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
		})
	}
}

// randomGroup is 16 bits of an IPv6 address: visitors come from all over.
func randomGroup() string {
	const hex = "0123456789abcdef"
	var b [4]byte
	_, _ = rand.Read(b[:])
	for i := range b {
		b[i] = hex[b[i]%16]
	}
	return string(b[:])
}

func BenchmarkPassword(b *testing.B) {
	h := NewHasher()
	hash, err := h.Hash(turncred.NewSecret([]byte(alicePass)))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if ok, err := h.check(b.Context(), hash, turncred.NewSecret([]byte(alicePass))); !ok || err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is what a registration with a token costs the eP-CSCF.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"EdDSA", "ES256"} {
		b.Run(alg, func(b *testing.B) {
			key, err := NewSigningKey(alg)
			if err != nil {
				b.Fatal(err)
			}
			key.State = store.KeyCurrent
			keys, err := NewSigningKeys(nil, key)
			if err != nil {
				b.Fatal(err)
			}
			w := newWorld(b, func(c *Config) { c.Keys = keys })
			token, err := keys.sign(w.claims(&grant{id: "g", client: store.Client{ID: "wic"}}, identity{IMPI: "alice@ims.test", IMPUs: []string{"sip:alice@ims.test"}}, w.clock.Now()))
			if err != nil {
				b.Fatal(err)
			}
			edge, err := bearer.NewOffline(bearer.Expected{Issuer: w.cfg.Issuer, Audience: testAudience}, keys, nil, w.clock.Now)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := edge.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
