package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/cmd/wic/internal/client"
	"epcscf/sipext"
	"epcscf/turncred"
)

// device is one registered WIC of a user.
type device struct {
	*client.Client
	cred sipext.TurnCred
}

// register makes a device of the demo's user.
func (d demo) register(t *testing.T, user string) *device {
	t.Helper()
	s := settings{ca: d.CA, url: d.WebSocket, domain: d.Domain, user: user, passwordFile: filepath.Join(d.dir, user+".pw")}
	cfg, err := s.config()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	dev := &device{Client: c}
	dev.refresh(t)
	return dev
}

// refresh registers, for the first time or again, and takes the new credential.
func (dev *device) refresh(t *testing.T) {
	t.Helper()
	_, cred, err := dev.Register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dev.cred = cred
}

// turnClient opens a TURN client for a credential at a server's UDP address.
func turnClient(t *testing.T, server string, cred sipext.TurnCred) *turn.Client {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: server, Conn: pc, Username: cred.Username, Password: cred.Tpwd, Realm: cred.Realm,
		LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = pc.Close()
	})
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	return c
}

// allocation is a relayed socket and the client that holds it.
type allocation struct {
	net.PacketConn
	client *turn.Client
}

func allocate(t *testing.T, server string, cred sipext.TurnCred) allocation {
	t.Helper()
	c := turnClient(t, server, cred)
	pc, err := c.Allocate()
	if err != nil {
		t.Fatalf("allocate: %v", err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return allocation{pc, c}
}

// exchange sends datagrams both ways between two relayed addresses, which takes a
// permission on either side.
func exchange(t *testing.T, a, b allocation) {
	t.Helper()
	for i, leg := range []struct{ from, to allocation }{{a, b}, {b, a}, {a, b}} {
		want := fmt.Sprintf("datagram %d", i)
		if err := leg.to.client.CreatePermission(leg.from.LocalAddr()); err != nil {
			t.Fatalf("permission: %v", err)
		}
		if _, err := leg.from.WriteTo([]byte(want), leg.to.LocalAddr()); err != nil {
			t.Fatalf("send: %v", err)
		}
		if err := leg.to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, from, err := leg.to.ReadFrom(buf)
		if err != nil || string(buf[:n]) != want || from.String() != leg.from.LocalAddr().String() {
			t.Fatalf("received %q from %v, %v; want %q from %v", buf[:n], from, err, want, leg.from.LocalAddr())
		}
	}
}

// turnUDP is the relay's UDP address.
func (d demo) turnUDP(t *testing.T) string {
	t.Helper()
	for _, uri := range d.TURNURIs {
		if u, err := url.Parse(uri); err == nil && u.Scheme == "turn" && u.Query().Get("transport") == "udp" {
			return u.Opaque
		}
	}
	t.Fatalf("no turn: URI over UDP in %q", d.TURNURIs)
	return ""
}

// metrics returns the text of /metrics.
func (d demo) metrics(t *testing.T) string {
	t.Helper()
	res, err := http.Get(d.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// allocations is the relay's gauge of live ones.
func (d demo) allocations(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^epcscf_relay_allocations (\d+)$`).FindStringSubmatch(d.metrics(t))
	if m == nil {
		t.Fatal("no epcscf_relay_allocations in /metrics")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// freePort is a port that is free on UDP and TCP for now. A program that is given it must
// be watched for failing to bind.
func freePort(t *testing.T) int {
	t.Helper()
	for range 16 {
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		port := udp.LocalAddr().(*net.UDPAddr).Port
		tcp, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		_ = udp.Close()
		if err == nil {
			_ = tcp.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// startProgram runs a real part until the test ends, and waits until ready says so.
func startProgram(t *testing.T, ready func() bool, path string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = log.Close()
	})
	for deadline := time.Now().Add(20 * time.Second); !ready(); {
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s ended before it was ready\n%s", path, text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s is not ready\n%s", path, text)
		}
	}
}

// accepts reports whether a TCP port answers.
func accepts(addr string) func() bool {
	return func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
}

// answersSTUN reports whether a Binding request to a UDP port is answered (RFC 8489 §6).
func answersSTUN(addr string) func() bool {
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, "transaction!"...)
	return func() bool {
		c, err := net.Dial("udp4", addr)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write(request); err != nil {
			return false
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = c.Read(make([]byte, 1500))
		return err == nil
	}
}

// debugLog is a logger at debug level into w.
func debugLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// secretOf makes a Secret of text.
func secretOf(s string) turncred.Secret { return turncred.NewSecret([]byte(s)) }
