package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"epcscf/internal/realpart"
)

// wafFleet is a fleet with a WAF in a process of its own, at whose place no WIC connects.
type wafFleet struct {
	fleet
	waf          *served
	addr, secret string // of the WAF, and of its client wwsf
	keysAt       string // where relays fetch keys
}

// prepareWAFFleet writes the files of an edge, a relay and a WAF, three hosts with certificates
// of one pki.
func prepareWAFFleet(t *testing.T, approach string) *wafFleet {
	t.Helper()
	w := &wafFleet{fleet: prepareFleet(t, approach), addr: freeAddr(t), keysAt: freeAddr(t)}
	pki := filepath.Join(w.edge.dir, "pki")
	epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "waf", "--name", "waf1", "--ip", "127.0.0.1")
	epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "edge", "--name", "edge1", "--ip", "127.0.0.1", "--renew")
	heardAt := freeAddr(t)
	address := regexp.MustCompile(`listen: ("[^"]+"), name: relay1`).FindStringSubmatch(w.relay1.text(t))[1]
	w.waf, w.secret = withWAFFile(t, func(yaml string) string {
		relay := yaml[strings.Index(yaml, "relay:"):strings.Index(yaml, "admin:")]
		yaml = strings.Replace(yaml, relay, "relay: {enabled: false}\n", 1)
		yaml = strings.Replace(yaml, "turn: {", fmt.Sprintf("turn: {uris: \"turn:127.0.0.1:%s\", ", w.relay1.relayPort(t, "udp")), 1)
		return yaml + fmt.Sprintf(`store: {kind: bolt, file: epcscf.db, kek_file: kek.key}
waf:
  enabled: true
  listen: %q
  issuer: "https://%s"
  registration_life: 5m
  interface: {listen: %q, name: waf1, cert_file: %[4]s/waf-waf1.pem, key_file: %[4]s/waf-waf1.key, ca_file: %[4]s/ca.pem}
  nodes:
    - {name: relay1, address: %[5]s}
    - {name: edge1, role: edge, address: %[6]q}
tokens:
  server_name: turn.ims.test
  keys:
    - {kid: t1, file: t1.key}
`, w.addr, w.addr, w.keysAt, pki, address, heardAt)
	})
	w.relay1.edit(t, "turn:", "tokens: {server_name: turn.ims.test, keys_url: \"https://"+w.keysAt+"\"}\nturn:")
	ca, err := os.ReadFile(w.waf.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	w.edge.write(t, "waf-ca.pem", string(ca))
	w.edge.edit(t, "interface: {name: edge1,", fmt.Sprintf("interface: {listen: %q, name: edge1,", heardAt))
	w.edge.edit(t, "  allow_no_origin: true\n", fmt.Sprintf("  allow_no_origin: true\n  bearer: {issuer: \"https://%s\", jwks_url: \"https://%s/jwks\", ca_file: waf-ca.pem}\n", w.addr, w.addr))
	return w
}

// issued are tokens of the WAF.
type issued struct {
	AccessToken string `json:"access_token"`
	TURN        struct {
		Kid     string                                  `json:"kid"`
		Servers []struct{ Username, Credential string } `json:"ice_servers"`
	} `json:"turn"`
}

// token asks the WAF for alice's, or with more parameters for another's.
func (w *wafFleet) token(t *testing.T, user string) (i issued) {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}}
	if user != "" {
		form.Set("user", user)
	}
	raw, err := json.Marshal(w.waf.post(t, "https://"+w.addr+"/token", w.secret, form))
	if err == nil {
		err = json.Unmarshal(raw, &i)
	}
	if err != nil || i.AccessToken == "" || len(i.TURN.Servers) != 1 {
		t.Fatalf("token: %v\n%s", err, w.waf.log)
	}
	return i
}

func (i issued) goodAt(t *testing.T, relay *served) bool {
	t.Helper()
	return relay.allocates(t, i.TURN.Servers[0].Username, i.TURN.Servers[0].Credential)
}

