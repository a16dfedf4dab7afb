package main

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestServe(t *testing.T) {
	for _, approach := range []string{"shared-key", "push"} {
		s := operate(t, nil, "--turn-approach", approach)
		if out := s.wic(t, "register"); !strings.Contains(out, `"approach": "`+approach+`"`) && !strings.Contains(out, `"approach":"`+approach+`"`) {
			t.Errorf("%s: %s", approach, out)
		}
		s.wic(t, "relay-check")
		ws, err := s.dial(t, serveOrigin, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !lives(ws) {
			t.Error("a flow does not answer its keep-alive")
		}
		s.term()
		_, _, err = ws.ReadMessage()
		if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
			t.Errorf("%s: SIGTERM ends a flow with %v, want 1001", approach, err)
		}
		if code := s.end(t); code != 0 || s.ready() {
			t.Errorf("%s: SIGTERM: exit %d\n%s", approach, code, s.log)
		}
	}
}

// The page is served where it is asked for, and nothing else is at its place otherwise.
func TestServePage(t *testing.T) {
	for page, want := range map[string]int{"true": http.StatusOK, "false": http.StatusBadRequest} {
		s := operate(t, func(y string) string {
			return strings.Replace(y, "allow_no_origin:", "page: "+page+"\n  allow_no_origin:", 1)
		})
		c := (&demo{}).with(s).client(t)
		res, err := c.Get("https://" + s.web + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("page: %s: GET / = %d, want %d", page, res.StatusCode, want)
		}
	}
}

// with lets the demo's client trust the server's authority.
func (d *demo) with(s *served) *demo {
	d.CA = s.ca.File
	return d
}

