package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"epcscf/internal/realpart"
	"epcscf/wic"
)

// patience is how long a browser may take for one step, with the race detector and on
// a busy machine.
const patience = 30 * time.Second

// chromium is a browser that trusts one demo. Its flags are the ones that the demo's
// banner names, and what a machine without microphone and screen needs.
type chromium struct {
	ctx context.Context
}

// startChromium skips the test where there is no browser or no page to drive; with
// CI=true that is a failure.
func startChromium(t *testing.T, d *demo, flags ...chromedp.ExecAllocatorOption) *chromium {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		chromedp.ExecPath(needChromium(t)), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("use-fake-device-for-media-stream", true), chromedp.Flag("use-fake-ui-for-media-stream", true),
		// A machine that has lo alone gathers no candidates without it.
		chromedp.Flag("allow-loopback-in-peer-connection", true),
	)
	if d != nil {
		opts = append(opts, chromedp.Flag("ignore-certificate-errors-spki-list", d.SPKI))
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(opts, flags...)...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		ctx, done := context.WithTimeout(ctx, 10*time.Second)
		defer done()
		_ = chromedp.Cancel(ctx)
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return &chromium{ctx: ctx}
}

func needChromium(t *testing.T) string {
	t.Helper()
	if !wic.Built() {
		realpart.Missing(t, "the page is not built (run make build)")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		realpart.Missing(t, "chromium is not installed")
	}
	return path
}

// tab is a tab with a page in it, and what the page wrote to the console.
type tab struct {
	t    *testing.T
	name string
	ctx  context.Context

	mu      sync.Mutex // guards console
	console []string
}

// open opens url in a tab of its own.
func (c *chromium) open(t *testing.T, name, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx)
	t.Cleanup(cancel)
	tb := &tab{t: t, name: name, ctx: ctx}
	messages := chromedp.Console(ctx)
	go func() { // ends with ctx
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				tb.mu.Lock()
				tb.console = append(tb.console, m.String())
				tb.mu.Unlock()
			}
		}
	}()
	tb.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url))
	tb.until(`document.getElementById('log').childElementCount > 0`) // the page has its settings
	return tb
}

// do runs actions; each kind of failure ends the test with what the page says.
func (tb *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := tb.bounded()
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		tb.t.Fatalf("%s: %v\n%s", tb.name, err, tb.story())
	}
}

// bounded limits one step. The first use of a chromedp context must have no deadline.
func (tb *tab) bounded() (context.Context, context.CancelFunc) {
	if _, err := chromedp.Run(tb.ctx, chromedp.Title()); err != nil {
		tb.t.Fatalf("%s: %v", tb.name, err)
	}
	return context.WithTimeout(tb.ctx, patience)
}

// until waits for a JavaScript expression to be true.
func (tb *tab) until(expression string) {
	tb.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		// Evaluate, and not chromedp.Poll, whose own script the page's policy forbids.
		ok, err := chromedp.Run(tb.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return
		}
		if time.Now().After(deadline) {
			tb.t.Fatalf("%s: not in %v: %s (%v)\n%s", tb.name, patience, expression, err, tb.story())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// text returns the text of the element with that id.
func (tb *tab) text(id string) string {
	tb.t.Helper()
	s, err := chromedp.Run(tb.ctx, chromedp.Evaluate[string](fmt.Sprintf("document.getElementById(%q).textContent", id)))
	if err != nil {
		tb.t.Fatalf("%s: #%s: %v", tb.name, id, err)
	}
	return s
}

// click clicks the element with that id, when it can be clicked.
func (tb *tab) click(id string) {
	tb.t.Helper()
	tb.until(fmt.Sprintf("document.getElementById(%[1]q).checkVisibility() && !document.getElementById(%[1]q).disabled", id))
	tb.do(chromedp.Click(chromedp.ID(id)))
}

// fill replaces what the field with that id holds, as a person does.
func (tb *tab) fill(id, text string) {
	tb.t.Helper()
	tb.until(fmt.Sprintf("document.getElementById(%[1]q).checkVisibility() && (document.getElementById(%[1]q).select(), true)", id))
	tb.do(chromedp.SendKeys(chromedp.ID(id), text))
}

// untilState waits for the data-state of an element.
func (tb *tab) untilState(id, state string) {
	tb.t.Helper()
	tb.until(fmt.Sprintf("document.getElementById(%q).dataset.state === %q", id, state))
}

// untilText waits for an element to contain text.
func (tb *tab) untilText(id, text string) {
	tb.t.Helper()
	tb.until(fmt.Sprintf("document.getElementById(%[1]q).checkVisibility() && document.getElementById(%[1]q).textContent.includes(%[2]q)", id, text))
}

// story is what the page has to say for itself when a test fails.
func (tb *tab) story() string {
	var b strings.Builder
	log, err := chromedp.Run(tb.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	fmt.Fprintf(&b, "the page: %s (%v)\n", log, err)
	tb.mu.Lock()
	defer tb.mu.Unlock()
	fmt.Fprintf(&b, "the console: %s", strings.Join(tb.console, "\n"))
	return b.String()
}

// wantQuietConsole fails the test for every error and warning on the console but those
// that contain one of expected.
func (tb *tab) wantQuietConsole(expected ...string) {
	tb.t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
next:
	for _, m := range tb.console {
		for _, e := range expected {
			if strings.Contains(m, e) {
				continue next
			}
		}
		tb.t.Errorf("%s: console: %s", tb.name, m)
	}
}

// screenshot keeps a picture of the whole page, wide or narrow, under artifacts/.
func (tb *tab) screenshot(name string, width int64) {
	tb.t.Helper()
	tb.do(chromedp.EmulateViewport(width, 900))
	tb.until(fmt.Sprintf("document.documentElement.scrollWidth <= %d", width)) // nothing sticks out
	ctx, cancel := tb.bounded()
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		tb.t.Fatalf("%s: screenshot: %v", tb.name, err)
	}
	dir := filepath.Join("..", "..", "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%s-%d.png", name, tb.name, width)), png, 0o600); err != nil {
		tb.t.Fatal(err)
	}
}
