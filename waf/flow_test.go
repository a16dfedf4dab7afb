package waf

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"epcscf/turncred"
)

// An independent client completes code and PKCE, and the tokens are good where they go.
func TestCodeAndPKCE(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, w.web.Client())
	for _, tt := range []struct {
		name   string
		scopes []string
	}{{"turn", []string{ScopeSTUN}}, {"registration", []string{ScopeRegistration}}, {"both", []string{ScopeSTUN, ScopeRegistration}}} {
		cfg, verifier := w.config(tt.scopes...), oauth2.GenerateVerifier()
		got := w.authorize(cfg.AuthCodeURL("state1", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("aud", serverName)))
		if got.Get("state") != "state1" || got.Get("iss") != w.cfg.Issuer || got.Get("page") != "1" || got.Get("code") == "" {
			t.Fatalf("%s: the client gets %v", tt.name, got)
		}
		tok, err := cfg.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if tok.RefreshToken == "" || !tok.Valid() {
			t.Errorf("%s: %v", tt.name, tok)
		}
		turn := tok.Extra("ice_servers")
		if slices.Contains(tt.scopes, ScopeRegistration) {
			c, err := w.edge.Verify(t.Context(), tok.AccessToken)
			if err != nil || c.IMPI != "alice@ims.test" || !c.Owns("sip:alice@ims.test") || c.WWSF != "https://phone.test" || c.WAF != "waf.ims.test" ||
				c.Subject != "alice" || c.ClientID != "wic" || !tok.Expiry.After(time.Now()) || tok.TokenType != "Bearer" {
				t.Errorf("%s: registration token says %+v, %v", tt.name, c, err)
			}
			turn = nil
			if m, ok := tok.Extra("turn").(map[string]any); ok {
				turn = m["ice_servers"]
			}
		} else if tok.TokenType != "pop" || tok.Extra("alg") != "HMAC-SHA-1" || tok.Extra("kid") != "k1" {
			t.Errorf("%s: %v", tt.name, tok)
		}
		if slices.Contains(tt.scopes, ScopeSTUN) {
			var servers []iceServer
			raw, _ := json.Marshal(turn)
			if err := json.Unmarshal(raw, &servers); err != nil {
				t.Fatal(err)
			}
			w.relayTakes(servers, "alice@ims.test")
		}
	}
	// The client's own refresh: by the library, when the token has expired.
	verifier := oauth2.GenerateVerifier()
	cfg := w.config(ScopeSTUN)
	tok, err := cfg.Exchange(ctx, w.authorize(cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier))).Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	first := tok.AccessToken
	tok.Expiry = time.Now().Add(-time.Minute)
	if tok, err = cfg.TokenSource(ctx, tok).Token(); err != nil || tok.AccessToken == first {
		t.Errorf("refresh: %v, %v", tok, err)
	}
	for _, secret := range []string{first, tok.AccessToken, tok.RefreshToken, alicePass, verifier} {
		if strings.Contains(w.log.String(), secret) {
			t.Error("the log shows a secret")
		}
	}
}