// TestRelayFetchesTokenKeys: a relay on another host takes the WAF's tokens with keys that it
// fetches (RFC 7635 §4.1.1). A new key reaches it without a restart of either, and what it has
// outlives kill -9, whether the WAF is there or not.
func TestRelayFetchesTokenKeys(t *testing.T) {
	w := prepareWAFFleet(t, "push")
	w.waf.write(t, "t2.key", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("2"), 32)))
	ends := time.Now().Add(14 * time.Second).UTC().Format(time.RFC3339) // so that the relay asks again soon
	w.waf.edit(t, "file: t1.key}", "file: t1.key, not_after: "+ends+"}")
	kill := w.relay1.spawnAs(t, "relay") // before the WAF: it asks until there is an answer
	w.waf.start(t)
	first := w.token(t, "alice")
	w.relay1.eventually(t, "it has the key", func() bool { return strings.Contains(w.relay1.log.String(), "token keys fetched") })
	if first.TURN.Kid != "t1" || !first.goodAt(t, w.relay1) {
		t.Errorf("the token by %s is not good at the relay\n%s", first.TURN.Kid, w.relay1.log)
	}
	w.waf.edit(t, ends+"}", ends+"}\n    - {kid: t2, file: t2.key, not_before: 2026-01-01T00:00:00Z}")
	w.waf.hangUp(t)
	w.waf.eventually(t, "the keys are taken", func() bool { return strings.Contains(w.waf.log.String(), "[tokens.keys]") })
	second := w.token(t, "alice")
	if second.TURN.Kid != "t2" {
		t.Fatalf("token by %s, want t2", second.TURN.Kid)
	}
	w.relay1.eventually(t, "it has the next key", func() bool { return strings.Count(w.relay1.log.String(), "token keys fetched") == 2 })
	both := func(when string) {
		t.Helper()
		for _, i := range []issued{first, second} {
			if !i.goodAt(t, w.relay1) {
				t.Errorf("%s: the token by %s is not good at the relay\n%s", when, i.TURN.Kid, w.relay1.log)
			}
		}
	}
	both("after the rotation")
	w.waf.end(t)
	kill()
	w.relay1.spawnAs(t, "relay")
	both("after kill -9, and without the WAF")
	kept, err := os.ReadFile(filepath.Join(w.relay1.dir, "state-relay1", "token-keys"))
	if err != nil || bytes.Contains(kept, []byte(`"kid"`)) || bytes.Contains(kept, bytes.Repeat([]byte("2"), 32)) {
		t.Errorf("the file of the keys: %v, %q", err, kept)
	}
	for _, s := range []*served{w.relay1, w.waf} {
		if strings.Contains(s.log.String(), "dHR0dHR0") {
			t.Error("the log shows a key")
		}
	}
}

// everyoneAnswers waits until the WAF has spoken with relay and edge.
func (w *wafFleet) everyoneAnswers(t *testing.T) {
	t.Helper()
	w.waf.eventually(t, "relay and edge answer", func() bool {
		return w.waf.metric(`epcscf_waf_push_relay_up{relay="relay1"}`) == "1" && w.waf.metric(`epcscf_waf_push_relay_up{relay="edge1"}`) == "1"
	})
	w.relay1.eventually(t, "it has the key", func() bool { return strings.Contains(w.relay1.log.String(), "token keys fetched") })
}

func (w *wafFleet) pending(node string) string {
	return w.waf.metric(`epcscf_waf_push_revocations_pending{relay="` + node + `"}`)
}

func (w *wafFleet) revoke(t *testing.T, i issued) {
	t.Helper()
	w.waf.post(t, "https://"+w.addr+"/revoke", w.secret, url.Values{"token": {i.AccessToken}})
}

// registers runs wic register with a token at the edge, to its end.
func (w *wafFleet) registers(t *testing.T, i issued, flags ...string) (string, bool) {
	t.Helper()
	w.edge.write(t, "token", i.AccessToken)
	out, err := w.edge.wicCommand(t, "register", append(flags, "--password-file", "", "--token-file", filepath.Join(w.edge.dir, "token"))...).CombinedOutput()
	return string(out), err == nil
}

