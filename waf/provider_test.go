package waf

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"epcscf/store"
	"epcscf/turncred"
)

// operator is an OpenID Connect provider on loopback, at which everyone is signed in.
type operator struct {
	*httptest.Server
	key                 *rsa.PrivateKey
	sub, nonce, code    string
	challenge, audience string
	claims              map[string]any // over what is right
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{sub: "alice"}
	var err error
	if o.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": o.URL, "authorization_endpoint": o.URL + "/auth", "token_endpoint": o.URL + "/token", "jwks_uri": o.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: o.key.Public(), KeyID: "o", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("/auth", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		o.nonce, o.challenge, o.code, o.audience = q.Get("nonce"), q.Get("code_challenge"), rand.Text(), q.Get("client_id")
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {o.code}, "state": {q.Get("state")}, "iss": {o.URL}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "waf" || secret != "s3cret" || r.PostFormValue("code") != o.code || oauth2.S256ChallengeFromVerifier(r.PostFormValue("code_verifier")) != o.challenge {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]string{"error": "invalid_grant"})
			return
		}
		claims := map[string]any{"iss": o.URL, "sub": o.sub, "aud": o.audience, "nonce": o.nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
		for k, v := range o.claims {
			claims[k] = v
		}
		raw, _ := json.Marshal(claims)
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: o.key}, (&jose.SignerOptions{}).WithHeader("kid", "o"))
		if err != nil {
			t.Error(err)
			return
		}
		sig, err := s.Sign(raw)
		if err != nil {
			t.Error(err)
			return
		}
		token, _ := sig.CompactSerialize()
		answer(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": token})
	})
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(o.Close)
	return o
}

// withOperator is a WAF whose users sign in at o.
func withOperator(t *testing.T, o *operator, class string) *world {
	t.Helper()
	return newWorld(t, func(c *Config) {
		c.Provider = &ProviderConfig{Name: "Example Telecom", Issuer: o.URL, ClientID: "waf", Secret: turncred.NewSecret([]byte("s3cret")), Client: o.Client(), Class: class}
	})
}

// visit goes to the provider and returns with its answer; edit may change the way back.
func (b *browser) visit(o *operator, edit func(string) string) shown {
	b.w.t.Helper()
	page := b.get(request(func(q url.Values) { q.Set("scope", "stun "+ScopeRegistration) }))
	_, link, ok := strings.Cut(page.body, `href="/sign-in/provider`)
	if !ok {
		b.w.t.Fatalf("no link to the provider: %s", page.body)
	}
	link, _, _ = strings.Cut(link, `"`)
	there := b.get("/sign-in/provider" + link)
	if there.status != http.StatusSeeOther || !strings.HasPrefix(there.location, o.URL+"/auth?") {
		b.w.t.Fatalf("to the provider: %d %s %s", there.status, there.location, there.body)
	}
	resp, err := (&http.Client{Transport: o.Client().Transport, CheckRedirect: b.CheckRedirect}).Get(there.location)
	if err != nil {
		b.w.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return b.get(edit(resp.Header.Get("Location")))
}

func same(s string) string { return s }

func TestProvider(t *testing.T) {
	o := newOperator(t)
	w := withOperator(t, o, "")
	b := w.browser()
	back := b.visit(o, same)
	if back.status != http.StatusSeeOther {
		t.Fatalf("back: %d %s", back.status, back.body)
	}
	v := b.consent(b.get(back.location), "allow")
	a := w.exchange(v.Get("code"), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").granted(t, "code")
	if a.IMPI != "alice@ims.test" {
		t.Errorf("signed in as %s", a.raw)
	}

	o.sub = "stranger"
	if got := w.browser().visit(o, same); got.status != http.StatusForbidden || !strings.Contains(got.body, "no account here") {
		t.Errorf("a stranger: %d %s", got.status, got.body)
	}
	o.sub = "alice"
	for name, edit := range map[string]func(string) string{
		"another state":  func(s string) string { return strings.Replace(s, "state=", "state=x", 1) },
		"no state":       func(s string) string { return strings.Replace(s, "state=", "x=", 1) },
		"another code":   func(s string) string { return strings.Replace(s, "code=", "code=x", 1) },
		"another issuer": func(s string) string { return strings.Replace(s, "iss=", "iss=x", 1) },
		"denied":         func(s string) string { return s + "&error=access_denied" },
	} {
		if got := w.browser().visit(o, edit); got.status != http.StatusForbidden && got.status != http.StatusBadGateway {
			t.Errorf("%s: %d to %s", name, got.status, got.location)
		}
	}
	for name, claims := range map[string]map[string]any{
		"another nonce": {"nonce": "x"}, "another audience": {"aud": "x"}, "expired": {"exp": 1}, "another's issuer": {"iss": "https://evil.test"}, "no user": {"sub": ""}, "odd user": {"sub": "a b"},
	} {
		o.claims = claims
		if got := w.browser().visit(o, same); got.status != http.StatusBadGateway || !strings.Contains(got.body, "did not sign you in") {
			t.Errorf("%s: %d %s", name, got.status, got.location)
		}
	}
	o.claims = nil
	// Login CSRF: the attacker's way back, in the victim's browser.
	var stolen string
	w.browser().visit(o, func(s string) string { stolen = s; return "/" })
	if got := w.browser().get(stolen); got.status != http.StatusForbidden {
		t.Errorf("another browser's way back: %d to %s", got.status, got.location)
	}
	o.Close()
	if got := withOperator(t, o, "").browser().get("/sign-in/provider?" + url.Values{"request": {strings.TrimPrefix(request(func(url.Values) {}), "/authorize?")}}.Encode()); got.status != http.StatusBadGateway {
		t.Errorf("provider down: %d", got.status)
	}
}

func TestProviderUsersOfAClass(t *testing.T) {
	o := newOperator(t)
	o.sub = "stranger"
	w := withOperator(t, o, "guests")
	if err := w.store.AddIdentity(t.Context(), store.LentIdentity{IMPI: "guest1@ims.test", IMPUs: []string{"sip:guest1@ims.test"}, Class: "guests"}); err != nil {
		t.Fatal(err)
	}
	b := w.browser()
	v := b.consent(b.get(b.visit(o, same).location), "allow")
	a := w.exchange(v.Get("code"), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").granted(t, "code")
	if r := w.refresh(a.RefreshToken).granted(t, "refresh"); a.IMPI != "guest1@ims.test" || r.IMPI != a.IMPI {
		t.Errorf("lent %s, then %s", a.IMPI, r.IMPI)
	}
	// An account that is disabled is not one of a class.
	w.addUser(NewUser{Name: "off", Class: "guests"})
	off, err := w.store.User(t.Context(), "off")
	if err != nil {
		t.Fatal(err)
	}
	off.Disabled = true
	if err := w.store.SetUser(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	o.sub = "off"
	if got := w.browser().visit(o, same); got.status != http.StatusForbidden {
		t.Errorf("disabled: %d to %s", got.status, got.location)
	}
}