// The answer of the implicit grant parses as RFC 6749 §4.2.2 and RFC 7635 Appendix B say.
func TestImplicit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AllowImplicit = true })
	if !strings.Contains(w.log.String(), "RFC 9700") {
		t.Error("no warning at the start")
	}
	at := w.web.URL + "/authorize?" + url.Values{
		"response_type": {"token"}, "client_id": {"wic"}, "redirect_uri": {redirectURI}, "state": {"a b&c"},
		"aud": {serverName}, "scope": {ScopeSTUN}, "token_type": {"pop"}, "alg": {"HMAC-SHA-256-128"},
	}.Encode()
	got := w.authorize(at)
	expires, err := strconv.Atoi(got.Get("expires_in"))
	if err != nil || expires <= 0 || got.Get("token_type") != "pop" || got.Get("state") != "a b&c" || got.Get("iss") != w.cfg.Issuer || got.Get("scope") != "stun" || got.Has("refresh_token") {
		t.Errorf("the fragment has %v", got)
	}
	raw, err := base64.StdEncoding.DecodeString(got.Get("access_token"))
	key, err2 := base64.StdEncoding.DecodeString(got.Get("key"))
	if err != nil || err2 != nil || len(raw) != 64 || len(key) != 20 || got.Get("alg") != "HMAC-SHA-1" {
		t.Errorf("token of %d bytes, key of %d, alg %s", len(raw), len(key), got.Get("alg"))
	}
	p, err := w.relay.AuthenticateToken(got.Get("kid"), raw, w.clock.Now())
	if err != nil || !p.Key.MD5.Equal(turncred.NewSecret(key)) {
		t.Errorf("the relay says %v", err)
	}
	// RFC 7635 §6.2: the token's lifetime is no less than expires_in.
	if left := p.Texp.Sub(w.clock.Now()); left < time.Duration(expires)*time.Second {
		t.Errorf("expires_in %d, but the token has %v", expires, left)
	}
	var servers []iceServer
	if err := json.Unmarshal([]byte(got.Get("ice_servers")), &servers); err != nil {
		t.Fatal(err)
	}
	w.relayTakes(servers, "alice@ims.test")

	both := w.authorize(strings.Replace(at, "scope=stun", "scope=stun+"+ScopeRegistration, 1))
	if c, err := w.edge.Verify(t.Context(), both.Get("registration_token")); err != nil || c.IMPI != "alice@ims.test" || both.Get("token_type") != "pop" {
		t.Errorf("both scopes: %v, %v", both, err)
	}
	// Errors stand in the fragment too (RFC 6749 §4.2.2.1).
	b := w.browser()
	if got := b.consent(b.signIn(at, "alice", alicePass), "deny"); got.Get("error") != "access_denied" || got.Get("state") != "a b&c" {
		t.Errorf("denied: %v", got)
	}
}

func TestImplicitIsOff(t *testing.T) {
	w := newWorld(t, nil)
	got := w.browser().get("/authorize?" + url.Values{
		"response_type": {"token"}, "client_id": {"wic"}, "redirect_uri": {redirectURI}, "scope": {"stun"},
	}.Encode())
	if got.status != http.StatusSeeOther || !strings.Contains(got.location, "#error=unsupported_response_type") {
		t.Errorf("%d to %s", got.status, got.location)
	}
	if strings.Contains(w.log.String(), "RFC 9700") {
		t.Error("a warning without a reason")
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t, nil)
	first := w.exchange(w.code(ScopeSTUN, ScopeRegistration)).granted(t, "code")
	w.clock.advance(time.Minute)
	narrow := w.refresh(first.RefreshToken, func(v url.Values) { v.Set("scope", ScopeSTUN) }).granted(t, "narrowed")
	if narrow.TokenType != "pop" || narrow.RefreshToken == first.RefreshToken || narrow.Scope != "stun" {
		t.Errorf("narrowed: %s", narrow.raw)
	}
	wide := w.refresh(narrow.RefreshToken).granted(t, "wide again")
	if wide.TokenType != "Bearer" || wide.TURN == nil {
		t.Errorf("wide again: %s", wide.raw)
	}
	w.refresh(wide.RefreshToken, func(v url.Values) { v.Set("scope", "openid") }).refused(t, "a scope that was not granted", InvalidScope)

	// Reuse revokes the family: its tokens, and the one that rotation would give next.
	third := w.exchange(w.code(ScopeSTUN, ScopeRegistration)).granted(t, "code")
	fourth := w.refresh(third.RefreshToken).granted(t, "refresh")
	w.refresh(third.RefreshToken).refused(t, "used again", InvalidGrant)
	w.refresh(fourth.RefreshToken).refused(t, "of a revoked family", InvalidGrant)
	w.wasRevoked(t, fourth.AccessToken, "alice@ims.test")

	// Another client's use is theft too.
	w.addClient(NewClient{ID: "other", Name: "Other", RedirectURIs: []string{redirectURI}, Scopes: []string{ScopeSTUN}})
	fifth := w.exchange(w.code(ScopeSTUN)).granted(t, "code")
	w.refresh(fifth.RefreshToken, func(v url.Values) { v.Set("client_id", "other") }).refused(t, "of another client", InvalidGrant)
	w.refresh(fifth.RefreshToken).refused(t, "afterwards", InvalidGrant)

	// The grant ends, however often it is refreshed.
	last := w.exchange(w.code(ScopeSTUN)).granted(t, "code")
	w.clock.advance(w.cfg.RefreshLife - time.Minute)
	last = w.refresh(last.RefreshToken).granted(t, "a minute before the end")
	w.clock.advance(time.Minute)
	w.refresh(last.RefreshToken).refused(t, "at the end", InvalidGrant)
}

