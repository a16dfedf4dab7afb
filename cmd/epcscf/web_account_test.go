package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// press clicks what a selector finds, on a page that may still be loading.
func (tb *tab) press(selector string) {
	tb.t.Helper()
	tb.until(fmt.Sprintf("document.querySelector(%q)?.checkVisibility()", selector))
	tb.do(chromedp.Click(chromedp.CSS(selector)))
}

// leave goes from the demo's page to the WAF.
func (tb *tab) leave(grant string) {
	tb.t.Helper()
	tb.untilText("sign-in-card", "web account")
	tb.until(fmt.Sprintf("(document.getElementById('grant').value = %q, true)", grant))
	tb.click("web-sign-in")
	tb.until("document.readyState === 'complete' && !document.getElementById('registration-state')") // both have a field #user
}

// allow consents, where the user is signed in at the WAF, and waits for the registration.
func (tb *tab) allow() {
	tb.t.Helper()
	tb.press("button[value=allow]")
	tb.untilBack()
	tb.untilState("registration-state", "registered")
	tb.untilState("credential", "valid")
}

// untilBack waits for the demo's page, and that nothing of the answer is left in its address.
func (tb *tab) untilBack() {
	tb.t.Helper()
	tb.until("document.getElementById('registration-state') && location.search === '' && location.hash === ''")
}

// wantNothingKept fails where a token or a verifier is where a later script or visitor
// could find it. The user name of the credential, which is on show, is no secret.
func (tb *tab) wantNothingKept() {
	tb.t.Helper()
	held, err := chromedp.Run(tb.ctx, chromedp.Evaluate[string](`JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state, window.name])
		+ document.documentElement.outerHTML + performance.getEntries().map((e) => e.name)`))
	if err != nil {
		tb.t.Fatal(err)
	}
	if !strings.HasPrefix(held, `[{},{},"",`) || strings.Contains(held, "eyJ") {
		tb.t.Errorf("%s: the page keeps what it should not:\n%.2000s", tb.name, held)
	}
}

// The operator's web account in the demo's page, as a person meets it: where it goes when it
// does not go well, and then the whole way to a call through the relay with the RFC 7635 token
// in the user name, between one user with a token and one with digest.
func TestBrowserWebAccount(t *testing.T) {
	needChromium(t)
	d := startDemo(t)
	chrome := startChromium(t, d)
	tb := chrome.open(t, "web", d.Page)
	tb.screenshot("web-account-sign-in", 1280)
	tb.screenshot("web-account-sign-in", 390)

	tb.leave("code")
	tb.until("document.title === 'Sign in'")
	tb.fill("user", "alice")
	tb.fill("password", "not hers")
	tb.press("button.primary")
	tb.until("document.querySelector('[role=alert]')?.textContent.includes('User name or password is wrong')")
	tb.fill("password", d.password(t, "alice"))
	tb.press("button.primary")
	tb.press("button[value=deny]")
	tb.untilBack()
	tb.untilText("notice", "You did not allow this page")
	tb.screenshot("web-account-denied", 390)

	// An answer to nothing that this tab has asked.
	tb.do(chromedp.Navigate(d.Page + "?code=stolen&state=forged&iss=" + d.WAF))
	tb.untilBack()
	tb.untilText("notice", "belongs to no sign-in begun in this tab")

	tb.leave("code")
	tb.allow()
	if got := tb.text("registration-state"); got != "alice: registered" {
		t.Errorf("registered as %q", got)
	}
	username := tb.text("cred-username")
	if kid, _, ok := strings.Cut(username, "~"); !ok || tb.text("cred-approach") != "token" {
		t.Errorf("the credential %q is no token", username)
	} else {
		tb.wantFields(t, kid, "turn."+d.Domain)
	}
	checkRelay(t, d, tb)
	tb.wantNothingKept()

	bob := chrome.signIn(t, d, "bob")
	callAndMeasure(t, tb, bob)
	tb.screenshot("web-account-call", 1280)
	tb.screenshot("web-account-call", 390)

	// Revoked during the call: everything ends, at both ends, and the page says why.
	tb.click("token-revoke")
	tb.untilText("notice", "Your sign-in was revoked")
	tb.untilState("registration-state", "failed")
	bob.untilState("call-state", "ended")
	tb.screenshot("web-account-revoked", 390)

	// The contribution's own way: the WAF still knows her.
	tb.leave("implicit")
	tb.allow()
	checkRelay(t, d, tb)
	tb.untilText("token-renewal", "no refresh token")
	tb.wantNothingKept()
	tb.click("sign-out") // takes the tokens back too
	tb.untilState("registration-state", "signed-out")
	for deadline := time.Now().Add(patience); strings.Count(d.log.String(), `reason="by the client"`) < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("signed out, and the WAF has not revoked the grant\n%s", d.log)
		}
	}
	bob.wantQuietConsole()
	for _, secret := range []string{d.password(t, "alice"), username, "eyJ"} {
		if strings.Contains(d.log.String(), secret) {
			t.Error("the log shows a secret")
		}
	}
}