// TestRevocationAcrossHosts: WAF, edge and relay are three processes. A revoked token ends
// registration and TURN rights at once; what a node missed waits in the WAF's journal through
// kill -9, and what an edge was told outlives its own.
func TestRevocationAcrossHosts(t *testing.T) {
	w := prepareWAFFleet(t, "push")
	killRelay, killWAF := w.relay1.spawnAs(t, "relay"), w.waf.spawn(t)
	killEdge := w.edge.spawn(t)
	w.everyoneAnswers(t)
	first := w.token(t, "alice")
	if !first.goodAt(t, w.relay1) {
		t.Errorf("the token is not good at the relay\n%s", w.relay1.log)
	}
	w.edge.write(t, "token", first.AccessToken)
	kept := w.edge.wicCommand(t, "register", "--keep", "--password-file", "", "--token-file", filepath.Join(w.edge.dir, "token"))
	var out realpart.Output
	kept.Stdout, kept.Stderr = &out, &out
	if err := kept.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Time, 1)
	go func() { _ = kept.Wait(); ended <- time.Now() }()
	t.Cleanup(func() { _ = kept.Process.Kill() })
	w.edge.eventually(t, "it is registered", func() bool { return strings.Contains(out.String(), "}") })
	began := time.Now()
	w.revoke(t, first)
	answered := time.Now()
	w.relay1.eventually(t, "the relay refuses the token", func() bool { return !first.goodAt(t, w.relay1) })
	refused := time.Now()
	select {
	case at := <-ended:
		t.Logf("after the revocation was asked for: answered %v, the WebSocket closed %v, the relay seen to refuse %v",
			answered.Sub(began).Round(time.Millisecond), at.Sub(began).Round(time.Millisecond), refused.Sub(began).Round(time.Millisecond))
		if at.Sub(began) > 10*time.Second || refused.Sub(began) > 10*time.Second {
			t.Error("the goal is 1 s")
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the registration goes on\n%s", w.edge.log)
	}
	if !strings.Contains(out.String(), "revoked") {
		t.Errorf("wic ended with %s", out.String())
	}

	second := w.token(t, "alice")
	if out, ok := w.registers(t, second); !ok {
		t.Fatalf("register with another token: %s\n%s", out, w.edge.log)
	}
	killEdge()
	killRelay()
	w.waf.eventually(t, "both are missed", func() bool {
		return w.waf.metric(`epcscf_waf_push_relay_up{relay="relay1"}`) == "0" && w.waf.metric(`epcscf_waf_push_relay_up{relay="edge1"}`) == "0"
	})
	w.revoke(t, second)
	killWAF()
	w.waf.spawn(t)
	if e, r := w.pending("edge1"), w.pending("relay1"); e == "" || e == "0" || e != r {
		t.Errorf("after kill -9 of the WAF %q revocations wait for the edge and %q for the relay", e, r)
	}
	w.relay1.spawnAs(t, "relay")
	killEdge = w.edge.spawn(t)
	w.waf.eventually(t, "both are told", func() bool { return w.pending("edge1") == "0" && w.pending("relay1") == "0" })
	refusedAtBoth := func(when string, revoked ...issued) {
		t.Helper()
		for _, i := range revoked {
			if out, ok := w.registers(t, i); ok || !strings.Contains(out, "invalid_token") {
				t.Errorf("%s: register with a revoked token: %s", when, out)
			}
			if i.goodAt(t, w.relay1) {
				t.Errorf("%s: a revoked token is good at the relay", when)
			}
		}
	}
	refusedAtBoth("after the journal", second, first)
	third := w.token(t, "alice") // which the WAF's keys are needed for, so before it goes
	if out, ok := w.registers(t, third); !ok {
		t.Errorf("register with a third token: %s", out)
	}
	killEdge()
	w.edge.spawn(t)
	refusedAtBoth("after kill -9 of the edge", second, first)
	if !third.goodAt(t, w.relay1) {
		t.Error("the token that is good is refused at the relay")
	}
}

// TestLoanReturnsAcrossHosts: an edge tells a WAF elsewhere that a registration has ended, and
// the identity that was lent for it is free again long before its token ends.
func TestLoanReturnsAcrossHosts(t *testing.T) {
	w := prepareWAFFleet(t, "push")
	pw := filepath.Join(w.waf.dir, "alice.pw")
	epcscf(t, 0, "waf", "-c", w.waf.file, "identity", "add", "--class", "guests", "--impi", "alice@ims.test", "--impu", "sip:alice@ims.test")
	for _, name := range []string{"guest1", "guest2"} {
		epcscf(t, 0, "waf", "-c", w.waf.file, "user", "add", name, "--class", "guests", "--password-file", pw)
	}
	w.relay1.spawnAs(t, "relay")
	w.edge.spawn(t) // before the WAF, which then follows it from the start
	w.waf.spawn(t)
	w.everyoneAnswers(t)
	for i, name := range []string{"guest1", "guest2"} { // the pool has one identity
		lent := w.token(t, name)
		if out, ok := w.registers(t, lent); !ok { // and de-registers
			t.Fatalf("register as %s: %s\n%s", name, out, w.edge.log)
		}
		began := time.Now()
		w.waf.eventually(t, "what was lent comes back", func() bool { return strings.Count(w.waf.log.String(), `reason="registration ended"`) == i+1 })
		t.Logf("%s: back %v after wic had ended", name, time.Since(began).Round(time.Millisecond))
		if out, ok := w.registers(t, lent); ok {
			t.Errorf("%s: the token is good after the identity has gone back: %s", name, out)
		}
	}
}