// wasRevoked checks that everyone knows that the grant of a registration token has ended.
func (w *world) wasRevoked(t *testing.T, accessToken string, impi turncred.IMPI) {
	t.Helper()
	c, err := w.ownToken(t.Context(), accessToken)
	if err != nil {
		t.Fatal(err)
	}
	if revoked, err := w.store.FamilyRevoked(t.Context(), c.Grant); err != nil || !revoked {
		t.Errorf("here: %v, %v", revoked, err)
	}
	w.told.mu.Lock()
	defer w.told.mu.Unlock()
	if !slices.ContainsFunc(w.told.grants, func(r Revocation) bool { return r.Grant == c.Grant && !r.Until.Before(c.Expires) }) {
		t.Errorf("the edge was told %v, want %s", w.told.grants, c.Grant)
	}
	if !slices.ContainsFunc(w.told.relay, func(r turncred.Revocation) bool { return r.Subject == w.codec.Subject(impi) }) {
		t.Errorf("the relay was told %v", w.told.relay)
	}
}

func TestClientCredentials(t *testing.T) {
	w := newWorld(t, nil)
	secret := w.addClient(NewClient{
		ID: "wwsf", Name: "Web server", GrantTypes: []string{grantClientCredentials}, Scopes: []string{ScopeSTUN, ScopeRegistration}, Confidential: true,
		ClientData: ClientData{Vouches: true, WWSF: "https://phone.test"},
	})
	ask := func(edit func(url.Values)) answer {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"stun " + ScopeRegistration}, "user": {"alice"}, "aud": {serverName}}
		edit(form)
		return w.call("/token", form, "wwsf", secret)
	}
	a := ask(func(url.Values) {}).granted(t, "for alice")
	if c, err := w.edge.Verify(t.Context(), a.AccessToken); err != nil || c.IMPI != "alice@ims.test" || c.ClientID != "wwsf" || c.Subject != "alice" {
		t.Errorf("registration token says %+v, %v", c, err)
	}
	w.relayTakes(a.TURN.ICEServers, "alice@ims.test")
	if a.RefreshToken != "" {
		t.Error("a refresh token (RFC 6749 §4.4.3)")
	}
	ask(func(v url.Values) { v.Set("user", "nobody") }).refused(t, "unknown user", InvalidRequest)
	ask(func(v url.Values) { v.Del("user") }).refused(t, "nobody to register", AccessDenied)
	ask(func(v url.Values) { v.Del("user"); v.Set("scope", ScopeSTUN) }).granted(t, "relay for an anonymous user")
	w.call("/token", url.Values{"grant_type": {"client_credentials"}}, "wwsf", secret+"x").refused(t, "wrong secret", InvalidClient)
	w.call("/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"wwsf"}}).refused(t, "no secret", InvalidClient)
	w.call("/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"wic"}}).refused(t, "public client", UnauthorizedClient)
	w.call("/token", url.Values{"grant_type": {"client_credentials"}, "client_secret": {secret}}, "wwsf", secret).refused(t, "two ways", InvalidRequest)

	plain := w.addClient(NewClient{ID: "modest", Name: "Modest", GrantTypes: []string{grantClientCredentials}, Scopes: []string{ScopeSTUN}, Confidential: true})
	w.call("/token", url.Values{"grant_type": {"client_credentials"}, "user": {"alice"}, "scope": {"stun"}}, "modest", plain).refused(t, "may not vouch", UnauthorizedClient)
}

func TestMetadata(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		w := newWorld(t, func(c *Config) { c.AllowImplicit = implicit })
		got := w.browser().get(pathMetadata)
		var m metadata
		if err := json.Unmarshal([]byte(got.body), &m); err != nil {
			t.Fatal(err)
		}
		if m.Issuer != w.cfg.Issuer || !m.IssParameterSupported || !slices.Equal(m.CodeChallengeMethods, []string{"S256"}) || got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("metadata: %s", got.body)
		}
		if slices.Contains(m.ResponseTypes, "token") != implicit || slices.Contains(m.GrantTypes, "implicit") != implicit {
			t.Errorf("implicit %v: %s", implicit, got.body)
		}
		for _, at := range []string{m.TokenEndpoint, m.RevocationEndpoint, m.IntrospectionEndpoint, m.RegistrationEndpoint} {
			if a := w.call(strings.TrimPrefix(at, w.cfg.Issuer), url.Values{}); a.Code == "" {
				t.Errorf("%s: %d %s", at, a.status, a.raw)
			}
		}
	}
}
