package waf

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"epcscf/waf/bearer"
)

const goodChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636 Appendix B

// request is an authorization request that holds, but for what edit does.
func request(edit func(url.Values)) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {"wic"}, "redirect_uri": {redirectURI}, "state": {"s1"}, "scope": {"stun"},
		"aud": {serverName}, "code_challenge": {goodChallenge}, "code_challenge_method": {"S256"},
	}
	edit(q)
	return "/authorize?" + q.Encode()
}

func TestRedirectURIMustBeRegistered(t *testing.T) {
	w := newWorld(t, nil)
	for _, uri := range []string{
		"", "https://evil.test/callback?page=1",
		"https://phone.test:443/callback?page=1", "https://phone.test:8443/callback?page=1", // port
		"https://PHONE.test/callback?page=1", "HTTPS://phone.test/callback?page=1", "https://phone.test/Callback?page=1", // case
		"https://phone.test/callback/?page=1", "https://phone.test/callback/../callback?page=1", "https://phone.test/%63allback?page=1", // path
		"https://phone.test/callback", "https://phone.test/callback?page=1&x=2", "https://phone.test/callback?page=2",
		"https://phone.test/callback?page=1#", "https://phone.test/callback?page=1#f", // fragment
		"https://user@phone.test/callback?page=1", "https://phone.test@evil.test/callback?page=1", // userinfo
		"http://phone.test/callback?page=1", "//phone.test/callback?page=1", "https://phone.test.evil.test/callback?page=1",
		"https://phone.test\\@evil.test/callback?page=1", " " + redirectURI, redirectURI + "\n", "javascript:alert(1)",
	} {
		got := w.browser().get(request(func(q url.Values) { q.Set("redirect_uri", uri) }))
		if got.status != http.StatusBadRequest || got.location != "" || !strings.Contains(got.body, "The application made a mistake") {
			t.Errorf("redirect_uri %q: %d to %q", uri, got.status, got.location)
		}
	}
	for name, edit := range map[string]func(url.Values){
		"unknown client":    func(q url.Values) { q.Set("client_id", "WIC") },
		"no client":         func(q url.Values) { q.Del("client_id") },
		"client twice":      func(q url.Values) { q.Add("client_id", "wic") },
		"redirect twice":    func(q url.Values) { q.Add("redirect_uri", redirectURI) },
		"odd client":        func(q url.Values) { q.Set("client_id", "wic\x00") },
		"very long":         func(q url.Values) { q.Set("x", strings.Repeat("x", maxQuery)) },
		"client's SQL name": func(q url.Values) { q.Set("client_id", "wic'--") },
	} {
		if got := w.browser().get(request(edit)); got.status != http.StatusBadRequest || got.location != "" {
			t.Errorf("%s: %d to %q", name, got.status, got.location)
		}
	}
	if got := w.browser().get("/authorize?client_id=wic&redirect_uri=%zz"); got.status != http.StatusBadRequest {
		t.Errorf("malformed: %d", got.status)
	}
}

