package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"epcscf/internal/realpart"
)

// signIn registers a user of the demo in a tab of its own.
func (c *chromium) signIn(t *testing.T, d *demo, user string) *tab {
	t.Helper()
	tb := c.open(t, user, d.Page)
	for _, u := range d.Users {
		if u.User == user {
			tb.fill("user", user)
			tb.fill("password", u.Password)
			tb.click("sign-in")
			tb.untilState("registration-state", "registered")
			tb.untilState("credential", "valid")
			return tb
		}
	}
	t.Fatalf("the demo has no user %s", user)
	return nil
}

// TestBrowserCall is the whole of it, in Chromium, for each approach: two users sign in
// with digest, get credentials in the SIP header, see that the relay works by every
// transport, and call with audio and data through the relay alone.
func TestBrowserCall(t *testing.T) {
	for _, approach := range []string{"shared-key", "push"} {
		t.Run(approach, func(t *testing.T) {
			needChromium(t)
			d := startDemo(t, "--turn-approach", approach)
			c := startChromium(t, d)
			alice, bob := c.signIn(t, d, "alice"), c.signIn(t, d, "bob")
			for _, tb := range []*tab{alice, bob} {
				if got := tb.text("cred-approach"); got != approach {
					t.Errorf("%s: approach = %q, want %q", tb.name, got, approach)
				}
				if a, b := tb.text("cred-username"), tb.text("cred-password"); !strings.Contains(a, ":") || strings.Trim(b, "•") != "" {
					t.Errorf("%s: username %q, password %q; want Tid:Texp and dots", tb.name, a, b)
				}
			}
			if alice.text("cred-username") == bob.text("cred-username") {
				t.Error("alice and bob have the same credential")
			}
			checkRelay(t, d, alice)
			callAndMeasure(t, alice, bob)
			sendText(alice, bob)

			alice.screenshot("call-"+approach, 1280)
			bob.screenshot("call-"+approach, 390)

			bob.click("hang-up")
			alice.untilText("call-state", "bob hung up")
			alice.click("sign-out")
			alice.untilState("registration-state", "signed-out")
			if got := alice.text("cred-username"); got != "none" {
				t.Errorf("after signing out the page still has the credential %q", got)
			}
			alice.wantQuietConsole()
			bob.wantQuietConsole()
		})
	}
}

// checkRelay presses "Check the relay" and wants a candidate at each URI.
func checkRelay(t *testing.T, d *demo, tb *tab) {
	t.Helper()
	tb.click("relay-check")
	tb.until(fmt.Sprintf("document.querySelectorAll('#relay-results li[data-result]').length === %d", len(d.TURNURIs)))
	for _, transport := range []string{"udp", "tcp", "tls"} {
		tb.until(fmt.Sprintf("document.querySelector('#relay-results li[data-transport=%s][data-result=ok]')", transport))
	}
}

// callAndMeasure lets alice call bob: audio and 1 MiB each way, relay to relay.
func callAndMeasure(t *testing.T, alice, bob *tab) {
	t.Helper()
	alice.fill("call-target", "bob")
	alice.click("call")
	alice.untilState("call-state", "ringing")
	bob.untilText("incoming", "alice")
	bob.click("answer")
	for _, tb := range []*tab{alice, bob} {
		tb.untilState("call-state", "connected")
	}
	alice.click("send-data")
	bob.click("send-data")
	for _, tb := range []*tab{alice, bob} {
		tb.until("document.getElementById('data-received').dataset.bytes >= 1024 * 1024")
		tb.until("Number(document.getElementById('audio-packets').textContent) >= 100")
		for _, id := range []string{"local-candidate", "remote-candidate"} {
			// A check may come before the description that names its sender: prflx, for a moment.
			tb.until(fmt.Sprintf("document.getElementById('%s').textContent.startsWith('relay ')", id))
		}
		// Bytes of the transport, as the browser counts them: the data went this way.
		tb.until("document.getElementById('bytes-received').textContent.includes('MiB')")
	}
}

func sendText(from, to *tab) {
	from.fill("message-text", "Grüße <b>no markup</b>")
	from.click("send-message")
	to.untilText("messages", "Grüße <b>no markup</b>")
	from.until("document.querySelector('#messages li[data-result=ok]')")
}