// wantFields opens the card with what the relay sees, and wants no secret in it.
func (tb *tab) wantFields(t *testing.T, kid, server string) {
	t.Helper()
	tb.click("token-fields-toggle")
	for _, want := range []string{kid, server, "64 bytes", "Issued", "10 min 0 s", "160 bits, not shown"} {
		tb.untilText("token-fields", want)
	}
	tb.screenshot("web-account-fields", 1280)
	secret, err := chromedp.Run(tb.ctx, chromedp.Evaluate[bool]("document.getElementById('token-fields').textContent.includes(document.getElementById('cred-username').textContent)"))
	if err != nil || secret {
		t.Errorf("the whole token stands among its fields (%v)", err)
	}
}

// Tokens of a short life: with a refresh token they are renewed for as long as the page is
// open; without one, registration and credential end with them, and the page says so.
func TestBrowserTokenEnds(t *testing.T) {
	needChromium(t)
	d := startDemo(t, "--token-life", "10s", "--ttl", "5s")
	chrome := startChromium(t, d)
	stays := chrome.open(t, "stays", d.Page)
	stays.leave("code")
	stays.fill("user", "alice")
	stays.fill("password", d.password(t, "alice"))
	stays.press("button.primary")
	stays.allow()
	first := stays.text("cred-username")
	bob := chrome.signIn(t, d, "bob")
	stays.fill("call-target", "bob")
	stays.click("call")
	bob.click("answer")
	stays.untilState("call-state", "connected")

	ends := chrome.open(t, "ends", d.Page)
	ends.leave("implicit")
	ends.press("button[value=allow]")
	ends.untilBack()
	ends.until("document.getElementById('cred-state').textContent.includes('sign in again for another one')")
	ends.untilText("notice", "has expired")
	ends.untilState("registration-state", "failed")
	ends.screenshot("web-account-expired", 390)

	stays.until("Number(document.getElementById('token-card').dataset.renewals) >= 3")
	stays.untilState("registration-state", "registered")
	stays.untilState("credential", "valid")
	if stays.text("cred-username") == first {
		t.Error("the credential is still the first one")
	}
	packets := stays.text("audio-packets") // the call goes on over its old allocations
	stays.until(fmt.Sprintf("Number(document.getElementById('audio-packets').textContent) > %s + 50", packets))
	stays.untilState("call-state", "connected")
	checkRelay(t, d, stays)
	stays.screenshot("web-account-renewed", 1280)
	stays.wantQuietConsole()
}

// The demo says what its relay reads in a token to whoever has the token, and no key.
func TestDemoTokenFields(t *testing.T) {
	d := startDemo(t)
	var config struct {
		OAuth struct {
			Issuer      string `json:"issuer"`
			TokenFields string `json:"token_fields"`
		} `json:"oauth"`
	}
	res, err := d.client(t).Get(d.Page + "config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&config); err != nil || config.OAuth.Issuer != d.WAF || config.OAuth.TokenFields == "" {
		t.Fatalf("config.json: %+v, %v", config, err)
	}
	if policy := res.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "connect-src 'self' "+d.WAF+";") {
		t.Errorf("policy %q", policy)
	}
	for _, username := range []string{"", "k", "k~", "k~AAAA", "~", strings.Repeat("x", 2000)} {
		res, err := d.client(t).PostForm(strings.TrimSuffix(d.Page, "/")+config.OAuth.TokenFields, map[string][]string{"username": {username}})
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 422 && res.StatusCode != 400 {
			t.Errorf("%.10q: %s, want a refusal", username, res.Status)
		}
	}
}