func TestAuthorizationRequestsRefused(t *testing.T) {
	w := newWorld(t, nil)
	for _, tt := range []struct {
		name string
		edit func(url.Values)
		want ErrorCode
	}{
		{"no PKCE", func(q url.Values) { q.Del("code_challenge") }, InvalidRequest},
		{"plain PKCE", func(q url.Values) { q.Set("code_challenge_method", "plain") }, InvalidRequest},
		{"plain PKCE by default", func(q url.Values) { q.Del("code_challenge_method") }, InvalidRequest},
		{"s256", func(q url.Values) { q.Set("code_challenge_method", "s256") }, InvalidRequest},
		{"short challenge", func(q url.Values) { q.Set("code_challenge", goodChallenge[:42]) }, InvalidRequest},
		{"padded challenge", func(q url.Values) { q.Set("code_challenge", goodChallenge+"=") }, InvalidRequest},
		{"challenge in base64", func(q url.Values) { q.Set("code_challenge", goodChallenge[:42]+"+") }, InvalidRequest},
		{"no response type", func(q url.Values) { q.Del("response_type") }, InvalidRequest},
		{"hybrid", func(q url.Values) { q.Set("response_type", "code token") }, UnsupportedResponseType},
		{"implicit", func(q url.Values) { q.Set("response_type", "token") }, UnsupportedResponseType},
		{"unknown scope", func(q url.Values) { q.Set("scope", "stun openid") }, InvalidScope},
		{"unknown aud", func(q url.Values) { q.Set("aud", "turn.evil.test") }, InvalidTarget},
		{"aud in other case", func(q url.Values) { q.Set("aud", strings.ToUpper(serverName)) }, InvalidTarget},
		{"two resources", func(q url.Values) { q.Set("resource", "turn:other.test") }, InvalidTarget},
		{"aud twice", func(q url.Values) { q.Add("aud", serverName) }, InvalidRequest},
		{"state twice", func(q url.Values) { q.Add("state", "s2") }, InvalidRequest},
		{"bearer tokens", func(q url.Values) { q.Set("token_type", "bearer") }, InvalidRequest},
		{"unknown alg", func(q url.Values) { q.Set("alg", "none") }, InvalidRequest},
		{"long state", func(q url.Values) { q.Set("state", strings.Repeat("s", maxState+1)) }, InvalidRequest},
	} {
		got := w.browser().get(request(tt.edit))
		u, err := url.Parse(got.location)
		if err != nil || got.status != http.StatusSeeOther || !strings.HasPrefix(got.location, redirectURI) {
			t.Errorf("%s: %d to %q", tt.name, got.status, got.location)
			continue
		}
		q := u.Query()
		if u.Fragment != "" {
			q, _ = url.ParseQuery(u.Fragment)
		}
		if ErrorCode(q.Get("error")) != tt.want || q.Get("iss") != w.cfg.Issuer || q.Get("state") != "s1" && tt.name != "long state" || q.Has("code") {
			t.Errorf("%s: the client gets %v, want %s", tt.name, q, tt.want)
		}
	}
	// What is left out or repeated without harm.
	for name, edit := range map[string]func(url.Values){
		"one relay needs no aud": func(q url.Values) { q.Del("aud") },
		"resource for aud":       func(q url.Values) { q.Del("aud"); q.Set("resource", "turn:"+serverName) },
		"both, the same":         func(q url.Values) { q.Set("resource", "turns:"+serverName) },
		"no state":               func(q url.Values) { q.Del("state") },
		"something unknown":      func(q url.Values) { q.Set("prompt", "x") }, // RFC 6749 §3.1
	} {
		if got := w.browser().get(request(edit)); got.status != http.StatusOK || !strings.Contains(got.body, "Sign in") {
			t.Errorf("%s: %d to %q", name, got.status, got.location)
		}
	}
}

func TestCodesRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.addClient(NewClient{ID: "other", Name: "Other", RedirectURIs: []string{redirectURI}, Scopes: []string{ScopeSTUN}})
	for _, tt := range []struct {
		name string
		edit func(url.Values)
		want ErrorCode
	}{
		{"another client's", func(v url.Values) { v.Set("client_id", "other") }, InvalidGrant},
		{"unknown client", func(v url.Values) { v.Set("client_id", "nobody") }, InvalidClient},
		{"no verifier", func(v url.Values) { v.Del("code_verifier") }, InvalidGrant},
		{"another verifier", func(v url.Values) { v.Set("code_verifier", oauth2.GenerateVerifier()) }, InvalidGrant},
		{"the challenge as verifier", func(v url.Values) { v.Set("code_verifier", oauth2.S256ChallengeFromVerifier(v.Get("code_verifier"))) }, InvalidGrant},
		{"another redirect URI", func(v url.Values) { v.Set("redirect_uri", "https://phone.test/callback") }, InvalidGrant},
		{"no redirect URI", func(v url.Values) { v.Del("redirect_uri") }, InvalidGrant},
		{"no code", func(v url.Values) { v.Del("code") }, InvalidGrant},
		{"code twice in the form", func(v url.Values) { v.Add("code", "x") }, InvalidRequest},
		{"as a refresh token", func(v url.Values) { v.Set("grant_type", "refresh_token"); v.Set("refresh_token", v.Get("code")) }, InvalidGrant},
		{"no grant type", func(v url.Values) { v.Del("grant_type") }, InvalidRequest},
		{"password grant", func(v url.Values) { v.Set("grant_type", "password") }, UnsupportedGrantType},
		{"implicit grant", func(v url.Values) { v.Set("grant_type", "implicit") }, UnsupportedGrantType},
		{"a secret of a public client", func(v url.Values) { v.Set("client_secret", "x") }, InvalidClient},
		{"another aud", func(v url.Values) { v.Set("aud", "turn.evil.test") }, InvalidTarget},
	} {
		code, verifier := w.code(ScopeSTUN)
		w.exchange(code, verifier, tt.edit).refused(t, tt.name, tt.want)
	}
	code, verifier := w.code(ScopeSTUN)
	w.clock.advance(w.cfg.CodeLife)
	w.exchange(code, verifier).refused(t, "expired", InvalidGrant)

	code, verifier = w.code(ScopeSTUN)
	if a := w.call("/token?code="+code, url.Values{"grant_type": {"authorization_code"}, "client_id": {"wic"}, "code_verifier": {verifier}}); a.Code != InvalidRequest {
		t.Errorf("a code in the URL: %s", a.raw)
	}
	if got := w.browser().get("/token?grant_type=authorization_code&code=" + code); got.status == http.StatusOK || strings.Contains(got.body, "access_token") {
		t.Errorf("GET: %d %s", got.status, got.body)
	}
}

// Of many who bring one code at once, one is answered; and all that it got is revoked.
func TestCodeTwice(t *testing.T) {
	w := newWorld(t, nil)
	code, verifier := w.code(ScopeSTUN, ScopeRegistration)
	first := w.exchange(code, verifier).granted(t, "code")
	if _, err := w.edge.Verify(t.Context(), first.AccessToken); err != nil {
		t.Fatal(err)
	}
	w.exchange(code, verifier).refused(t, "twice", InvalidGrant)
	w.wasRevoked(t, first.AccessToken, "alice@ims.test")
	w.refresh(first.RefreshToken).refused(t, "refresh afterwards", InvalidGrant)

	code, verifier = w.code(ScopeSTUN)
	var good atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if w.exchange(code, verifier).status == http.StatusOK {
				good.Add(1)
			}
		})
	}
	all.Wait()
	if good.Load() > 1 {
		t.Errorf("%d of 8 got tokens for one code", good.Load())
	}
}

// The relay's and the edge's part of the list: a token out of its time, for another relay,
// and clocks that differ.
func TestTokensOutOfPlace(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Relays = append(c.Relays, Relay{Name: "turn2.ims.test", URIs: []string{"turn:turn2.ims.test"}, Tokens: c.Relays[0].Tokens})
	})
	w.cfg.Relays[1].Tokens = w.issuer("turn2.ims.test")
	verifier := oauth2.GenerateVerifier()
	code := w.authorize(w.config(ScopeSTUN).AuthCodeURL("s", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("aud", "turn2.ims.test"))).Get("code")
	other := w.exchange(code, verifier).granted(t, "for the other relay")
	if _, err := w.relay.Authenticate(other.ICEServers[0].Username, w.clock.Now()); err == nil {
		t.Error("the relay takes a token for another")
	}
	a := w.exchange(w.code(ScopeSTUN, ScopeRegistration)).granted(t, "code")
	life := time.Duration(a.TURN.ExpiresIn) * time.Second
	for _, tt := range []struct {
		after      time.Duration
		relay      bool
		edge       bool
		edgeExpiry time.Duration
	}{
		{after: -30 * time.Second}, {after: -4 * time.Second, relay: true, edge: true}, {after: 0, relay: true, edge: true},
		{after: 10*time.Minute + 4*time.Second, relay: true, edge: true}, {after: 10*time.Minute + 6*time.Second, relay: true},
		{after: life + 4*time.Second, relay: true}, {after: life + 6*time.Second},
	} {
		at := w.clock.Now().Add(tt.after)
		if _, err := w.relay.Authenticate(a.TURN.ICEServers[0].Username, at); (err == nil) != tt.relay {
			t.Errorf("after %v the relay says %v", tt.after, err)
		}
		v, err := bearer.NewOffline(bearer.Expected{Issuer: w.cfg.Issuer, Audience: testAudience}, w.cfg.Keys, nil, func() time.Time { return at })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), a.AccessToken); (err == nil) != tt.edge {
			t.Errorf("after %v the edge says %v", tt.after, err)
		}
	}
}

