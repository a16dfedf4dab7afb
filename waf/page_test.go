package waf

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

func TestPagesAreHardened(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	for name, got := range map[string]shown{
		"sign in": b.get(request(func(url.Values) {})), "consent": b.signIn(request(func(url.Values) {}), "alice", alicePass),
		"error": b.get("/authorize"), "nowhere": b.get("/nowhere"), "style": b.get(pathStyle),
	} {
		csp := got.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: Content-Security-Policy %q has no %s", name, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || strings.Contains(got.body, "<script") || strings.Contains(got.body, "style=") {
			t.Errorf("%s: scripts or inline styles", name)
		}
		for header, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin"} {
			if got.header.Get(header) != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got.header.Get(header), want)
			}
		}
		for _, c := range got.header.Values("Set-Cookie") {
			for _, want := range []string{"__Host-", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"} {
				if !strings.Contains(c, want) {
					t.Errorf("%s: cookie %s lacks %s", name, c, want)
				}
			}
		}
		if name != "style" && got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", name, got.header.Get("Cache-Control"))
		}
	}
	consent := b.get(request(func(url.Values) {}))
	if csp := consent.header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "form-action 'self' https://phone.test") {
		t.Errorf("consent: %s", csp)
	}
}

func TestWhatIsShownIsEscaped(t *testing.T) {
	w := newWorld(t, nil)
	w.addClient(NewClient{ID: "evil", Name: `<script>alert(1)</script>"`, RedirectURIs: []string{redirectURI}, Scopes: []string{ScopeSTUN}})
	got := w.browser().get(request(func(q url.Values) { q.Set("client_id", "evil"); q.Set("state", `"><script>`) }))
	if strings.Contains(got.body, "<script") {
		t.Error(got.body)
	}
}

func TestWrongPassword(t *testing.T) {
	w := newWorld(t, nil)
	w.addUser(NewUser{Name: "off", Password: turncred.NewSecret([]byte(alicePass)), IMPI: "off@ims.test", IMPUs: []string{"sip:off@ims.test"}})
	off, err := w.store.User(t.Context(), "off")
	if err != nil {
		t.Fatal(err)
	}
	off.Disabled = true
	if err := w.store.SetUser(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	w.addUser(NewUser{Name: "elsewhere", IMPI: "e@ims.test", IMPUs: []string{"sip:e@ims.test"}}) // signs in at the provider
	for _, try := range [][2]string{
		{"alice", "wrong"}, {"alice", ""}, {"nobody", alicePass}, {"off", alicePass}, {"elsewhere", ""}, {"", ""}, {"alice\x00", alicePass},
		{"Alice", alicePass}, {"hunter2 in the wrong field", "x"}, {"hunter2-in-the-wrong-field", "x"}, {"alice", strings.Repeat("x", 10_000)}, {strings.Repeat("x", 10_000), "x"},
	} {
		got := w.browser().signIn(request(func(url.Values) {}), try[0], try[1])
		if got.status != http.StatusUnauthorized || !strings.Contains(got.body, "User name or password is wrong.") || strings.Contains(strings.Join(got.header.Values("Set-Cookie"), " "), cookieSession) {
			t.Errorf("%q: %d %s", try, got.status, got.body)
		}
	}
	if strings.Contains(w.log.String(), "hunter2") {
		t.Error("the log shows a password that was typed as a user name")
	}
	b := w.browser()
	got := b.signIn(request(func(url.Values) {}), "alice", "wrong")
	form := got.form()
	form.Set("user", "alice")
	form.Set("password", alicePass)
	if next := b.post("/sign-in", form); next.status != http.StatusSeeOther {
		t.Errorf("the second try: %d", next.status)
	}
}

func TestSignInIsThrottled(t *testing.T) {
	w := newWorld(t, nil)
	try := func(user, password string) shown {
		b := w.browser()
		form := b.get(request(func(url.Values) {})).form()
		form.Set("user", user)
		form.Set("password", password)
		return b.post("/sign-in", form)
	}
	for i := range accountRate.burst {
		if got := try("alice", "wrong"); got.status != http.StatusUnauthorized {
			t.Fatalf("try %d: %d", i, got.status)
		}
	}
	got := try("alice", alicePass)
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "too many tries") {
		t.Errorf("throttled: %d %s", got.status, got.body)
	}
	if got := try("nobody", "x"); got.status != http.StatusUnauthorized { // an unknown account is throttled alike
		t.Errorf("another account: %d", got.status)
	}
	for range accountRate.burst {
		try("nobody", "x")
	}
	if got := try("nobody", "x"); got.status != http.StatusTooManyRequests {
		t.Errorf("unknown account: %d", got.status)
	}
	w.clock.advance(accountRate.every)
	if got := try("alice", alicePass); got.status != http.StatusSeeOther {
		t.Errorf("a minute later: %d", got.status)
	}
	// An address that goes through accounts is stopped too.
	stopped := false
	for i := range addressRate.burst {
		stopped = stopped || try(fmt.Sprint("user", i), "x").status == http.StatusTooManyRequests
	}
	if !stopped {
		t.Error("an address may try any number of accounts")
	}
}

