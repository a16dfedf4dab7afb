package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"epcscf/cmd/internal/testpki"
	"epcscf/internal/realpart"
	"epcscf/proxy/minicore"
	"epcscf/turncred"
)

const serveOrigin = "https://phone.ims.test"

// served is `epcscf serve` in this process, before a miniature core that it reaches by
// its socket, with certificates of the test's own.
type served struct {
	dir, file, web, admin string
	ca                    *testpki.CA
	out, log              *realpart.Output
	term                  context.CancelFunc
	exit                  chan int
}

// operate writes an operator's folder and starts the server on it. change may edit the
// file before; args follow "serve -c FILE".
func operate(t *testing.T, change func(yaml string) string, args ...string) *served {
	t.Helper()
	return operateIn(t, t.TempDir(), nil, change, args...)
}

// operateIn is operate in a given folder, with more files of secrets in it.
func operateIn(t *testing.T, dir string, secrets map[string]string, change func(yaml string) string, args ...string) *served {
	t.Helper()
	s := prepare(t, dir, secrets, change)
	s.start(t, args...)
	return s
}

// start starts the server in its folder.
func (s *served) start(t *testing.T, args ...string) {
	t.Helper()
	ctx, term := context.WithCancel(context.Background())
	s.term = term
	go func() { s.exit <- run(ctx, append([]string{"serve", "-c", s.file}, args...), s.out, s.log) }()
	t.Cleanup(func() { s.end(t) })
	s.eventually(t, "it is ready", s.ready)
}

// prepare writes an operator's folder, and starts the core that its server will reach.
func prepare(t *testing.T, dir string, secrets map[string]string, change func(yaml string) string) *served {
	t.Helper()
	s := &served{
		dir: dir, file: filepath.Join(dir, "epcscf.yaml"), web: freeAddr(t), admin: freeAddr(t),
		ca: testpki.NewCA(t, dir), out: &realpart.Output{}, log: &realpart.Output{}, exit: make(chan int, 1),
	}
	s.ca.Issue(t, dir, "edge", time.Now().Add(90*24*time.Hour), "127.0.0.1")
	s.write(t, "deployment.key", strings.Repeat("d", 32))
	s.write(t, "k1.key", strings.Repeat("k", 32))
	s.write(t, "alice.pw", "password of alice")
	s.write(t, "t1.key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("t", 32))))
	for name, text := range secrets {
		s.write(t, name, text)
	}
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
	text := s.text(t)
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in the file", old)
	}
	s.write(t, filepath.Base(s.file), strings.Replace(text, old, new, 1))
}

// text returns the file.
func (s *served) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
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
	core, err := minicore.New(minicore.Config{
		Domain: "ims.test", Users: map[string]turncred.Secret{"alice": turncred.NewSecret([]byte("password of alice"))},
		TrustedEdges: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
	})
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
func (s *served) wic(t *testing.T, command string, flags ...string) string {
	t.Helper()
	out, err := s.wicCommand(t, command, flags...).CombinedOutput()
	if err != nil {
		t.Fatalf("wic %s: %v\n%s\n%s", command, err, out, s.log)
	}
	return string(out)
}

// wicCommand is bin/wic's command as alice, not yet run.
func (s *served) wicCommand(t *testing.T, command string, flags ...string) *exec.Cmd {
	t.Helper()
	bin := filepath.Join(s.dir, "wic")
	if _, err := os.Stat(bin); err != nil {
		if out, err := exec.Command("go", "build", "-o", bin, "epcscf/cmd/wic").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	return exec.Command(bin, append([]string{command, "--url", "wss://" + s.web + "/ws", "--domain", "ims.test", "--user", "alice",
		"--password-file", filepath.Join(s.dir, "alice.pw"), "--ca", s.ca.File, "--json"}, flags...)...)
}
