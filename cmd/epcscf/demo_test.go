package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"epcscf/cmd/internal/node"
	"epcscf/internal/realpart"
)

// demo is `epcscf demo` in this process, on ports of its own.
type demo struct {
	node.Info
	out, log *realpart.Output
	ctrlC    context.CancelFunc
	exit     chan int
}

// startDemo runs the command and waits until it is ready. It ends with the test.
func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	return startDemoIn(t, t.TempDir(), args...)
}

// startDemoIn is startDemo with a data directory.
func startDemoIn(t *testing.T, dir string, args ...string) *demo {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &demo{out: &realpart.Output{}, log: &realpart.Output{}, ctrlC: cancel, exit: make(chan int, 1)}
	all := append([]string{
		"demo", "--listen", "127.0.0.1:0", "--turn-listen", "127.0.0.1:0", "--turns-listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0", "--core-listen", "127.0.0.1:0", "--waf-listen", "127.0.0.1:0", "--data-dir", dir,
	}, args...)
	go func() { d.exit <- run(ctx, all, d.out, d.log) }()
	t.Cleanup(func() { d.stop(t) })

	deadline := time.Now().Add(20 * time.Second) // the race detector and a busy machine
	for {
		raw, err := os.ReadFile(filepath.Join(dir, "demo.json"))
		if err == nil && json.Unmarshal(raw, &d.Info) == nil && d.ready() {
			return d
		}
		select {
		case code := <-d.exit:
			d.exit <- code
			t.Fatalf("demo ended with %d before it was ready\n%s%s", code, d.out, d.log)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("demo is not ready\n%s%s", d.out, d.log)
		}
	}
}

func (d *demo) ready() bool {
	res, err := http.Get(d.Admin + "/readyz")
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode == http.StatusOK
}

// stop presses Ctrl-C and returns the exit code.
func (d *demo) stop(t *testing.T) int {
	t.Helper()
	d.ctrlC()
	select {
	case code := <-d.exit:
		d.exit <- code
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("demo does not end\n%s", d.log)
		return -1
	}
}

// client trusts the demo's CA and nothing else.
func (d *demo) client(t *testing.T) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(d.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestDemoSaysWhereItListensAndEndsCleanly(t *testing.T) {
	for _, approach := range []string{"shared-key", "push"} {
		d := startDemo(t, "--turn-approach", approach)
		banner := d.out.String()
		for _, want := range append([]string{approach, d.Page, d.WebSocket, d.CoreListen, d.Admin, d.SPKI, d.CA, "demo.json", "Ctrl-C"}, d.TURNURIs...) {
			if !strings.Contains(banner, want) {
				t.Errorf("%s: the banner does not say %q:\n%s", approach, want, banner)
			}
		}
		for _, u := range d.Users {
			if !regexp.MustCompile(`(?m)` + u.User + `\s.*` + regexp.QuoteMeta(u.Password)).MatchString(banner) {
				t.Errorf("%s: the banner does not give %s's password", approach, u.User)
			}
		}
		if len(d.Users) != 3 || len(d.TURNURIs) != 3 || !strings.HasPrefix(d.TURNURIs[0], "turns:") {
			t.Errorf("%s: %d users, TURN URIs %q; want alice, bob and carol, and three URIs with turns first", approach, len(d.Users), d.TURNURIs)
		}
		st, err := os.Stat(filepath.Join(d.DataDir, "demo.json"))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: demo.json: %v, %v; want mode 0600", approach, st.Mode(), err)
		}
		if code := d.stop(t); code != 0 || !strings.Contains(d.out.String(), "stopped") {
			t.Errorf("%s: Ctrl-C: exit %d; want 0\n%s%s", approach, code, d.out, d.log)
		}
	}
}

