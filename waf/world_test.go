package waf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"epcscf/internal/realpart"
	"epcscf/store"
	"epcscf/store/memory"
	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf/bearer"
)

const (
	serverName   = "turn.ims.test"
	testAudience = "sip:ims.test"
	alicePass    = "correct horse"
	redirectURI  = "https://phone.test/callback?page=1"
)

// clock is a time that tests turn.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

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

// told records what relays and edges are told.
type told struct {
	mu     sync.Mutex // guards the fields below
	relay  []turncred.Revocation
	grants []Revocation
	err    error
	later  error // of grants alone
}

func (r *told) Revoke(_ context.Context, v turncred.Revocation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relay = append(r.relay, v)
	return r.err
}

func (r *told) RevokeGrant(_ context.Context, v Revocation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grants = append(r.grants, v)
	return errors.Join(r.err, r.later)
}

// world is a WAF on loopback, with a relay's authenticator and an eP-CSCF's verifier.
type world struct {
	*Server
	t       testing.TB
	web     *httptest.Server
	store   *memory.Store
	clock   *clock
	told    *told
	ring    *token.KeyRing
	relay   *token.Authenticator
	edge    *bearer.Offline
	revoked *bearer.Revocations
	log     *realpart.Output
	codec   *turncred.TidCodec
}

func tokenKey() token.Key {
	return token.Key{ID: "k1", Secret: turncred.NewSecret(bytes.Repeat([]byte{0x5A}, 32))}
}

// cheap makes tests fast: what a hash costs is not what they are about.
func cheap() *Hasher { return newHasher(64, 1) }

func newWorld(t testing.TB, edit func(*Config)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Now().Truncate(time.Second)}, told: &told{}, log: &realpart.Output{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.store, err = memory.New(memory.Config{Now: w.clock.Now})
	must(err)
	w.ring, err = token.NewKeyRing(tokenKey())
	must(err)
	w.codec, err = turncred.NewTidCodec(turncred.NewSecret(bytes.Repeat([]byte{7}, 32)))
	must(err)
	w.relay, err = token.NewAuthenticator(token.AuthenticatorConfig{Ring: w.ring, ServerName: serverName, Realm: "ims.test"})
	must(err)
	signing, err := NewSigningKey("EdDSA")
	must(err)
	signing.State = store.KeyCurrent
	keys, err := NewSigningKeys(w.clock.Now, signing)
	must(err)

	w.web = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.ServeHTTP(rw, r) }))
	w.web.StartTLS()
	t.Cleanup(w.web.Close)
	cfg := Config{
		Issuer: w.web.URL, Records: w.store, Keys: keys, Secret: turncred.NewSecret(bytes.Repeat([]byte{9}, 32)),
		Relays:       []Relay{{Name: serverName, URIs: []string{"turns:turn.ims.test:5349", "turn:turn.ims.test:3478"}, Tokens: w.issuer(serverName)}},
		Registration: Registration{Audience: testAudience, WAF: "waf.ims.test"},
		Revoker:      w.told, Hasher: cheap(), Now: w.clock.Now,
		Logger: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if edit != nil {
		edit(&cfg)
	}
	w.Server, err = New(cfg)
	must(err)
	w.revoked = bearer.NewRevocations(w.clock.Now)
	w.edge, err = bearer.NewOffline(bearer.Expected{Issuer: cfg.Issuer, Audience: testAudience, Scope: ScopeRegistration}, keys, w.revoked, w.clock.Now)
	must(err)

	w.addClient(NewClient{
		ID: "wic", Name: "Phone", RedirectURIs: []string{redirectURI}, Scopes: []string{ScopeSTUN, ScopeRegistration},
		GrantTypes: []string{grantAuthorizationCode, grantRefreshToken, grantImplicit}, ClientData: ClientData{WWSF: "https://phone.test"},
	})
	w.addUser(NewUser{Name: "alice", Password: turncred.NewSecret([]byte(alicePass)), IMPI: "alice@ims.test", IMPUs: []string{"sip:alice@ims.test"}})
	return w
}

