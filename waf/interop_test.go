package waf

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/internal/realpart"
)

// coturn's tool decodes our tokens.
func TestCoturnDecodesOurTokens(t *testing.T) {
	oauth := realpart.Program(t, "turnutils_oauth", "coturn")
	w := newWorld(t, nil)
	a := w.exchange(w.code(ScopeSTUN)).granted(t, "code")
	key := base64.StdEncoding.EncodeToString(tokenKey().Secret.Reveal())
	decode := func(server, token string) (string, error) {
		out, err := exec.CommandContext(t.Context(), oauth, "-v", "-d", "-i", server, "-j", a.KeyID, "-k", key,
			"-l", strconv.FormatInt(w.clock.Now().Add(-time.Hour).Unix(), 10), "-m", "86400", "-n", "A256GCM", "-t", token).CombinedOutput()
		return string(out), err
	}
	out, err := decode(serverName, a.AccessToken)
	// It prints the mac_key as a string, which a zero byte ends.
	if err != nil || !strings.Contains(out, "Valid token") || !strings.Contains(out, fmt.Sprintf("lifetime: %d", a.ExpiresIn)) || !strings.Contains(out, "mac key length: 20") {
		t.Errorf("turnutils_oauth: %v\n%s", err, strings.ReplaceAll(out, key, "K"))
	}
	if out, _ := decode("other.test", a.AccessToken); strings.Contains(out, "Valid token") {
		t.Errorf("for another server it says:\n%s", strings.ReplaceAll(out, key, "K"))
	}
}

// Debian's turnserver, given our key, takes our tokens in ACCESS-TOKEN.
func TestCoturnTakesOurTokens(t *testing.T) {
	turnserver, turnadmin := realpart.Program(t, "turnserver", "coturn"), realpart.Program(t, "turnadmin", "coturn")
	sqlite := realpart.Program(t, "sqlite3", "sqlite3")
	w := newWorld(t, nil)
	dir := t.TempDir()
	db, port := filepath.Join(dir, "turndb"), freePort(t)
	if out, err := exec.CommandContext(t.Context(), turnadmin, "-l", "-b", db).CombinedOutput(); err != nil { // makes the tables
		t.Fatalf("turnadmin: %v\n%s", err, out)
	}
	row := fmt.Sprintf("insert into oauth_key (kid,ikm_key,timestamp,lifetime,as_rs_alg,realm) values ('k1','%s',%d,0,'A256GCM','ims.test')",
		base64.StdEncoding.EncodeToString(tokenKey().Secret.Reveal()), w.clock.Now().Add(-time.Hour).Unix())
	if out, err := exec.CommandContext(t.Context(), sqlite, db, row).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	var log realpart.Output
	cmd := exec.CommandContext(t.Context(), turnserver, "-n", "--oauth", "--lt-cred-mech", "--server-name="+serverName, "--realm=ims.test", "-b", db,
		"--listening-ip=127.0.0.1", fmt.Sprintf("--listening-port=%d", port), "--relay-ip=127.0.0.1", "--no-cli", "--no-tls", "--no-dtls",
		"--log-file=stdout", "--pidfile="+filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	a := w.exchange(w.code(ScopeSTUN)).granted(t, "code")
	raw, err := base64.StdEncoding.DecodeString(a.AccessToken)
	key, err2 := base64.StdEncoding.DecodeString(a.Key)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	turn := &turnClient{t: t, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	challenge := turn.challenge()
	if name, err := challenge.Get(0x802E); err != nil || string(name) != serverName {
		t.Fatalf("THIRD-PARTY-AUTHORIZATION %q, %v\n%s", name, err, &log)
	}
	if got := turn.allocate(challenge, a.KeyID, raw, key); got.Type.Class != stun.ClassSuccessResponse {
		code, _ := got.Get(stun.AttrErrorCode)
		t.Errorf("our token, mac_key %x: %q\n%s", key, code, &log)
	}
	raw[len(raw)-1] ^= 1
	if got := turn.allocate(challenge, a.KeyID, raw, key); got.Type.Class != stun.ClassErrorResponse {
		t.Errorf("a token with another tag: %s", got)
	}
}

// turnClient speaks RFC 7635 as a client would that is no browser.
type turnClient struct {
	t    *testing.T
	addr string
	conn net.Conn
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port
}

// send sends m until an answer comes, and returns it; nil where none comes in time.
func (c *turnClient) send(m *stun.Message, within time.Duration) *stun.Message {
	c.t.Helper()
	buf := make([]byte, 1500)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		_, err := c.conn.Write(m.Raw)
		_ = c.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err2 := c.conn.Read(buf)
		if errors.Join(err, err2) != nil { // not up yet, which a loopback socket hears at once
			time.Sleep(20 * time.Millisecond)
			continue
		}
		got := &stun.Message{Raw: append([]byte(nil), buf[:n]...)}
		if got.Decode() == nil && got.TransactionID == m.TransactionID {
			return got
		}
	}
	return nil
}

var allocateUDP = stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}

// challenge asks without credentials, from a new address each time: coturn may lose for good
// the one from which it is asked while it comes up.
func (c *turnClient) challenge() *stun.Message {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		var err error
		if c.conn, err = net.Dial("udp", c.addr); err != nil {
			c.t.Fatal(err)
		}
		conn := c.conn
		c.t.Cleanup(func() { _ = conn.Close() })
		m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), allocateUDP)
		if err != nil {
			c.t.Fatal(err)
		}
		if got := c.send(m, time.Second); got != nil {
			return got
		}
	}
	c.t.Fatal("no answer from " + c.addr)
	return nil
}

// allocate asks with a token (RFC 7635 §5); REALM, which the RFC does without, is for coturn.
// A server that comes up may have forgotten the nonce of its first answer, and says so.
func (c *turnClient) allocate(challenge *stun.Message, kid string, token, key []byte) *stun.Message {
	c.t.Helper()
	for tries := 1; ; tries++ {
		realm, err := challenge.Get(stun.AttrRealm)
		nonce, err2 := challenge.Get(stun.AttrNonce)
		if err != nil || err2 != nil {
			c.t.Fatalf("challenge: %s", challenge)
		}
		m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), allocateUDP,
			stun.NewUsername(kid), stun.RawAttribute{Type: stun.AttrRealm, Value: realm}, stun.RawAttribute{Type: stun.AttrNonce, Value: nonce},
			stun.RawAttribute{Type: 0x001B, Value: token}, stun.MessageIntegrity(key))
		if err != nil {
			c.t.Fatal(err)
		}
		got := c.send(m, 10*time.Second)
		if got == nil {
			c.t.Fatal("no answer to a token from " + c.addr)
		}
		var code stun.ErrorCodeAttribute
		if tries == 5 || code.GetFrom(got) != nil || code.Code != stun.CodeStaleNonce {
			return got
		}
		challenge = got
	}
}
