package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

//go:embed testdata/oauth_client.html
var oauthClientPage []byte

// oauthClient is a page of another site's, on loopback, that the demo's WAF knows.
type oauthClient struct {
	*httptest.Server
	id string
}

// web is a client that trusts the demo.
func (d *demo) web(t *testing.T) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(d.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func newOAuthClient(t *testing.T, d *demo) *oauthClient {
	t.Helper()
	c := &oauthClient{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNoContent) // the favicon
			return
		}
		settings, _ := json.Marshal(map[string]string{"waf": d.WAF, "client": c.id, "aud": "turn." + d.Domain})
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(bytes.Replace(oauthClientPage, []byte("SETTINGS"), settings, 1))
	}))
	t.Cleanup(c.Close)

	// Step 0: the client is registered (RFC 7591).
	body := fmt.Sprintf(`{"client_name":"Example Phone","redirect_uris":["%s/"],"grant_types":["authorization_code","refresh_token","implicit"]}`, c.URL)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.WAF+"/register", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+d.WAFAccess)
	res, err := d.web(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var got struct {
		ID string `json:"client_id"`
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("register: %s, %v", res.Status, err)
	}
	c.id = got.ID
	return c
}

// The contribution's flow in a browser: redirect, sign-in, consent, token, and an allocation
// at the relay with nothing but ice_servers; and where it goes when it does not go well.
func TestBrowserOAuth(t *testing.T) {
	d := startDemo(t)
	client := newOAuthClient(t, d)
	chrome := startChromium(t, d)
	password := ""
	for _, u := range d.Users {
		if u.User == "alice" {
			password = u.Password
		}
	}
	tb := chrome.open(t, "client", client.URL+"/")

	begin := func(how string) {
		t.Helper()
		tb.click(how)
	}
	press := func(selector string) {
		t.Helper()
		tb.until(fmt.Sprintf("document.querySelector(%q)", selector))
		tb.do(chromedp.Click(chromedp.CSS(selector)))
	}
	back := func(state string) string {
		t.Helper()
		tb.until(fmt.Sprintf("document.getElementById('result')?.dataset.state === %q", state))
		return tb.text("result")
	}

	begin("code")
	tb.until("document.title === 'Sign in'")
	tb.screenshot("oauth-sign-in", 1280)
	tb.screenshot("oauth-sign-in", 390)
	tb.fill("user", "alice")
	tb.fill("password", "not hers")
	press("button.primary")
	tb.until("document.querySelector('[role=alert]')?.textContent.includes('User name or password is wrong')")
	tb.screenshot("oauth-wrong-password", 390)
	tb.fill("password", password)
	press("button.primary")
	tb.until("document.title === 'Allow access?'")
	tb.screenshot("oauth-consent", 1280)
	tb.screenshot("oauth-consent", 390)
	press("button[value=deny]")
	if said := back("access_denied"); !strings.Contains(said, "the user said no") {
		t.Errorf("denied, the client's page says %q", said)
	}

	for _, how := range []string{"code", "implicit"} {
		begin(how)
		press("button[value=allow]") // she is signed in still
		if said := back("relayed"); !strings.Contains(said, " typ relay ") {
			t.Errorf("%s: %s", how, said)
		}
	}

	// Revoked: the same entry gets no allocation any more.
	begin("code")
	press("button[value=allow]")
	back("relayed")
	refresh, err := chromedp.Run(tb.ctx, chromedp.Evaluate[string]("sessionStorage.getItem('refresh')"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.web(t).PostForm(d.WAF+"/revoke", url.Values{"token": {refresh}, "client_id": {client.id}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %s", res.Status)
	}
	tb.do(chromedp.Click(chromedp.ID("log")))
	if _, err := chromedp.Run(tb.ctx, chromedp.Evaluate[bool]("void gather(JSON.parse(sessionStorage.getItem('turn'))), true")); err != nil {
		t.Fatal(err)
	}
	if said := back("refused"); !strings.Contains(said, "401") {
		t.Errorf("revoked: %s", said)
	}

	// An address that nobody registered: a page says so, and nothing leads there.
	tb.do(chromedp.Navigate(d.WAF + "/authorize?" + url.Values{"response_type": {"code"}, "client_id": {client.id}, "redirect_uri": {"https://evil.test/"}}.Encode()))
	tb.until("document.title === 'The application made a mistake'")
	tb.screenshot("oauth-error", 390)

	for _, secret := range []string{refresh, password, d.WAFAccess} {
		if strings.Contains(d.log.String(), secret) {
			t.Error("the log shows a secret")
		}
	}
}