func TestDemoServesPageMetricsAndHealth(t *testing.T) {
	d := startDemo(t)
	c := d.client(t)
	for _, tt := range []struct {
		url, want string
		status    int
	}{
		{d.Page, "<!doctype html", 200},
		{d.Page + "config.json", `"ims.test"`, 200},
		{d.Page + "ca.pem", "BEGIN CERTIFICATE", 200},
		{d.Page + "nothing", "", 404},
		{d.Admin + "/metrics", "epcscf_", 200},
		{d.Admin + "/healthz", "ok", 200},
		{d.Admin + "/readyz", "ready", 200},
	} {
		res, err := c.Get(tt.url)
		if err != nil {
			t.Errorf("GET %s: %v", tt.url, err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != tt.status || !strings.Contains(strings.ToLower(string(body)), strings.ToLower(tt.want)) {
			t.Errorf("GET %s: %d, %v; want %d with %q:\n%.300s", tt.url, res.StatusCode, err, tt.status, tt.want, body)
		}
	}
}

func TestPasswordsSurviveARestart(t *testing.T) {
	first := startDemo(t)
	first.stop(t)
	again := startDemoIn(t, first.DataDir)
	if again.Users[0] != first.Users[0] || again.SPKI != first.SPKI {
		t.Error("a restart in the same directory changed a password or the certificate")
	}
}

func TestBadCommandLinesAreAnswered(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	takenUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = takenUDP.Close() }()
	occupied := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(occupied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := func(over ...string) []string {
		return append([]string{
			"demo", "--listen", "127.0.0.1:0", "--turn-listen", "127.0.0.1:0", "--turns-listen", "127.0.0.1:0",
			"--admin-listen", "127.0.0.1:0", "--core-listen", "127.0.0.1:0", "--waf-listen", "127.0.0.1:0", "--data-dir", t.TempDir(),
		}, over...)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown command", []string{"dmeo"}, 2, []string{`"dmeo"`, "--help"}},
		{"unknown flag", []string{"demo", "--lisen", "x"}, 2, []string{"--lisen", "epcscf demo --help"}},
		{"argument too many", []string{"demo", "now"}, 2, []string{"now"}},
		{"address without port", free("--listen", "127.0.0.1"), 2, []string{"--listen", `"127.0.0.1"`, "127.0.0.1:8443"}},
		{"unspecified address", free("--turn-listen", "0.0.0.0:3478"), 2, []string{"--turn-listen", "127.0.0.1:3478"}},
		{"relay on IPv6", free("--turn-listen", "[::1]:3478"), 2, []string{"--turn-listen", "IPv4", "127.0.0.1:3478"}},
		{"unknown approach", free("--turn-approach", "pull"), 2, []string{"--turn-approach", "shared-key", "push"}},
		{"core without transport", free("--core", "10.0.0.1:5060"), 2, []string{"--core", "udp:"}},
		{"bad ttl", free("--ttl", "soon"), 2, []string{"--ttl", "soon"}},
		{"ttl out of range", free("--ttl", "1s"), 2, []string{"--ttl", "5s"}},
		{"token life too short", free("--token-life", "1s"), 2, []string{"--token-life", "10s"}},
		{"bad log level", free("--log-level", "loud"), 2, []string{"--log-level", "debug"}},
		{"tcp port in use", free("--listen", taken.Addr().String()), 1, []string{"--listen", taken.Addr().String(), "in use"}},
		{"turns port in use", free("--turns-listen", taken.Addr().String()), 1, []string{"--turns-listen", "in use"}},
		{"admin port in use", free("--admin-listen", taken.Addr().String()), 1, []string{"--admin-listen", "in use"}},
		{"udp port in use", free("--turn-listen", takenUDP.LocalAddr().String()), 1, []string{"--turn-listen", takenUDP.LocalAddr().String(), "udp", "in use"}},
		{"core port in use", free("--core-listen", takenUDP.LocalAddr().String()), 1, []string{"--core-listen", "in use"}},
		{"foreign address", free("--listen", "192.0.2.1:8443"), 1, []string{"--listen", "192.0.2.1:8443"}},
		{"data directory is a file", free("--data-dir", occupied), 1, []string{"--data-dir", occupied}},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), tt.args, &out, &errOut)
		if code != tt.code {
			t.Errorf("%s: exit %d, want %d\n%s", tt.name, code, tt.code, errOut.String())
		}
		for _, w := range tt.want {
			if !strings.Contains(errOut.String(), w) {
				t.Errorf("%s: %q does not say %q", tt.name, errOut.String(), w)
			}
		}
		if strings.Count(errOut.String(), "\n") > 1 {
			t.Errorf("%s: more than one line: %q", tt.name, errOut.String())
		}
	}
}