func TestThrottleIsBounded(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	th := newThrottle(c.Now)
	for i := range 2 * maxBuckets {
		th.request(fmt.Sprint(i))
	}
	if len(th.requests.full) > maxBuckets {
		t.Errorf("%d buckets, want %d at most", len(th.requests.full), maxBuckets)
	}
	c.advance(time.Hour)
	if !th.request("new") || len(th.requests.full) != 1 {
		t.Errorf("%d buckets after an hour", len(th.requests.full))
	}
	for addr, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1", "[::ffff:192.0.2.1]:5": "192.0.2.1", "[2001:db8::1]:5": "2001:db8::/64", "[2001:db8::ffff]:5": "2001:db8::/64", "[fe80::1%eth0]:5": "fe80::/64", "?": "?",
	} {
		if got := clientAddr(&http.Request{RemoteAddr: addr}); got != want {
			t.Errorf("clientAddr(%s) = %s, want %s", addr, got, want)
		}
	}
}

// Forms of other sites, of other browsers and of other requests are refused, signed in or
// not: nobody is made to consent, or to sign in as somebody else.
func TestForeignForms(t *testing.T) {
	w := newWorld(t, nil)
	at := request(func(url.Values) {})
	victim, attacker := w.browser(), w.browser()
	consent := victim.signIn(at, "alice", alicePass)
	w.addUser(NewUser{Name: "mallory", Password: turncred.NewSecret([]byte(alicePass)), IMPI: "m@ims.test", IMPUs: []string{"sip:m@ims.test"}})
	attackers := attacker.signIn(at, "mallory", alicePass).form()
	attackers.Set("decision", "allow")
	for name, tt := range map[string]struct {
		path string
		form url.Values
	}{
		"no token":            {"/consent", url.Values{"request": consent.form()["request"], "decision": {"allow"}}},
		"the attacker's form": {"/consent", attackers},
		"another request": {"/consent", func() url.Values {
			f := consent.form()
			f.Set("request", strings.TrimPrefix(request(func(q url.Values) { q.Set("state", "other") }), "/authorize?"))
			return f
		}()},
		"the sign-out form": {"/consent", func() url.Values {
			parts := strings.SplitN(consent.body, "/sign-out", 2)
			return shown{body: parts[1]}.form()
		}()},
		"login CSRF": {"/sign-in", func() url.Values {
			f := attacker.get(request(func(q url.Values) { q.Set("state", "login") })).form()
			f.Set("user", "mallory")
			f.Set("password", alicePass)
			return f
		}()},
	} {
		if got := victim.post(tt.path, tt.form); got.status != http.StatusForbidden {
			t.Errorf("%s: %d to %s", name, got.status, got.location)
		}
	}
	form := consent.form()
	form.Set("decision", "allow")
	for name, header := range map[string][2]string{
		"Origin": {"Origin", "https://evil.test"}, "Sec-Fetch-Site": {"Sec-Fetch-Site", "cross-site"}, "a neighbour": {"Sec-Fetch-Site", "same-site"}, "null": {"Origin", "null"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.web.URL+"/consent", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set(header[0], header[1])
		if got := victim.do(r); got.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	if got := victim.consent(consent, "allow"); got.Get("code") == "" {
		t.Errorf("the user's own: %v", got)
	}
}

func TestConsentDenied(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	got := b.consent(b.signIn(request(func(url.Values) {}), "alice", alicePass), "deny")
	if got.Get("error") != "access_denied" || got.Get("state") != "s1" || got.Get("iss") != w.cfg.Issuer || got.Has("code") {
		t.Errorf("the client gets %v", got)
	}
	// What is not allow is no.
	if got := b.consent(b.get(request(func(url.Values) {})), ""); got.Get("error") != "access_denied" {
		t.Errorf("the client gets %v", got)
	}
}

func TestSessionEnds(t *testing.T) {
	at := request(func(url.Values) {})
	signedIn := func(s shown) bool { return strings.Contains(s.body, "You are signed in as") }

	w := newWorld(t, nil)
	b := w.browser()
	page := b.signIn(at, "alice", alicePass)
	if !signedIn(page) || !signedIn(b.get(at)) {
		t.Fatal("not signed in")
	}
	w.clock.advance(w.cfg.SessionLife + time.Second)
	if signedIn(b.get(at)) {
		t.Error("signed in after the session's life")
	}
	form := page.form()
	form.Set("decision", "allow")
	if got := b.post("/consent", form); got.status != http.StatusForbidden && !strings.HasPrefix(got.location, "/authorize") {
		t.Errorf("consent after the session: %d to %s", got.status, got.location)
	}

	b = w.browser()
	b.signIn(at, "alice", alicePass)
	u, err := w.store.User(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if u.PasswordHash, err = w.cfg.Hasher.Hash(turncred.NewSecret([]byte("another one"))); err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetUser(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if signedIn(b.get(at)) {
		t.Error("signed in after the password changed")
	}

	page = b.signIn(at, "alice", "another one")
	_, after, _ := strings.Cut(page.body, `action="/sign-out"`)
	if got := b.post("/sign-out", shown{body: after}.form()); got.status != http.StatusSeeOther || signedIn(b.get(got.location)) {
		t.Errorf("sign out: %d", got.status)
	}

	// A cookie of another WAF, or a damaged one, is none.
	other := newWorld(t, func(c *Config) { c.Secret = turncred.NewSecret([]byte(strings.Repeat("s", 32))) })
	rec := &http.Request{Header: http.Header{}}
	for _, c := range b.Jar.Cookies(mustURL(t, w.web.URL)) {
		rec.AddCookie(c)
	}
	if _, err := other.signedIn(rec); err == nil {
		t.Error("another secret's cookie")
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPasswordHashes(t *testing.T) {
	h := cheap()
	secret := turncred.NewSecret([]byte(alicePass))
	hash, err := h.Hash(secret)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := h.Hash(secret)
	if hash.Equal(again) || !strings.HasPrefix(string(hash.Reveal()), "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("hash %s", hash.Reveal())
	}
	for _, tt := range []struct {
		hash, password string
		want           bool
		wantErr        bool
	}{
		{string(hash.Reveal()), alicePass, true, false}, {string(hash.Reveal()), alicePass + " ", false, false}, {"", "", false, false},
		// by the reference implementation's test vectors, argon2id v=19 t=2 m=65536 p=1, password "password", salt "somesalt"
		{"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", true, false},
		{"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "passwore", false, false},
		{"$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", false, true},
		{"$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", false, true},
		{"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$", "password", false, true}, {"plain", "plain", false, true}, {"$$$$$", "", false, true},
	} {
		got, err := h.check(t.Context(), turncred.NewSecret([]byte(tt.hash)), turncred.NewSecret([]byte(tt.password)))
		if got != tt.want || (err != nil) != tt.wantErr {
			t.Errorf("check(%s, %s) = %v, %v", tt.hash, tt.password, got, err)
		}
	}
	for _, p := range []string{"", "short", strings.Repeat("x", maxPassword+1)} {
		if _, err := h.Hash(turncred.NewSecret([]byte(p))); err == nil {
			t.Errorf("a password of %d bytes", len(p))
		}
	}
}
