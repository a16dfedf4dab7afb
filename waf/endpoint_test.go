package waf

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf/bearer"
)

func TestRevocation(t *testing.T) {
	w := newWorld(t, nil)
	w.addClient(NewClient{ID: "other", Name: "Other", RedirectURIs: []string{redirectURI}, Scopes: []string{ScopeSTUN}})
	get := func() answer { return w.exchange(w.code(ScopeSTUN, ScopeRegistration)).granted(t, "code") }
	revoke := func(token, client string) answer {
		return w.call("/revoke", url.Values{"token": {token}, "client_id": {client}, "token_type_hint": {"nonsense"}})
	}
	a := get()
	if got := revoke(a.RefreshToken, "wic"); got.status != http.StatusOK {
		t.Errorf("refresh token: %d %s", got.status, got.raw)
	}
	w.wasRevoked(t, a.AccessToken, "alice@ims.test")
	w.refresh(a.RefreshToken).refused(t, "afterwards", InvalidGrant)

	a = get()
	if got := revoke(a.AccessToken, "wic"); got.status != http.StatusOK {
		t.Errorf("registration token: %d %s", got.status, got.raw)
	}
	w.wasRevoked(t, a.AccessToken, "alice@ims.test")
	w.refresh(a.RefreshToken).refused(t, "the refresh token beside it", InvalidGrant)

	a = get()
	revoke(a.AccessToken, "other").refused(t, "another client's", InvalidGrant)
	w.refresh(a.RefreshToken).granted(t, "which it could not revoke")

	// A TURN token ends alone.
	a = get()
	before := len(w.told.relay)
	if got := revoke(a.TURN.AccessToken, "wic"); got.status != http.StatusOK || len(w.told.relay) != before+1 {
		t.Fatalf("TURN token: %d, the relay was told %d times", got.status, len(w.told.relay)-before)
	}
	p, err := w.relay.Authenticate(a.TURN.ICEServers[0].Username, w.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if said := w.told.relay[before]; said.Tid != p.Tid || said.Until.Before(p.Texp) {
		t.Errorf("the relay was told %v, want %s", said, p.Tid)
	}
	for _, unknown := range []string{"x", a.TURN.AccessToken[4:], "a.b.c", strings.Repeat(".", 60_000)} {
		if got := revoke(unknown, "wic"); got.status != http.StatusOK { // RFC 7009 §2.2
			t.Errorf("unknown token: %d", got.status)
		}
	}
	revoke("", "wic").refused(t, "no token", InvalidRequest)
	revoke("x", "nobody").refused(t, "no client", InvalidClient)

	// What edges and relays were not told is an error to the client, which can try again;
	// here the grant has ended.
	a = get()
	w.told.err = errors.New("down")
	revoke(a.RefreshToken, "wic").refused(t, "while the relay is down", ServerError)
	w.refresh(a.RefreshToken).refused(t, "nevertheless", InvalidGrant)
}

func TestIntrospection(t *testing.T) {
	w := newWorld(t, nil)
	secret := w.addClient(NewClient{ID: "edge", Name: "Edge", GrantTypes: []string{grantClientCredentials}, Confidential: true, ClientData: ClientData{Introspects: true}})
	plain := w.addClient(NewClient{ID: "plain", Name: "Plain", GrantTypes: []string{grantClientCredentials}, Confidential: true})
	a := w.exchange(w.code(ScopeSTUN, ScopeRegistration)).granted(t, "code")
	v, err := bearer.NewIntrospection(bearer.IntrospectionConfig{
		Expected: bearer.Expected{Issuer: w.cfg.Issuer, Audience: testAudience, Scope: ScopeRegistration},
		URL:      w.web.URL + "/introspect", ClientID: "edge", Secret: turncred.NewSecret([]byte(secret)), Client: w.web.Client(), Now: w.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify(t.Context(), a.AccessToken)
	if err != nil || c.IMPI != "alice@ims.test" || !c.Owns("sip:alice@ims.test") {
		t.Errorf("introspection says %+v, %v", c, err)
	}
	for _, token := range []string{a.TURN.AccessToken, a.RefreshToken, "x", a.AccessToken + "x"} {
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, bearer.ErrInvalid) {
			t.Errorf("introspection of what is no registration token: %v", err)
		}
	}
	w.call("/revoke", url.Values{"token": {a.RefreshToken}, "client_id": {"wic"}})
	w.clock.advance(time.Second)
	if _, err := v.Verify(t.Context(), a.AccessToken); !errors.Is(err, bearer.ErrInvalid) {
		t.Errorf("introspection a second after the revocation: %v", err)
	}
	w.call("/introspect", url.Values{"token": {"x"}}, "plain", plain).refused(t, "who may not", InvalidClient)
	w.call("/introspect", url.Values{"token": {"x"}, "client_id": {"wic"}}).refused(t, "a public client", InvalidClient)
	w.call("/introspect", url.Values{"token": {"x"}}).refused(t, "a stranger", InvalidClient)
}

func TestDynamicRegistration(t *testing.T) {
	w := newWorld(t, nil)
	access := func() string {
		s, err := NewInitialAccess(t.Context(), w.store, w.clock.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	register := func(access, contentType, body string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.web.URL+"/register", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if access != "" {
			r.Header.Set("Authorization", "Bearer "+access)
		}
		return w.send(r)
	}
	good := `{"redirect_uris":["` + redirectURI + `"],"client_name":"New","grant_types":["authorization_code","refresh_token"],"scope":"stun","extra":1}`
	one := access()
	got := register(one, "application/json; charset=utf-8", good)
	var m clientMetadata
	if err := json.Unmarshal([]byte(got.raw), &m); err != nil || got.status != http.StatusCreated || m.ID == "" || m.AuthMethod != "none" || m.IssuedAt == 0 || strings.Contains(got.raw, "client_secret") {
		t.Fatalf("registered: %d %s", got.status, got.raw)
	}
	if page := w.browser().get(request(func(q url.Values) { q.Set("client_id", m.ID) })); page.status != http.StatusOK || !strings.Contains(page.body, "New") {
		t.Errorf("the new client: %d %s", page.status, page.body)
	}
	register(one, "application/json", good).refused(t, "the initial access token again", InvalidToken)
	register("", "application/json", good).refused(t, "without one", InvalidToken)
	register("x", "application/json", good).refused(t, "with another", InvalidToken)
	keep := access()
	for body, want := range map[string]ErrorCode{
		`{}`: InvalidRedirectURI, `x`: InvalidClientMetadata, `{"redirect_uris":["http://phone.test"]}`: InvalidRedirectURI,
		`{"redirect_uris":["https://a.test"],"grant_types":["client_credentials"]}`:                                     InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"grant_types":["implicit"]}`:                                               InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"token_endpoint_auth_method":"client_secret_basic"}`:                       InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"response_types":["token"]}`:                                               InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"scope":"admin"}`:                                                          InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"client_id":"wic"}`:                                                        InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"client_name":"` + strings.Repeat("x", 101) + `"}`:                         InvalidClientMetadata,
		`{"redirect_uris":[` + strings.Repeat(`"https://a.test",`, 20) + `"https://a.test"]}`:                           InvalidClientMetadata,
		`{"redirect_uris":["https://a.test"],"client_name":"` + strings.Repeat("x", maxForm) + `","scope":"` + `stun"}`: InvalidClientMetadata,
	} {
		register(keep, "application/json", body).refused(t, body[:min(len(body), 80)], want)
	}
	register(keep, "text/plain", good).refused(t, "text", InvalidClientMetadata)
	if got := register(keep, "application/json", good); got.status != http.StatusCreated { // mistakes did not cost it
		t.Errorf("registered: %d %s", got.status, got.raw)
	}
	late := access()
	w.clock.advance(time.Hour)
	register(late, "application/json", good).refused(t, "expired", InvalidToken)
}

// Scenario 3: an identity is lent for the token's life, returned, and never lent twice at once.
func TestLentIdentities(t *testing.T) {
	w := newWorld(t, nil)
	for _, id := range []string{"guest1", "guest2"} {
		if err := w.store.AddIdentity(t.Context(), store.LentIdentity{IMPI: turncred.IMPI(id + "@ims.test"), IMPUs: []string{"sip:" + id + "@ims.test"}, Class: "guests"}); err != nil {
			t.Fatal(err)
		}
	}
	secret := w.addClient(NewClient{
		ID: "wwsf", Name: "Web server", GrantTypes: []string{grantClientCredentials}, Scopes: []string{ScopeSTUN, ScopeRegistration}, Confidential: true, ClientData: ClientData{Class: "guests"},
	})
	anonymous := func() answer {
		return w.call("/token", url.Values{"grant_type": {"client_credentials"}}, "wwsf", secret)
	}
	a, b := anonymous().granted(t, "first"), anonymous().granted(t, "second")
	if a.IMPI == b.IMPI || a.IMPI == "" {
		t.Fatalf("lent %q and %q", a.IMPI, b.IMPI)
	}
	w.relayTakes(a.TURN.ICEServers, turncred.IMPI(a.IMPI))
	if a.TURN.ExpiresIn > a.ExpiresIn {
		t.Errorf("relay rights of %d s, longer than the loan's %d s", a.TURN.ExpiresIn, a.ExpiresIn)
	}
	anonymous().refused(t, "third", TemporarilyUnavailable)

	// The eP-CSCF says that the registration has ended: the token is worth nothing from then
	// on, and only then can another borrow.
	c, err := w.edge.Verify(t.Context(), a.AccessToken)
	if err != nil || string(c.IMPI) != a.IMPI {
		t.Fatal(c, err)
	}
	w.told.err = errors.New("down")
	if w.ReturnIdentity(t.Context(), c.Grant) == nil {
		t.Error("returned though the edge does not know")
	}
	anonymous().refused(t, "while the edge does not know", TemporarilyUnavailable)
	w.told.err, w.told.later = nil, fmt.Errorf("%w: it does not answer", ErrLater)
	if err := w.ReturnIdentity(t.Context(), c.Grant); err != nil {
		t.Errorf("an edge that hears of it later: %v", err)
	}
	anonymous().refused(t, "until the edge knows", TemporarilyUnavailable)
	w.told.later = nil
	if err := w.ReturnIdentity(t.Context(), c.Grant); err != nil {
		t.Fatal(err)
	}
	w.wasRevoked(t, a.AccessToken, c.IMPI)
	again := anonymous().granted(t, "after the return")
	if again.IMPI != a.IMPI {
		t.Errorf("lent %s, want %s again", again.IMPI, a.IMPI)
	}
	// A late word of the first borrower's ends neither the next one's loan nor his relay rights.
	w.told.relay = nil
	if err := w.ReturnIdentity(t.Context(), c.Grant); err != nil {
		t.Fatal(err)
	}
	anonymous().refused(t, "late return", TemporarilyUnavailable)
	if slices.ContainsFunc(w.told.relay, func(r turncred.Revocation) bool { return r.Subject == w.codec.Subject(c.IMPI) }) {
		t.Error("a late return revoked the next borrower's TURN credentials")
	}

	// Without a word the loan lasts until no verifier takes the token.
	w.clock.advance(w.cfg.Registration.Life + bearer.Leeway - time.Second)
	anonymous().refused(t, "within the leeway", TemporarilyUnavailable)
	w.clock.advance(2 * time.Second)
	anonymous().granted(t, "after the token's life")

	// A user of a class borrows too, and keeps what he has when he refreshes.
	w.clock.advance(time.Hour)
	w.addUser(NewUser{Name: "guest", Password: turncred.NewSecret([]byte(alicePass)), Class: "guests"})
	code := func() answer {
		br := w.browser()
		q := request(func(q url.Values) { q.Set("scope", "stun "+ScopeRegistration) })
		v := br.consent(br.signIn(q, "guest", alicePass), "allow")
		return w.exchange(v.Get("code"), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
	}
	u := code().granted(t, "user of a class")
	r := w.refresh(u.RefreshToken).granted(t, "refresh")
	if r.IMPI != u.IMPI || u.IMPI == "" {
		t.Errorf("lent %s, then %s", u.IMPI, r.IMPI)
	}
	if got := w.call("/revoke", url.Values{"token": {r.RefreshToken}, "client_id": {"wic"}}); got.status != http.StatusOK {
		t.Fatal(got.raw)
	}
	lent, err := w.store.Identities(t.Context(), "guests")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range lent {
		if id.Until.After(w.clock.Now()) {
			t.Errorf("%s is still lent to %s", id.IMPI, id.Holder)
		}
	}
}

func TestSigningKeysRotate(t *testing.T) {
	w := newWorld(t, nil)
	first, err := NewSigningKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	next, err := NewSigningKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...store.Key) {
		t.Helper()
		if err := w.cfg.Keys.Set(keys...); err != nil {
			t.Fatal(err)
		}
	}
	as := func(k store.Key, s store.KeyState) store.Key { k.State = s; return k }
	remote := bearer.NewRemoteKeys(w.web.URL+pathKeys, w.web.Client(), w.clock.Now)
	edge, err := bearer.NewOffline(bearer.Expected{Issuer: w.cfg.Issuer, Audience: testAudience}, remote, nil, w.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	issue := func() string {
		t.Helper()
		return w.exchange(w.code(ScopeRegistration)).granted(t, "code").AccessToken
	}
	verify := func(what, token string, want error) {
		t.Helper()
		if _, err := edge.Verify(t.Context(), token); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	set(as(first, store.KeyCurrent), as(next, store.KeyNext))
	old := issue()
	verify("before", old, nil)
	set(as(first, store.KeyRetired), as(next, store.KeyCurrent))
	verify("of the new key, which was published before", issue(), nil)
	verify("of the retired key", old, nil)
	set(as(first, store.KeyRevoked), as(next, store.KeyCurrent))
	w.clock.advance(5 * time.Minute) // the edge asks again, and takes the answer when it is there
	for deadline := time.Now().Add(5 * time.Second); ; {
		_, err := edge.Verify(t.Context(), old)
		if errors.Is(err, bearer.ErrInvalid) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a revoked key's token is still good")
		}
	}
	set(as(next, store.KeyNext))
	w.exchange(w.code(ScopeRegistration)).refused(t, "without a current key", ServerError)

	jwks := w.browser().get(pathKeys).body
	if strings.Contains(jwks, `"d"`) || !strings.Contains(jwks, string(next.ID)) {
		t.Errorf("published: %s", jwks)
	}
	bad := as(first, store.KeyCurrent)
	bad.Algorithm = "ES256"
	if w.cfg.Keys.Set(bad) == nil {
		t.Error("a key whose algorithm is another's")
	}
	if _, err := NewSigningKey("RS256"); err == nil {
		t.Error("RS256")
	}
}

// 10,000 tokens from two processes with one key: no nonce twice.
func TestTwoProcessesRepeatNoNonce(t *testing.T) {
	w := newWorld(t, nil)
	seen := map[[12]byte]bool{}
	for _, process := range []*token.Issuer{w.issuer(serverName), w.issuer(serverName)} {
		for range 5000 {
			tok, err := process.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			nonce := [12]byte(tok.Raw[2:14])
			if seen[nonce] {
				t.Fatalf("nonce %x again", nonce)
			}
			seen[nonce] = true
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"Issuer":                func(c *Config) { c.Issuer = "http://waf.test" },
		"Issuer with a path":    func(c *Config) { c.Issuer = "https://waf.test/" },
		"Secret":                func(c *Config) { c.Secret = turncred.NewSecret([]byte("short")) },
		"Records":               func(c *Config) { c.Records = nil },
		"Keys":                  func(c *Config) { c.Keys = nil },
		"Registration.Audience": func(c *Config) { c.Registration.Audience = "" },
		"CodeLife":              func(c *Config) { c.CodeLife = time.Hour },
		"Relays":                func(c *Config) { c.Relays = append(c.Relays, c.Relays[0]) },
		"Provider":              func(c *Config) { c.Provider = &ProviderConfig{} },
		"Provider: Issuer": func(c *Config) {
			c.Provider = &ProviderConfig{Name: "x", Issuer: "http://x", ClientID: "x", Secret: turncred.NewSecret([]byte("x"))}
		},
	} {
		w := newWorld(t, nil)
		cfg := w.cfg
		edit(&cfg)
		field, _, _ := strings.Cut(name, " with")
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]NewClient{
		"no name": {RedirectURIs: []string{redirectURI}}, "no redirect": {Name: "x"}, "odd id": {ID: "a b", Name: "x", RedirectURIs: []string{redirectURI}},
		"public client_credentials": {Name: "x", GrantTypes: []string{grantClientCredentials}}, "unknown grant": {Name: "x", GrantTypes: []string{"password"}},
	} {
		if _, _, err := c.Record(); err == nil {
			t.Errorf("client: %s", name)
		}
	}
	for name, u := range map[string]NewUser{
		"no name": {Class: "x"}, "nothing to be": {Name: "x"}, "IMPI without IMPU": {Name: "x", IMPI: "x"}, "both": {Name: "x", IMPI: "x", IMPUs: []string{"x"}, Class: "x"},
		"short password": {Name: "x", Class: "x", Password: turncred.NewSecret([]byte("x"))}, "space": {Name: "a b", Class: "x"},
	} {
		if _, err := u.Record(cheap()); err == nil {
			t.Errorf("user: %s", name)
		}
	}
}

func TestRequestsAreThrottled(t *testing.T) {
	w := newWorld(t, nil)
	w.call("/token", url.Values{})
	for range requestRate.burst {
		w.throttle.request("127.0.0.1")
	}
	if a := w.call("/token", url.Values{}); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("token: %d %s", a.status, a.raw)
	}
	if got := w.browser().get("/authorize"); got.status != http.StatusTooManyRequests || !strings.Contains(got.body, "Too many requests") {
		t.Errorf("page: %d", got.status)
	}
}

// A token as the contribution has it, in the USERNAME and by itself, is one and the same.
func TestTokenForms(t *testing.T) {
	w := newWorld(t, nil)
	a := w.exchange(w.code(ScopeSTUN)).granted(t, "code")
	raw, err := base64.StdEncoding.DecodeString(a.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if want := a.KeyID + "~" + base64.RawURLEncoding.EncodeToString(raw); a.ICEServers[0].Username != want || a.ICEServers[0].Credential != a.Key || len(want) > 508 {
		t.Errorf("ice_servers has %v, want %s", a.ICEServers, want)
	}
	if !slices.Equal(a.ICEServers[0].URLs, w.cfg.Relays[0].URIs) {
		t.Errorf("urls %v", a.ICEServers[0].URLs)
	}
}

// TestRelaysComeAndGo: the entry for iceServers has the relays of now; while there is none
// the page is told to come again.
func TestRelaysComeAndGo(t *testing.T) {
	offered := []string{"turn:one"}
	w := newWorld(t, func(c *Config) { c.Relays[0].URIs, c.Relays[0].Offered = nil, func() []string { return offered } })
	if a := w.exchange(w.code(ScopeSTUN)).granted(t, "code"); !slices.Equal(a.ICEServers[0].URLs, offered) {
		t.Errorf("urls %v, want %v", a.ICEServers[0].URLs, offered)
	}
	offered = []string{"turn:two"}
	if a := w.exchange(w.code(ScopeSTUN)).granted(t, "code"); !slices.Equal(a.ICEServers[0].URLs, offered) {
		t.Errorf("urls %v, want %v", a.ICEServers[0].URLs, offered)
	}
	offered = nil
	if a := w.exchange(w.code(ScopeSTUN)); a.status != http.StatusServiceUnavailable || a.AccessToken != "" {
		t.Errorf("without a relay: %d %s", a.status, a.raw)
	}
}
