package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"epcscf/internal/realpart"
)

// TestServeWAF: what the commands added before is served, and the tokens are good at the
// relay; with another key of the relay's too, after SIGHUP.
func TestServeWAF(t *testing.T) {
	addr := freeAddr(t)
	s := prepare(t, t.TempDir(), map[string]string{
		"kek.key": strings.Repeat("s", 32), "t2.key": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("2"), 32)),
	}, func(yaml string) string {
		return yaml + "store: {kind: bolt, file: epcscf.db, kek_file: kek.key}\n" +
			"waf: {enabled: true, listen: \"" + addr + "\", issuer: \"https://" + addr + "\"}\n" +
			"tokens:\n  server_name: turn.ims.test\n  keys:\n    - {kid: t1, file: t1.key}\n"
	})
	command := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"waf", "-c", s.file}, args...), &out, &out); code != 0 {
			t.Fatalf("%q exits with %d: %s", args, code, out.String())
		}
		return out.String()
	}
	command("user", "add", "alice", "--impi", "alice@ims.test", "--impu", "sip:alice@ims.test", "--password-file", s.dir+"/alice.pw")
	_, secret, _ := strings.Cut(strings.TrimSpace(command("client", "add", "--id", "wwsf", "--name", "Web", "--confidential", "--grant", "client_credentials", "--vouches")), "client_secret ")
	s.start(t)

	w := newWAFClient(t, s, addr, secret)
	first := w.ask()
	s.edit(t, "    - {kid: t1, file: t1.key}\n", "    - {kid: t1, file: t1.key}\n    - {kid: t2, file: t2.key, not_before: 2026-01-01T00:00:00Z}\n")
	s.hangUp(t)
	s.eventually(t, "the keys are taken", func() bool { return strings.Contains(s.log.String(), "[tokens.keys]") })
	second := w.ask()
	if first.TURN.Kid != "t1" || second.TURN.Kid != "t2" {
		t.Errorf("tokens by %s, then by %s; want t1, then t2", first.TURN.Kid, second.TURN.Kid)
	}
	var both sync.WaitGroup
	both.Go(func() { w.works(first) }) // its key is there still
	both.Go(func() { w.works(second) })
	both.Wait()
	s.registerByToken(t, first.AccessToken, addr, func() {
		res := w.post("/revoke", url.Values{"token": {first.AccessToken}})
		if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Errorf("revoke: %s", res.Status)
		}
	})
	// The signing key outlives the process, and so do its tokens.
	before := w.keys()
	if code := s.end(t); code != 0 {
		t.Fatalf("ended with %d\n%s", code, s.log)
	}
	<-s.exit
	s.start(t)
	if after := w.keys(); after != before || !strings.Contains(before, "Ed25519") {
		t.Errorf("keys %s, then %s", before, after)
	}
	for _, canary := range []string{secret, first.AccessToken, first.TURN.Servers[0].Credential} {
		if strings.Contains(s.log.String(), canary) {
			t.Error("the log shows a secret")
		}
	}
}

// wafClient is a WWSF that asks the WAF of a server for its users.
type wafClient struct {
	t                     *testing.T
	s                     *served
	addr, secret, uclient string
	web                   *http.Client
}

// wafAnswer is what it gets.
type wafAnswer struct {
	AccessToken string `json:"access_token"`
	TURN        struct {
		Kid     string                                  `json:"kid"`
		Servers []struct{ Username, Credential string } `json:"ice_servers"`
	} `json:"turn"`
}

func newWAFClient(t *testing.T, s *served, addr, secret string) *wafClient {
	t.Helper()
	ca, err := os.ReadFile(s.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	return &wafClient{t, s, addr, secret, realpart.Program(t, "turnutils_uclient", "coturn"), web}
}

func (w *wafClient) post(path string, form url.Values) *http.Response {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "https://"+w.addr+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("wwsf", w.secret)
	res, err := w.web.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// ask gets tokens for alice.
func (w *wafClient) ask() (a wafAnswer) {
	w.t.Helper()
	res := w.post("/token", url.Values{"grant_type": {"client_credentials"}, "user": {"alice"}})
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || res.StatusCode != http.StatusOK || len(a.TURN.Servers) != 1 || a.AccessToken == "" {
		w.t.Fatalf("token: %s, %v, %+v\n%s", res.Status, err, a, w.s.log)
	}
	return a
}

// works has coturn's client relay with a TURN token.
func (w *wafClient) works(a wafAnswer) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), w.uclient, "-u", a.TURN.Servers[0].Username, "-w", a.TURN.Servers[0].Credential, "-y", "-c", "-n", "5", "-m", "1", "-z", "5",
		"-p", w.s.relayPort(w.t, "udp"), "127.0.0.1").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "tot_send_msgs=10, tot_recv_msgs=10") {
		w.t.Errorf("turnutils_uclient: %v\n%s\n%s", err, out, w.s.log)
	}
}

// keys is the JWKS document.
func (w *wafClient) keys() string {
	w.t.Helper()
	res, err := w.web.Get("https://" + w.addr + "/jwks")
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

// registerByToken registers alice by a token of the WAF at addr, until revoke ends it. A
// token that is no good is refused, and the answer says where to get one (RFC 8898 §2.2).
func (s *served) registerByToken(t *testing.T, token, addr string, revoke func()) {
	t.Helper()
	ws, err := s.dial(t, serveOrigin, nil)
	if err != nil {
		t.Fatal(err)
	}
	cseq := 0
	register := func(token string) string {
		t.Helper()
		cseq++
		if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, strings.ReplaceAll(`REGISTER sip:ims.test SIP/2.0
Via: SIP/2.0/WSS x.invalid;branch=z9hG4bK%d
Max-Forwards: 70
From: <sip:alice@ims.test>;tag=1
To: <sip:alice@ims.test>
Call-ID: by-token
CSeq: %d REGISTER
Contact: <sip:alice@x.invalid;transport=ws>;expires=600
Authorization: Bearer %s
Content-Length: 0

`, "\n", "\r\n"), cseq, cseq, token)); err != nil {
			t.Fatal(err)
		}
		_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, answer, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log)
		}
		return string(answer)
	}
	if got := register(token + "x"); !strings.HasPrefix(got, "SIP/2.0 401") || !strings.Contains(got, `authz_server="https://`+addr+`"`) || !strings.Contains(got, "invalid_token") {
		t.Errorf("a bad token: %s", got)
	}
	if got := register(token); !strings.HasPrefix(got, "SIP/2.0 200") {
		t.Fatalf("register by token: %s\n%s", got, s.log)
	}
	revoke()
	_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	for { // what comes before it, a NOTIFY for one, is as may be
		if _, _, err := ws.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, websocket.ClosePolicyViolation, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
				t.Errorf("after the revocation: %v", err)
			}
			return
		}
	}
}