// issuer is one process' maker of TURN tokens.
func (w *world) issuer(name string) *token.Issuer {
	w.t.Helper()
	m, err := turncred.NewMinter(turncred.MinterConfig{Codec: w.codec, Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Revoker: w.told, Now: w.clock.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	i, err := token.NewIssuer(m, w.ring, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func (w *world) addClient(c NewClient) (secret string) {
	w.t.Helper()
	rec, s, err := c.Record()
	if err == nil {
		err = w.store.AddClient(w.t.Context(), rec)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return string(s.Reveal())
}

func (w *world) addUser(u NewUser) {
	w.t.Helper()
	rec, err := u.Record(w.cfg.Hasher)
	if err == nil {
		err = w.store.AddUser(w.t.Context(), rec)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// config is that of an independent client.
func (w *world) config(scopes ...string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: "wic", RedirectURL: redirectURI, Scopes: scopes,
		Endpoint: oauth2.Endpoint{AuthURL: w.web.URL + "/authorize", TokenURL: w.web.URL + "/token", AuthStyle: oauth2.AuthStyleInParams},
	}
}

// browser is a user's: it keeps cookies and shows redirects.
type browser struct {
	w *world
	*http.Client
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w, &http.Client{
		Jar: jar, Transport: w.web.Client().Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// shown is an answer to a browser.
type shown struct {
	status   int
	location string
	body     string
	header   http.Header
}

func (b *browser) do(r *http.Request) shown {
	b.w.t.Helper()
	resp, err := b.Do(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return shown{resp.StatusCode, resp.Header.Get("Location"), string(body), resp.Header}
}

func (b *browser) get(at string) shown {
	b.w.t.Helper()
	if strings.HasPrefix(at, "/") {
		at = b.w.web.URL + at
	}
	r, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodGet, at, nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return b.do(r)
}

func (b *browser) post(path string, form url.Values) shown {
	b.w.t.Helper()
	r, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodPost, b.w.web.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", b.w.web.URL)
	return b.do(r)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)">`)

// form returns the hidden fields of a page's first form.
func (s shown) form() url.Values {
	form := url.Values{}
	for _, m := range hiddenField.FindAllStringSubmatch(s.body, -1) {
		if !form.Has(m[1]) {
			form.Set(m[1], html.UnescapeString(m[2]))
		}
	}
	return form
}

// signIn goes from the authorization request to the consent page.
func (b *browser) signIn(at, user, password string) shown {
	b.w.t.Helper()
	page := b.get(at)
	if !strings.Contains(page.body, "<h1>Sign in</h1>") {
		b.w.t.Fatalf("GET %s: %d %s %s", at, page.status, page.location, page.body)
	}
	form := page.form()
	form.Set("user", user)
	form.Set("password", password)
	next := b.post("/sign-in", form)
	if next.status != http.StatusSeeOther {
		return next
	}
	return b.get(next.location)
}

// consent answers the consent page, and returns what the client gets.
func (b *browser) consent(page shown, decision string) url.Values {
	b.w.t.Helper()
	form := page.form()
	form.Set("decision", decision)
	done := b.post("/consent", form)
	if done.status != http.StatusSeeOther || !strings.HasPrefix(done.location, "https://phone.test/callback?page=1") {
		b.w.t.Fatalf("consent: %d to %q: %s", done.status, done.location, done.body)
	}
	u, err := url.Parse(done.location)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if u.Fragment != "" {
		v, err := url.ParseQuery(u.EscapedFragment())
		if err != nil {
			b.w.t.Fatal(err)
		}
		return v
	}
	return u.Query()
}

// authorize is steps 2 to 4 of the flow for alice: it returns what the client gets.
func (w *world) authorize(at string) url.Values {
	w.t.Helper()
	b := w.browser()
	return b.consent(b.signIn(at, "alice", alicePass), "allow")
}

// code returns a code and its verifier.
func (w *world) code(scopes ...string) (code, verifier string) {
	w.t.Helper()
	verifier = oauth2.GenerateVerifier()
	return w.authorize(w.config(scopes...).AuthCodeURL("state1", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("aud", serverName))).Get("code"), verifier
}

// answer is one of an endpoint for programs.
type answer struct {
	status int
	tokenAnswer
	Error
	header http.Header
	raw    string
}

// call posts a form as a program does; user is for Basic.
func (w *world) call(path string, form url.Values, user ...string) answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.web.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(user) == 2 {
		r.SetBasicAuth(url.QueryEscape(user[0]), url.QueryEscape(user[1]))
	}
	return w.send(r)
}

func (w *world) send(r *http.Request) answer {
	w.t.Helper()
	resp, err := w.web.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.tokenAnswer)
	_ = json.Unmarshal(raw, &a.Error)
	return a
}

// exchange is the token request for a code.
func (w *world) exchange(code, verifier string, edit ...func(url.Values)) answer {
	w.t.Helper()
	form := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {"wic"}, "redirect_uri": {redirectURI}, "code": {code}, "code_verifier": {verifier},
	}
	for _, e := range edit {
		e(form)
	}
	return w.call("/token", form)
}

func (w *world) refresh(refreshToken string, edit ...func(url.Values)) answer {
	w.t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {"wic"}, "refresh_token": {refreshToken}}
	for _, e := range edit {
		e(form)
	}
	return w.call("/token", form)
}

// refused checks an error answer, and that it is not to be stored (RFC 6749 §5.2).
func (a answer) refused(t testing.TB, what string, code ErrorCode) {
	t.Helper()
	want := (&Error{Code: code}).status()
	if a.status != want || a.Code != code || a.AccessToken != "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %s, want %d %s", what, a.status, a.raw, want, code)
	}
}

func (a answer) granted(t testing.TB, what string) answer {
	t.Helper()
	if a.status != http.StatusOK || a.AccessToken == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %d %s", what, a.status, a.raw)
	}
	return a
}

// relayTakes checks that the relay takes what stands in ice_servers, and for whom.
func (w *world) relayTakes(servers []iceServer, impi turncred.IMPI) {
	w.t.Helper()
	if len(servers) != 1 || !slices.Equal(servers[0].URLs, w.cfg.Relays[0].URIs) {
		w.t.Fatalf("ice_servers = %v", servers)
	}
	p, err := w.relay.Authenticate(servers[0].Username, w.clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	want := turncred.NewLongTermKey(servers[0].Username, "ims.test", turncred.NewSecret([]byte(servers[0].Credential)))
	if !p.Key.Equal(want) {
		w.t.Error("credential is not the token's")
	}
	id, err := p.Identify()
	if err != nil || id.Subject != w.codec.Subject(impi) {
		w.t.Errorf("token is of subject %v, %v, want that of %s", id, err, impi)
	}
}