// TestBrowserRenews sees credentials of a short life replaced by OPTIONS at 80 % of it,
// while a call that began with an old one goes on.
func TestBrowserRenews(t *testing.T) {
	needChromium(t)
	d := startDemo(t, "--ttl", "5s")
	c := startChromium(t, d)
	alice, bob := c.signIn(t, d, "alice"), c.signIn(t, d, "bob")
	alice.click("renew")
	alice.until("document.querySelectorAll('#cred-history li[data-source=OPTIONS]').length >= 1")
	alice.click("call")
	bob.click("answer")
	alice.untilState("call-state", "connected")

	first := alice.text("cred-username")
	alice.until("document.querySelectorAll('#cred-history li[data-source=OPTIONS]').length >= 3")
	if now := alice.text("cred-username"); now == first {
		t.Errorf("the credential is still %q", now)
	}
	alice.click("reveal-password")
	if got := alice.text("cred-password"); got == "" || strings.Contains(got, "•") {
		t.Error("the password is not shown when asked for")
	}
	before := alice.text("audio-packets")
	alice.until(fmt.Sprintf("Number(document.getElementById('audio-packets').textContent) > %s + 50", before))
	alice.untilState("call-state", "connected")
	alice.wantQuietConsole()
}

// TestBrowserHeals lets a page believe that the connection of its call has failed, at
// either end: it gets a new credential and restarts ICE by re-INVITE, and the call goes
// on over new allocations.
func TestBrowserHeals(t *testing.T) {
	needChromium(t)
	d := startDemo(t)
	c := startChromium(t, d)
	alice, bob := c.signIn(t, d, "alice"), c.signIn(t, d, "bob")
	for _, tb := range []*tab{alice, bob} {
		tb.until(`(window.made = [], window.RTCPeerConnection = class extends RTCPeerConnection {
			constructor(...args) { super(...args); made.push(this); }
		}, true)`)
	}
	alice.click("call")
	bob.click("answer")
	for _, tb := range []*tab{alice, bob} {
		tb.untilState("call-state", "connected")
		tb.until("document.getElementById('local-candidate').textContent.startsWith('relay')")
	}
	for _, tb := range []*tab{alice, bob} { // the caller heals at once, the called side after 4 s
		credential, candidate := tb.text("cred-username"), tb.text("local-candidate")
		tb.until(`(Object.defineProperty(made[0], 'connectionState', { value: 'failed', configurable: true }),
			made[0].dispatchEvent(new Event('connectionstatechange')), true)`)
		tb.untilState("call-state", "healing")
		tb.until(fmt.Sprintf("document.getElementById('cred-username').textContent !== %q", credential))
		tb.until("(delete made[0].connectionState, made[0].dispatchEvent(new Event('connectionstatechange')), true)")
		tb.until(fmt.Sprintf("document.getElementById('local-candidate').textContent !== %q", candidate))
		tb.untilState("call-state", "connected")
		packets := tb.text("audio-packets")
		tb.until(fmt.Sprintf("Number(document.getElementById('audio-packets').textContent) > %s + 50", packets))
	}
	alice.click("send-data")
	bob.until("document.getElementById('data-received').dataset.bytes >= 1024 * 1024")
	for _, tb := range []*tab{alice, bob} {
		// Each end's own candidate is the other's remote one. That may show as prflx for good
		// here: the called side may go on with its old allocation, which the new description
		// does not name.
		if got := tb.text("local-candidate"); !strings.HasPrefix(got, "relay ") {
			t.Errorf("%s: local-candidate = %q, want a relay", tb.name, got)
		}
		tb.wantQuietConsole()
	}
}