func TestRedirectURIsThatMayBeRegistered(t *testing.T) {
	for _, uri := range []string{
		redirectURI, "https://phone.test", "https://phone.test:8443/a", "http://127.0.0.1:8080/cb", "http://localhost/cb", "http://[::1]:8080/", "com.example.app:/cb",
	} {
		if err := CheckRedirectURI(uri); err != nil {
			t.Errorf("CheckRedirectURI(%q): %v", uri, err)
		}
	}
	for _, uri := range []string{
		"", "http://phone.test/cb", "https:///cb", "https://phone.test/cb#", "https://phone.test/cb#x", "https://u:p@phone.test/cb", "javascript:alert(1)",
		"data:text/html,x", "app:/cb", "https://phone.test/ cb", "https://phone.test/\ncb", "https://phöne.test/", "/cb", "https://a;script-src/", "https://a'b/",
		"https://phone.test/" + strings.Repeat("a", maxRedirectURI), "file:///etc/passwd", "https://phone.test/<x>", "com.example.app://host/cb",
	} {
		if CheckRedirectURI(uri) == nil {
			t.Errorf("CheckRedirectURI(%q): want an error", uri)
		}
	}
}

func TestVerifier(t *testing.T) {
	// RFC 7636 Appendix B
	if !verifies("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", goodChallenge) {
		t.Error("the RFC's verifier")
	}
	for _, v := range []string{"", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjX", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl", strings.Repeat("a", 129), "dBjftJeZ4CVP mB92K27uhbUJU1p1r_wW1gFWFOEjXk"} {
		if verifies(v, goodChallenge) {
			t.Errorf("verifies(%q)", v)
		}
	}
}

func FuzzAuthorizationRequest(f *testing.F) {
	w := newWorld(f, func(c *Config) { c.AllowImplicit = true })
	for _, seed := range []string{
		strings.TrimPrefix(request(func(url.Values) {}), "/authorize?"), "", "a=b&a=c", "client_id=wic", "client_id=wic&redirect_uri=" + url.QueryEscape(redirectURI),
		"response_type=token&client_id=wic&redirect_uri=" + url.QueryEscape(redirectURI) + "&scope=stun", "%", ";", "client_id=%00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		a, err := w.parseAuthorization(t.Context(), query)
		if a == nil || a.redirectURI == "" {
			if err == nil {
				t.Fatal("neither a request nor an error")
			}
			return
		}
		// Wherever an answer leads, it is where the client registered; and what is granted
		// is what was allowed.
		if err != nil {
			if a.redirectURI != redirectURI {
				if !errors.As(err, new(*badClientError)) {
					t.Fatalf("%v would be sent to %q", err, a.redirectURI)
				}
			}
			return
		}
		if a.redirectURI != redirectURI || a.client.ID != "wic" || len(a.scopes) == 0 || a.audience != "" && a.audience != serverName ||
			a.responseType == ResponseCode && len(a.challenge) != challengeLen || len(a.state) > maxState {
			t.Fatalf("took %q as %+v", query, a)
		}
	})
}
