package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"epcscf/cmd/internal/node"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// demo is what epcscf demo runs, on ports of the kernel's choice.
type demo struct {
	node.Info
	dir string
}

func startDemo(t *testing.T, change func(*node.Demo)) demo {
	t.Helper()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	cfg := node.Demo{
		Listen: any, TURNListen: any, TURNSListen: any, AdminListen: any, CoreListen: any,
		Domain: "ims.test", Approach: turncred.ApproachSharedKey, TTL: 10 * time.Minute, DataDir: t.TempDir(),
	}
	if change != nil {
		change(&cfg)
	}
	n, err := node.ListenDemo(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	d := demo{n.Info(), t.TempDir()}
	for _, u := range d.Users {
		d.write(t, u.User+".pw", u.Password+"\n")
	}
	d.write(t, "wrong.pw", "not the password\n")
	return d
}

func (d demo) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// args are a command's arguments for a user of the demo, with more that win.
func (d demo) args(command, user string, more ...string) []string {
	return append([]string{
		command, "--url", d.WebSocket, "--domain", d.Domain, "--user", user,
		"--password-file", filepath.Join(d.dir, user+".pw"), "--ca", d.CA,
	}, more...)
}

// wic runs the command.
func wic(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

// succeed runs the command, which must.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errOut := wic(t, args...)
	if code != exitOK || errOut != "" {
		t.Fatalf("wic %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// fail runs the command, which must end with code and say each of words.
func fail(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	got, out, errOut := wic(t, args...)
	if got != code {
		t.Fatalf("wic %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errOut)
	}
	for _, w := range words {
		if !strings.Contains(errOut, w) {
			t.Errorf("wic %s: standard error lacks %q:\n%s", strings.Join(args, " "), w, errOut)
		}
	}
}

var approaches = []turncred.Approach{turncred.ApproachSharedKey, turncred.ApproachPush}

func TestEachApproach(t *testing.T) {
	for _, a := range approaches {
		t.Run(string(a), func(t *testing.T) {
			d := startDemo(t, func(c *node.Demo) { c.Approach = a })
			t.Run("register", func(t *testing.T) { testCredential(t, d, "register") })
			t.Run("options", func(t *testing.T) { testCredential(t, d, "options") })
			t.Run("relay-check", func(t *testing.T) { testRelayCheck(t, d) })
		})
	}
}

func testCredential(t *testing.T, d demo, command string) {
	var r credentialReport
	if err := json.Unmarshal([]byte(succeed(t, d.args(command, "alice", "--json", "--show-password")...)), &r); err != nil {
		t.Fatal(err)
	}
	if r.Password == "" || r.Realm != d.Domain || r.TTL < 590 || r.TTL > 600 || r.Registered != 600 || r.Approach != string(d.Approach) || !slices.Equal(r.URIs, d.TURNURIs) {
		r.Password = turncred.Redacted
		t.Errorf("%+v", r)
	}
	if !regexp.MustCompile(`^[a-zA-Z0-9]+-[-_a-zA-Z0-9]{22}:\d+$`).MatchString(r.Username) {
		t.Errorf("username = %q, want Tid:Texp", r.Username)
	}
	if !slices.Equal(r.Associated, []string{"sip:alice@ims.test"}) {
		t.Errorf("associated = %v", r.Associated)
	}
	// Without --show-password, no form of it is printed.
	for _, form := range []string{"--json=true", "--json=false"} {
		out := succeed(t, d.args(command, "alice", form)...)
		if strings.Contains(out, `"password"`) || !strings.Contains(out, "turns:") {
			t.Errorf("%s: %s", form, out)
		}
	}
	if out := succeed(t, d.args(command, "alice")...); !strings.Contains(out, "hidden; --show-password prints it") {
		t.Errorf("text output:\n%s", out)
	}
}

func testRelayCheck(t *testing.T, d demo) {
	var r relayReport
	if err := json.Unmarshal([]byte(succeed(t, d.args("relay-check", "bob", "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Checks) != 3 || r.AOR != "sip:bob@ims.test" {
		t.Fatalf("%+v", r)
	}
	for i, c := range r.Checks {
		if !c.OK || c.URI != d.TURNURIs[i] || !strings.HasPrefix(c.Relayed, "127.0.0.1:") || c.Allocate <= 0 || c.RoundTrip <= 0 || c.Error != "" {
			t.Errorf("%+v", c)
		}
	}
	out := succeed(t, d.args("relay-check", "bob")...)
	if strings.Count(out, "ok ") != 3 || !strings.Contains(out, "turns:") {
		t.Errorf("text output:\n%s", out)
	}
}

// --keep holds the registration, and with it the credential, until the interrupt.
func TestKeep(t *testing.T) {
	d := startDemo(t, nil)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &firstWrite{arrived: make(chan struct{})}
	var errOut bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, d.args("register", "carol", "--json", "--keep"), out, &errOut) }()
	<-out.arrived
	select {
	case c := <-code:
		t.Fatalf("--keep: exit %d before the interrupt: %s", c, &errOut)
	default:
	}
	interrupt()
	if c := <-code; c != exitOK {
		t.Errorf("after the interrupt: exit %d: %s", c, &errOut)
	}
}

// firstWrite says when output comes.
type firstWrite struct {
	once    sync.Once
	arrived chan struct{}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.arrived) })
	return len(p), nil
}

// unreachable is a relay that takes no credential.
type unreachable struct{}

func (unreachable) Put(context.Context, push.Record) error {
	return errors.New("no route to the relay")
}

func TestUnavailable(t *testing.T) {
	d := startDemo(t, func(c *node.Demo) { c.Approach, c.Sink = turncred.ApproachPush, unreachable{} })
	for _, command := range []string{"register", "options", "relay-check"} {
		fail(t, exitFailed, []string{"sip:alice@ims.test is registered", "unavailable", "relay-unreachable", "ask again in 30s"}, d.args(command, "alice")...)
	}
}

func TestFailures(t *testing.T) {
	d := startDemo(t, nil)
	wrong := filepath.Join(d.dir, "wrong.pw")
	admin := strings.Replace(d.Admin, "http:", "wss:", 1)
	path := strings.TrimSuffix(d.WebSocket, "/ws")
	for _, tt := range []struct {
		name  string
		words []string
		args  []string
	}{
		{"wrong password", []string{"401", "alice", "--password-file"}, d.args("register", "alice", "--password-file", wrong)},
		{"another user's password", []string{"403", "sip:alice@ims.test"}, d.args("register", "alice", "--auth-user", "bob", "--password-file", filepath.Join(d.dir, "bob.pw"))},
		{"unknown authority", []string{"authority", "--ca DIR/ca.pem"}, d.args("register", "alice", "--ca", "")},
		{"origin", []string{"403", "--origin", "https://localhost"}, d.args("register", "alice", "--origin", "https://evil.example")},
		{"refused", []string{"connection refused", "127.0.0.1:1"}, d.args("register", "alice", "--url", "wss://127.0.0.1:1/ws")},
		{"no TLS", []string{"does not speak TLS"}, d.args("register", "alice", "--url", admin)},
		{"no WebSocket", []string{"no WebSocket at this path"}, d.args("register", "alice", "--url", path+"/nothing")},
		{"no name", []string{"does not resolve"}, d.args("register", "alice", "--url", "wss://nowhere.invalid/ws")},
		{"another domain", []string{"REGISTER"}, d.args("register", "alice", "--domain", "other.test")},
		{"no password file", []string{"--password-file", "no such file"}, d.args("register", "nobody")},
		{"no token file", []string{"--token-file", "no such file"}, d.args("register", "alice", "--password-file", "", "--token-file", wrong+".not")},
		{"a token, and no WAF", []string{"401", "core", "trust the edge"}, d.args("register", "alice", "--password-file", "", "--token-file", wrong)},
		{"CA is no PEM", []string{"--ca", "no certificate"}, d.args("register", "alice", "--ca", wrong)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fail(t, exitFailed, tt.words, tt.args...)
		})
	}
}

func TestUsage(t *testing.T) {
	ok := []string{"--user", "alice", "--password-file", "f"}
	for _, tt := range []struct {
		words []string
		args  []string
	}{
		{[]string{"register, options or relay-check"}, nil},
		{[]string{"unknown command"}, []string{"registre"}},
		{[]string{"unknown flag"}, append(ok, "register", "--pasword")},
		{[]string{"--user"}, []string{"register", "--password-file", "f"}},
		{[]string{"--password-file"}, []string{"options", "--user", "alice"}},
		{[]string{"--token-file"}, []string{"options", "--user", "alice"}},
		{[]string{"one of them"}, append(ok, "register", "--token-file", "t")},
		{[]string{"in clear"}, append(ok, "register", "--url", "ws://127.0.0.1/")},
		{[]string{"wss://HOST"}, append(ok, "register", "--url", "127.0.0.1:8443")},
		{[]string{"--timeout"}, append(ok, "register", "--timeout", "0")},
		{[]string{"--domain"}, append(ok, "register", "--domain", "")},
		{[]string{"unknown command"}, append(ok, "register", "alice")},
	} {
		fail(t, exitUsage, tt.words, tt.args...)
	}
	if out := succeed(t, "--version"); !strings.Contains(out, version) {
		t.Errorf("--version prints %q", out)
	}
	for _, c := range []string{"register", "options", "relay-check"} {
		if out := succeed(t, c, "--help"); !strings.Contains(out, "--password-file") {
			t.Errorf("%s --help:\n%s", c, out)
		}
	}
}