// TestBrowserSaysWhatToDo looks at failures as a person meets them.
func TestBrowserSaysWhatToDo(t *testing.T) {
	needChromium(t)
	d := startDemo(t)
	c := startChromium(t, d)

	stranger := c.open(t, "stranger", d.Page)
	stranger.fill("user", "alice")
	stranger.fill("password", "wrong")
	stranger.click("sign-in")
	stranger.untilText("notice", "password is wrong")
	stranger.untilState("registration-state", "failed")
	stranger.screenshot("wrong-password", 1280)

	alice, bob := c.signIn(t, d, "alice"), c.signIn(t, d, "bob")
	for _, tt := range []struct{ target, want string }{
		{"nobody", "There is no user nobody"},
		{"carol", "carol is not signed in"},
	} {
		alice.fill("call-target", tt.target)
		alice.click("call")
		alice.untilText("call-notice", tt.want)
		alice.untilState("call-state", "failed")
	}
	alice.fill("call-target", "bob")
	alice.click("call")
	bob.click("reject")
	alice.untilText("call-notice", "bob rejected the call")
	alice.click("call")
	bob.untilText("incoming", "alice")
	alice.click("hang-up")
	bob.untilText("call-state", "alice gave up")

	// A machine without a microphone, and a user who is in a call already.
	alice.until("(navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError')), true)")
	alice.click("call")
	alice.untilText("call-notice", `There is no microphone. Plug one in, or choose "Test tone"`)
	alice.until("(document.getElementById('audio-source').value = 'tone', true)")
	alice.click("call")
	bob.click("answer")
	bob.until("Number(document.getElementById('audio-packets').textContent) > 0")
	carol := c.signIn(t, d, "carol")
	carol.fill("call-target", "bob")
	carol.click("call")
	carol.untilText("call-notice", "bob is in another call")
	carol.wantQuietConsole()

	if code := d.stop(t); code != 0 {
		t.Errorf("demo: exit %d, want 0", code)
	}
	alice.untilState("registration-state", "disconnected")
	alice.untilText("notice", "reconnects by itself")
	alice.screenshot("server-gone", 390)
	// Chromium itself writes each failed connection to the console.
	alice.wantQuietConsole("WebSocket connection to", "ERR_CONNECTION_REFUSED")
	stranger.wantQuietConsole()
}

// TestBrowserDistrustsTURNS is a person who clicked the warning of the page away: turns:
// fails for want of trust, and the page says how to get it.
func TestBrowserDistrustsTURNS(t *testing.T) {
	needChromium(t)
	d := startDemo(t)
	c := startChromium(t, nil)
	alice := c.openDistrusted(t, d)
	alice.fill("user", d.Users[0].User)
	alice.fill("password", d.Users[0].Password)
	alice.click("sign-in")
	alice.untilState("credential", "valid")
	alice.click("relay-check")
	alice.until("document.querySelector('#relay-results li[data-transport=udp][data-result=ok]')")
	alice.until("document.querySelector('#relay-results li[data-transport=tls][data-result=failed]')")
	alice.untilText("relay-results", "ignore-certificate-errors-spki-list="+d.SPKI)
	alice.untilText("relay-results", "CA certificate")
	alice.screenshot("turns-distrusted", 1280)
}

// TestBrowserTrustsTheImportedCA imports DIR/ca.pem as the banner says, without any flag: the
// page, wss and turns: are trusted then, though the CA is bound to this host's names.
func TestBrowserTrustsTheImportedCA(t *testing.T) {
	needChromium(t)
	certutil := realpart.Program(t, "certutil", "libnss3-tools")
	d := startDemo(t)
	home := t.TempDir()
	store := filepath.Join(home, ".pki", "nssdb") // where Chromium on Linux looks
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-N", "--empty-password", "-d", "sql:" + store},
		{"-A", "-n", "epcscf demo", "-t", "C,,", "-i", d.CA, "-d", "sql:" + store},
	} {
		if out, err := exec.Command(certutil, args...).CombinedOutput(); err != nil {
			t.Fatalf("certutil %s: %v\n%s", args[0], err, out)
		}
	}
	c := startChromium(t, nil, chromedp.Env("HOME="+home))
	alice := c.signIn(t, d, "alice")
	checkRelay(t, d, alice)
	alice.wantQuietConsole()
}

// openDistrusted opens the page past Chromium's warning.
func (c *chromium) openDistrusted(t *testing.T, d *demo) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx)
	t.Cleanup(cancel)
	tb := &tab{t: t, name: "distrusting", ctx: ctx}
	_ = chromedp.Do(ctx, chromedp.Navigate(d.Page)) // ERR_CERT_AUTHORITY_INVALID
	tb.click("details-button")
	tb.click("proceed-link")
	tb.until(`document.getElementById('log')?.childElementCount > 0`)
	return tb
}