func TestCertificateChangesWithoutADrop(t *testing.T) {
	s := operate(t, nil)
	shown := func() string {
		c, err := tls.Dial("tcp", s.web, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	ws, err := s.dial(t, serveOrigin, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := shown()
	next := s.ca.Issue(t, s.dir, "edge", time.Now().Add(45*24*time.Hour), "127.0.0.1").SerialNumber.String()
	s.hangUp(t)
	s.eventually(t, "the new certificate is shown", func() bool { return shown() == next })
	if first == next || !lives(ws) {
		t.Error("the flow of before is gone")
	}
	if _, m := s.get("/metrics"); !regexp.MustCompile(`epcscf_certificate_expires_days\{part="proxy"\} 44\.9`).MatchString(m) || !strings.Contains(m, `epcscf_certificate_broken{part="proxy"} 0`) {
		t.Errorf("metrics:\n%s", grep(m, "certificate"))
	}

	s.write(t, "edge.key", "not a key")
	s.hangUp(t)
	s.eventually(t, "the broken pair is told", func() bool {
		_, m := s.get("/metrics")
		return strings.Contains(m, `epcscf_certificate_broken{part="proxy"} 1`)
	})
	s.eventually(t, "the log says so", func() bool { return strings.Contains(s.log.String(), "certificate not taken") })
	if shown() != next || !lives(ws) {
		t.Error("a broken pair must leave what was shown, and the flows")
	}
}

func grep(text, word string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestReload(t *testing.T) {
	s := operate(t, nil)
	s.edit(t, "turn: {", "turn: {approach: push, ")
	s.edit(t, "level: info", "level: debug")
	s.edit(t, "allow_no_origin: true", "allow_no_origin: true\n  flow_grace: 5m")
	s.hangUp(t)
	s.eventually(t, "the change is taken", func() bool {
		return strings.Contains(s.log.String(), "[turn.approach log.level]") && strings.Contains(s.log.String(), "[proxy.flow_grace]")
	})
	if out := s.wic(t, "register"); !strings.Contains(out, "push") {
		t.Errorf("after the reload: %s", out)
	}
	s.wic(t, "relay-check")

	s.edit(t, "approach: push", "approach: pull")
	s.hangUp(t)
	s.eventually(t, "the mistake is told", func() bool {
		return strings.Contains(s.log.String(), "what ran goes on") && strings.Contains(s.log.String(), s.file+":1:")
	})
	if out := s.wic(t, "register"); !strings.Contains(out, "push") {
		t.Errorf("after a reload that failed: %s", out)
	}
}

// A listed balancer's word is what limits and logs see.
func TestAddressFromTheBalancer(t *testing.T) {
	s := operate(t, func(y string) string {
		return strings.Replace(y, "allow_no_origin:", "proxy_protocol: {trusted: 127.0.0.0/8}\n  allow_no_origin:", 1)
	})
	greeting := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 203, 0, 113, 9, 10, 0, 0, 5, 0xC3, 0x50, 0x01, 0xBB)
	ws, err := s.dial(t, serveOrigin, greeting)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	if !lives(ws) {
		t.Error("the flow does not answer")
	}
	_ = ws.Close()
	s.eventually(t, "the flow's end is logged with the address", func() bool {
		return strings.Contains(grep(s.log.String(), "flow ended"), "remote=203.0.113.9:50000")
	})
	if _, err := s.dial(t, "https://evil.test", greeting); err == nil || !strings.Contains(grep(s.log.String(), "upgrade refused"), "remote=203.0.113.9:50000") {
		t.Errorf("another origin: %v\n%s", err, s.log)
	}
	if _, err := s.dial(t, serveOrigin, nil); err == nil {
		t.Error("a listed balancer that does not greet is let in")
	}
	if _, m := s.get("/metrics"); !strings.Contains(m, "epcscf_proxy_protocol_refused_total 1") {
		t.Errorf("metrics:\n%s", grep(m, "proxy_protocol"))
	}
}

func TestServeCheckConfigExits(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "epcscf.yaml")
	invoke := func(args ...string) (int, string, string) {
		var out, errOut bytes.Buffer
		code := run(t.Context(), args, &out, &errOut)
		return code, out.String(), errOut.String()
	}
	code, printed, _ := invoke("config")
	if code != 0 || !strings.Contains(printed, "next_hops:") {
		t.Fatalf("config: exit %d\n%s", code, printed)
	}
	if err := os.WriteFile(file, []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, said := invoke("check", "-c", file); code != 2 || strings.Count(said, "\n") < 4 || strings.Count(said, "\n") != strings.Count(said, "there is no such file") {
		t.Errorf("check of the printed file without its files: exit %d\n%s", code, said)
	}
	if code, _, said := invoke("serve", "-c", file); code != 2 || strings.Count(said, "\n") != 1 || !strings.Contains(said, file+":") {
		t.Errorf("serve: exit %d\n%s", code, said)
	}
	for _, command := range []string{"serve", "check"} {
		if code, _, said := invoke(command, "-c", filepath.Join(dir, "nothing")); code != 2 || !strings.Contains(said, "epcscf config") {
			t.Errorf("%s without a file: exit %d\n%s", command, code, said)
		}
	}
	if code, _, said := invoke("serve", "-c", file, "--turn-approach", "pull"); code != 2 || !strings.Contains(said, "--turn-approach") {
		t.Errorf("serve --turn-approach pull: exit %d\n%s", code, said)
	}
}

// check says ok, and what an operator should know; serve then names the key whose port
// is taken.
func TestCheckOfAFileThatIsRight(t *testing.T) {
	s := operate(t, nil)
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"check", "-c", s.file}, &out, &errOut); code != 0 || !strings.Contains(out.String(), s.file+": ok") || !strings.Contains(out.String(), "note: relay.allow_peers") {
		t.Errorf("check: exit %d\n%s%s", code, &out, &errOut)
	}
	errOut.Reset()
	if code := run(t.Context(), []string{"serve", "-c", s.file}, &out, &errOut); code != 1 || !strings.Contains(errOut.String(), "proxy.listen "+s.web+": the tcp port is in use") {
		t.Errorf("a second server: exit %d\n%s", code, &errOut)
	}
}
