package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"epcscf/internal/realpart"
)

// TestBrowserSIPjs: the other client library. A WIC on SIP.js with our adapter registers,
// gets its credential in the header and another by OPTIONS, is called by the page's JsSIP and
// calls it, with audio over the relay alone.
func TestBrowserSIPjs(t *testing.T) {
	needChromium(t)
	bundle, err := os.ReadFile(filepath.Join("..", "..", "wic", "node_modules", ".tests", "sipjs-page.js"))
	if err != nil {
		realpart.Missing(t, "the SIP.js client is not built (run npm test in wic)")
	}
	for _, approach := range []string{"shared-key", "push"} {
		t.Run(approach, func(t *testing.T) {
			d := startDemo(t, "--turn-approach", approach)
			c := startChromium(t, d)
			alice := c.signIn(t, d, "alice")
			bob := c.open(t, "bob", d.Page)
			bob.run(string(bundle))
			bob.run(fmt.Sprintf("globalThis.phone = new SIPjsPhone('bob', %q, %q); phone.register()", d.password(t, "bob"), d.Domain))
			bob.until("phone.registered && phone.sources.join() === 'REGISTER'")
			bob.run("phone.turn.renew()")
			bob.until("phone.sources.join() === 'REGISTER,OPTIONS'")

			alice.fill("call-target", "bob")
			alice.click("call")
			alice.untilState("call-state", "connected")
			bob.relayOnly()
			bob.run("phone.hangUp()")
			alice.untilText("call-state", "hung up")

			bob.run("phone.call('alice')")
			alice.click("answer")
			alice.untilState("call-state", "connected")
			bob.relayOnly()
			alice.click("hang-up")
			bob.until("!phone.calling")

			bob.run("phone.unregister()")
			bob.until("!phone.registered && phone.turn.credential === undefined")
			alice.wantQuietConsole()
			bob.wantQuietConsole()
		})
	}
}

// relayOnly waits for a call of the SIP.js phone to run over the relay at both ends.
func (tb *tab) relayOnly() {
	tb.t.Helper()
	tb.until("phone.calling")
	tb.until("(phone.media().then((m) => globalThis.media = m), globalThis.media?.packets > 50 && [media.local, media.remote].join() === 'relay,relay')")
	tb.run("globalThis.media = undefined")
}

// run evaluates JavaScript and waits for what it promises.
func (tb *tab) run(js string) {
	tb.t.Helper()
	ctx, cancel := tb.bounded()
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[chromedp.Void](js, chromedp.EvalAwaitPromise)); err != nil {
		tb.t.Fatalf("%s: %s: %v\n%s", tb.name, js[:min(80, len(js))], err, tb.story())
	}
}

// password is that of one of the demo's users.
func (d *demo) password(t *testing.T, user string) string {
	t.Helper()
	for _, u := range d.Users {
		if u.User == user {
			return u.Password
		}
	}
	t.Fatalf("the demo has no user %s", user)
	return ""
}
