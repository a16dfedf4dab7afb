package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"epcscf/internal/realpart"
	"epcscf/turncred"
	"epcscf/turncred/token"
)

// iceServer is an RTCIceServer.
type iceServer struct {
	URLs       string `json:"urls"`
	Username   string `json:"username"`
	Credential string `json:"credential"`
}

// gathered is what a browser has of one: relay candidates, or the codes of
// icecandidateerror.
type gathered struct {
	Candidates []string `json:"candidates"`
	Errors     []int    `json:"errors"`
}

const gatherScript = `(async (server) => {
	const found = { candidates: [], errors: [] };
	const pc = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
	const one = new Promise((done) => {
		pc.onicecandidateerror = (e) => { found.errors.push(e.errorCode); done(); };
		pc.onicecandidate = (e) => { if (e.candidate?.candidate) { found.candidates.push(e.candidate.candidate); done(); } };
	});
	pc.createDataChannel('x');
	await pc.setLocalDescription();
	await Promise.race([one, new Promise((late) => setTimeout(late, 20000))]);
	pc.close();
	return found;
})(%s)`

// callScript makes a call of a page with itself, relay to relay, in window.call.
const callScript = `(async (server) => {
	const config = { iceServers: [server], iceTransportPolicy: 'relay' };
	const [a, b] = [new RTCPeerConnection(config), new RTCPeerConnection(config)];
	a.onicecandidate = (e) => b.addIceCandidate(e.candidate);
	b.onicecandidate = (e) => a.addIceCandidate(e.candidate);
	const channel = a.createDataChannel('x');
	window.call = { a, b, channel, heard: 0 };
	b.ondatachannel = (e) => { e.channel.onmessage = () => { window.call.heard++; }; };
	await a.setLocalDescription();
	await b.setRemoteDescription(a.localDescription);
	await b.setLocalDescription();
	await a.setRemoteDescription(b.localDescription);
})(%s)`

// evaluate runs a script with a server as its argument and waits for its promise.
func evaluate[T any](t *testing.T, c *chromium, script string, server iceServer) T {
	t.Helper()
	arg, err := json.Marshal(server)
	if err != nil {
		t.Fatal(err)
	}
	v, err := chromedp.Run(c.ctx, chromedp.Evaluate[T](fmt.Sprintf(script, arg), chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", server.URLs, err)
	}
	return v
}

// uris are the relay's, as WICs get them.
func (s *served) uris(t *testing.T) []string {
	t.Helper()
	return []string{
		"turn:127.0.0.1:" + s.relayPort(t, "udp") + "?transport=udp", "turn:127.0.0.1:" + s.relayPort(t, "tcp") + "?transport=tcp",
		"turns:127.0.0.1:" + s.relayPort(t, "tls") + "?transport=tcp",
	}
}

// browse starts a browser that trusts the server.
func (s *served) browse(t *testing.T) *chromium {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "edge.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	d := &demo{}
	d.SPKI = base64.StdEncoding.EncodeToString(sum[:])
	return startChromium(t, d)
}

// By each transport a browser has a relay candidate with a credential and with a token in
// the user name, and icecandidateerror 401 with one that expired or was revoked.
func TestBrowserGathers(t *testing.T) {
	needChromium(t)
	s := operate(t, func(y string) string {
		return y + "tokens:\n  server_name: turn.ims.test\n  keys: [{kid: t1, file: t1.key}]\n"
	})
	c := s.browse(t)
	good, expired := s.credentialOf(t, "bob"), s.credentialAt(t, "bob", time.Now().Add(-time.Hour))
	var revoked struct{ Username, Password string }
	if err := json.Unmarshal([]byte(s.wic(t, "register", "--show-password")), &revoked); err != nil {
		t.Fatal(err)
	}
	tok := s.token(t)
	for _, uri := range s.uris(t) {
		for _, tt := range []struct {
			name, username, password string
			ok                       bool
		}{
			{"credential", good.Username, string(good.Password.Reveal()), true},
			{"token", tok.Username(), string(tok.Password().Reveal()), true},
			{"expired", expired.Username, string(expired.Password.Reveal()), false},
			{"revoked", revoked.Username, revoked.Password, false},
			{"token, wrong key", tok.Username(), "wrong", false},
		} {
			got := evaluate[gathered](t, c, gatherScript, iceServer{uri, tt.username, tt.password})
			if tt.ok && (len(got.Candidates) == 0 || !strings.Contains(got.Candidates[0], "typ relay")) || !tt.ok && !slices.Contains(got.Errors, 401) {
				t.Errorf("%s, %s: %+v\n%s", uri, tt.name, got, s.log)
			}
		}
	}
}

// token makes one for bob with the key t1 of the file.
func (s *served) token(t *testing.T) token.Token {
	t.Helper()
	ring, err := token.NewKeyRing(token.Key{ID: "t1", Secret: turncred.NewSecret([]byte(strings.Repeat("t", 32)))})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := token.NewIssuer(s.minter(t, time.Now), ring, "turn.ims.test")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := issuer.Issue(turncred.Request{IMPI: "bob", Life: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// A call goes on when its credential has expired, and ends when it is revoked.
func TestBrowserCallOutlivesItsCredential(t *testing.T) {
	needChromium(t)
	s := operate(t, func(y string) string { return strings.Replace(y, "max_ttl: 10m", "max_ttl: 5s", 1) })
	c := s.browse(t)
	alice := s.staysRegistered(t)
	evaluate[any](t, c, callScript, iceServer{s.uris(t)[0], alice.Username, alice.Password})
	tb := &tab{t: t, name: "call", ctx: c.ctx}
	tb.until("call.channel.readyState === 'open'")

	s.eventually(t, "the credential expires", func() bool { return !s.allocates(t, alice.Username, alice.Password) })
	for range 3 {
		heard, err := chromedp.Run(c.ctx, chromedp.Evaluate[int]("call.channel.send('x'), call.heard"))
		if err != nil {
			t.Fatal(err)
		}
		tb.until(fmt.Sprintf("call.heard > %d", heard))
	}
	tb.until("call.a.connectionState === 'connected'")

	alice.leave()
	s.eventually(t, "its allocations end", func() bool {
		_, m := s.get("/metrics")
		return strings.Contains(m, "\nepcscf_relay_allocations 0\n") && !strings.Contains(m, `epcscf_relay_allocations_ended_total{reason="revoked"} 0`)
	})
	tb.until("call.a.connectionState !== 'connected'") // Chromium takes some seconds
}

// registered is a WIC that stays, with its credential.
type registered struct {
	Username, Password string
	leave              func() // de-registers
}

func (s *served) staysRegistered(t *testing.T) registered {
	t.Helper()
	s.wic(t, "options") // builds it
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	out := &realpart.Output{}
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, "wic"), "register", "--keep", "--show-password", "--url", "wss://"+s.web+"/ws",
		"--domain", "ims.test", "--user", "alice", "--password-file", filepath.Join(s.dir, "alice.pw"), "--ca", s.ca.File, "--json")
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := registered{leave: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		cancel()
	}}
	t.Cleanup(r.leave)
	s.eventually(t, "alice is registered", func() bool {
		return json.NewDecoder(bytes.NewReader([]byte(out.String()))).Decode(&r) == nil && r.Password != ""
	})
	return r
}
