package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"epcscf/cmd/internal/testpki"
	"epcscf/proxy/minicore"
	"epcscf/turncred"
)

const serveOrigin = "https://phone.ims.test"

// served is `epcscf serve` in this process, before a miniature core that it reaches by
// its socket, with certificates of the test's own.
type served struct {
	dir, file, web, admin string
	ca                    *testpki.CA
	out, log              *buffer
	term                  context.CancelFunc
	exit                  chan int
}

// operate writes an operator's folder and starts the server on it. change may edit the
// file before; args follow "serve -c FILE".
func operate(t *testing.T, change func(yaml string) string, args ...string) *served {
	t.Helper()
	dir := t.TempDir()
	s := &served{
		dir: dir, file: filepath.Join(dir, "epcscf.yaml"), web: freeAddr(t), admin: freeAddr(t),
		ca: testpki.NewCA(t, dir), out: &buffer{}, log: &buffer{}, exit: make(chan int, 1),
	}
	s.ca.Issue(t, dir, "edge", time.Now().Add(90*24*time.Hour), "127.0.0.1")
	s.write(t, "deployment.key", strings.Repeat("d", 32))
	s.write(t, "k1.key", strings.Repeat("k", 32))
	s.write(t, "alice.pw", "password of alice")
	yaml := fmt.Sprintf(`turn: {max_ttl: 10m, deployment_secret_file: deployment.key}
keys:
  - kid: k1
    file: k1.key
proxy:
  domain: ims.test
  listen: %q
  origins: %s
  allow_no_origin: true
  tls: {cert_file: edge.pem, key_file: edge.key}
core: {listen: %q, next_hops: %q}
relay:
  listen: {udp: %q, tcp: %q, tls: %q}
  allow_peers: 127.0.0.0/8
admin: {listen: %q}
log: {level: info}
`, s.web, serveOrigin, freeAddr(t), "udp:"+startCore(t), freeAddr(t), freeAddr(t), freeAddr(t), s.admin)
	if change != nil {
		yaml = change(yaml)
	}
	s.write(t, "epcscf.yaml", yaml)

	ctx, term := context.WithCancel(context.Background())
	s.term = term
	go func() { s.exit <- run(ctx, append([]string{"serve", "-c", s.file}, args...), s.out, s.log) }()
	t.Cleanup(func() { s.end(t) })
	s.eventually(t, "it is ready", s.ready)
	return s
}

func (s *served) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// edit changes the file.
func (s *served) edit(t *testing.T, old, new string) {
	t.Helper()
	text, err := os.ReadFile(s.file)
	if err != nil || !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%q is not in the file: %v", old, err)
	}
	s.write(t, "epcscf.yaml", strings.Replace(string(text), old, new, 1))
}

// hangUp sends SIGHUP, to this process, as the server runs in it.
func (s *served) hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

func (s *served) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		select {
		case code := <-s.exit:
			s.exit <- code
			t.Fatalf("ended with %d before %s\n%s", code, what, s.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s\n%s", what, s.log)
		}
	}
}

func (s *served) ready() bool {
	status, _ := s.get("/readyz")
	return status == http.StatusOK
}

func (s *served) get(path string) (status int, body string) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get("http://" + s.admin + path)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// end is SIGTERM; it returns the exit code.
func (s *served) end(t *testing.T) int {
	t.Helper()
	s.term()
	select {
	case code := <-s.exit:
		s.exit <- code
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("does not end\n%s", s.log)
		return -1
	}
}

// dial opens a WebSocket as a page of origin would, over a connection that begins with
// greeting.
func (s *served) dial(t *testing.T, origin string, greeting []byte) (*websocket.Conn, error) {
	t.Helper()
	pem, err := os.ReadFile(s.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d := websocket.Dialer{
		Subprotocols: []string{"sip"}, TLSClientConfig: &tls.Config{RootCAs: roots}, HandshakeTimeout: 10 * time.Second,
		NetDial: func(network, addr string) (net.Conn, error) {
			c, err := net.Dial(network, addr)
			if err == nil {
				_, err = c.Write(greeting)
			}
			return c, err
		},
	}
	ws, res, err := d.Dial("wss://"+s.web+"/", http.Header{"Origin": {origin}})
	if res != nil {
		_ = res.Body.Close()
	}
	if err == nil {
		t.Cleanup(func() { _ = ws.Close() })
	}
	return ws, err
}

// lives reports whether the flow answers a keep-alive (RFC 5626 §3.5.1).
func lives(ws *websocket.Conn) bool {
	_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	if ws.WriteMessage(websocket.TextMessage, []byte("\r\n\r\n")) != nil {
		return false
	}
	_, pong, err := ws.ReadMessage()
	return err == nil && string(pong) == "\r\n"
}

func freeAddr(t *testing.T) string {
	t.Helper()
	for range 16 {
		udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
		_ = udp.Close()
		if err == nil {
			_ = tcp.Close()
			return tcp.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// startCore runs a miniature core until the test ends, and returns its address.
func startCore(t *testing.T) string {
	t.Helper()
	core, err := minicore.New(minicore.Config{Domain: "ims.test", Users: map[string]turncred.Secret{"alice": turncred.NewSecret([]byte("password of alice"))}})
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- core.Serve(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("miniature core: %v", err)
		}
	})
	return udp.LocalAddr().String()
}

// wic runs bin/wic's command as alice.
func (s *served) wic(t *testing.T, command string) string {
	t.Helper()
	bin := filepath.Join(s.dir, "wic")
	if _, err := os.Stat(bin); err != nil {
		if out, err := exec.Command("go", "build", "-o", bin, "epcscf/cmd/wic").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	out, err := exec.Command(bin, command, "--url", "wss://"+s.web+"/ws", "--domain", "ims.test", "--user", "alice",
		"--password-file", filepath.Join(s.dir, "alice.pw"), "--ca", s.ca.File, "--json").CombinedOutput()
	if err != nil {
		t.Fatalf("wic %s: %v\n%s\n%s", command, err, out, s.log)
	}
	return string(out)
}

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
