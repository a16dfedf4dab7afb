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
tokens:
  server_name: turn.ims.test
  keys:
    - {kid: t1, file: t1.key}
`, w.addr, w.addr, w.keysAt, pki, address)
	})
	w.relay1.edit(t, "turn:", "tokens: {server_name: turn.ims.test, keys_url: \"https://"+w.keysAt+"\"}\nturn:")
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
	ends := time.Now().Add(20 * time.Second).UTC().Format(time.RFC3339) // so that the relay asks again soon
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
	if err != nil || bytes.Contains(kept, []byte("t2")) || bytes.Contains(kept, bytes.Repeat([]byte("2"), 32)) {
		t.Errorf("the file of the keys: %v, %q", err, kept)
	}
	for _, s := range []*served{w.relay1, w.waf} {
		if strings.Contains(s.log.String(), "dHR0dHR0") {
			t.Error("the log shows a key")
		}
	}
}
