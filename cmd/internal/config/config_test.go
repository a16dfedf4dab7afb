package config

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/cmd/internal/testpki"
	"epcscf/turncred"
	"epcscf/turncred/token"
)

// folder is an operator's, with what good names.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca := testpki.NewCA(t, dir)
	ca.Issue(t, dir, "edge", time.Now().Add(90*24*time.Hour), "edge.ims.test", "turn.ims.test", "192.0.2.6")
	ca.Issue(t, dir, "other", time.Now().Add(90*24*time.Hour), "other.test")
	ca.Issue(t, dir, "expired", time.Now().Add(-time.Hour), "edge.ims.test")
	ca.Issue(t, dir, "future", time.Now().Add(300*24*time.Hour), "edge.ims.test")
	write(t, dir, "deployment.key", strings.Repeat("d", 32)+"\n", 0o600)
	write(t, dir, "k1.key", strings.Repeat("k", 32), 0o600)
	write(t, dir, "short.key", strings.Repeat("k", 31)+"\n", 0o600)
	write(t, dir, "t1.key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("t", 32)))+"\n", 0o600)
	write(t, dir, "t16.key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("t", 16))), 0o600)
	write(t, dir, "open.key", strings.Repeat("k", 32), 0o644)
	write(t, dir, "group.key", strings.Repeat("k", 32), 0o640)
	edge, err := os.ReadFile(filepath.Join(dir, "edge.key"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "open-edge.key", string(edge), 0o644)
	write(t, dir, "group-edge.key", string(edge), 0o640)
	return dir
}

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const good = `turn:
  max_ttl: 10m
  deployment_secret_file: deployment.key
keys:
  - kid: k1
    file: k1.key
    not_after: ""
proxy:
  domain: ims.test
  listen: 192.0.2.5:443
  origins:
    - https://phone.ims.test
  tls:
    cert_file: edge.pem
    key_file: edge.key
  limits:
    flows: 100
core:
  listen: 192.0.2.5:5060
  next_hops: udp:192.0.2.10:5060
relay:
  public_name: turn.ims.test
  listen:
    udp: 192.0.2.6:3478
    tls: 192.0.2.6:5349
admin:
  listen: 127.0.0.1:9090
`

func TestGood(t *testing.T) {
	f, err := Load(write(t, folder(t), "epcscf.yaml", good, 0o644), "")
	if err != nil {
		t.Fatal(err)
	}
	n := f.Node()
	if n.TURN.MaxTTL != 10*time.Minute || n.TURN.Approach != turncred.ApproachSharedKey || n.TURN.Realm != "ims.test" || len(n.TURN.Keys) != 1 || n.TURN.Deployment.Len() != 32 {
		t.Errorf("turn: %+v", n.TURN)
	}
	if n.Proxy.Limits.Flows != 100 || n.Proxy.Limits.Queue != 64 || n.Proxy.AllowUnauthorized || len(n.Proxy.NextHops) != 1 || n.Proxy.FlowGrace != 2*time.Minute {
		t.Errorf("proxy: %+v", n.Proxy)
	}
	if r := n.Relay; r == nil || r.Settings.RelayIP.String() != "192.0.2.6" || r.Settings.MaxAllocationsPerSubject != 32 || r.Certificate != n.Certificate || len(r.TCP) != 0 {
		t.Errorf("relay: %+v", n.Relay)
	}
	if len(f.Notes()) != 0 || f.LogFormat != "text" || f.Page {
		t.Errorf("notes %q, log.format %q, page %v", f.Notes(), f.LogFormat, f.Page)
	}
}

// mistakes are one change of good each, and what must be said: the place, and words.
var mistakes = []struct {
	name, old, new string
	at             string // line:column; "": the file as a whole
	want           []string
}{
	{"unknown key, nearly right", "domain:", "domian:", "9:3", []string{"proxy.domian", "did you mean proxy.domain?"}},
	{"key of another section", "  max_ttl: 10m", "  quota: 5", "2:3", []string{"turn.quota", "did you mean relay.quota?"}},
	{"unknown key, nothing like it", "  max_ttl: 10m", "  zzz: 5", "2:3", []string{"turn.zzz", "epcscf config"}},
	{"unknown section", "admin:", "metrics:", "26:1", []string{"no key metrics"}},
	{"secret in the file", "  max_ttl: 10m", "  shared_key: hunter2hunter2", "2:3", []string{"a secret never stands in this file", "deployment_secret_file"}},
	{"secret in an item of keys", "    not_after: \"\"", "    secret: hunter2hunter2", "7:13", []string{"a secret never stands in this file"}},
	{"unknown key in an item", "    not_after:", "    until:", "7:12", []string{"keys.until", "kid, file, not_before, not_after"}},

	{"text for a number", "flows: 100", "flows: many", "17:12", []string{"proxy.limits.flows", "whole number", "20000", `"many"`}},
	{"number with a base", "flows: 100", "flows: 0x10", "17:12", []string{"decimal", "0x10"}},
	{"number out of range", "flows: 100", "flows: 0", "17:12", []string{"out of range", "1 to"}},
	{"fraction", "flows: 100", "flows: 1.5", "17:12", []string{"whole number", "1.5"}},
	{"number for a time", "max_ttl: 10m", "max_ttl: 600", "2:12", []string{"turn.max_ttl", "time with its unit", "1h", "600"}},
	{"old boolean", "  max_ttl: 10m", "  require_authorization: yes", "2:26", []string{"true or false", `"yes"`}},
	{"list for a text", "domain: ims.test", "domain: [ims.test]", "9:11", []string{"domain name", "a list"}},
	{"number for a text", "domain: ims.test", "domain: 12", "9:11", []string{"quotes", `"12"`}},
	{"keys for an address", "listen: 192.0.2.5:443", "listen: {192.0.2.5: 443}", "10:11", []string{"proxy.listen", "quotes"}},
	{"IPv6 address without quotes", "listen: 192.0.2.5:443", "listen: [2001:db8::5]:443", "10:", []string{"quotes", `"[2001:db8::5]:443"`}},
	{"text for a section", "admin:\n  listen: 127.0.0.1:9090", "admin: 127.0.0.1:9090", "26:8", []string{"admin", "section"}},
	{"empty section", "admin:\n  listen: 127.0.0.1:9090", "admin:", "26:1", []string{"admin", "empty"}},
	{"no value", "domain: ims.test", "domain:", "9:3", []string{"proxy.domain", "no value", "ims.example"}},
	{"anchor", "domain: ims.test", "domain: &d ims.test", "9:11", []string{"does without"}},
	{"tag", "flows: 100", "flows: !!int 100", "17:12", []string{"does without"}},
	{"merge", "admin:", "<<: {log: {}}\nadmin:", "26:1", []string{"<<"}},
	{"keys is no list", "keys:\n  - kid: k1\n    file: k1.key\n    not_after: \"\"", "keys: k1.key", "4:7", []string{"list of keys"}},

	{"duplicate key", "  max_ttl: 10m", "  max_ttl: 10m\n  max_ttl: 20m", "3:3", []string{"max_ttl", "already defined", "keep one"}},
	{"duplicate section", "admin:", "proxy:\n  page: true\nadmin:", "26:1", []string{"proxy", "already defined"}},
	{"tab", "  max_ttl: 10m", "\tmax_ttl: 10m", "2:1", []string{"indent with spaces"}},
	{"second document", "admin:", "---\nadmin:", "27:1", []string{"second document"}},
	{"not YAML", "admin:", "admin: [", "26:8", []string{"not YAML"}},
	{"control character", "admin:", "admin:\x00", "26:7", []string{"control character"}},
	{"no mapping", good, "- a\n", "1:1", []string{"sections"}},

	{"nothing of proxy", good, "turn:\n  deployment_secret_file: deployment.key\n", "1:1", []string{"proxy.domain: is missing", "domain: ims.example"}},
	{"missing key", "  domain: ims.test\n", "", "8:1", []string{"proxy.domain: is missing", "home domain", "domain: ims.example"}},
	{"nobody may connect", "  origins:\n    - https://phone.ims.test\n", "", "8:1", []string{"proxy.origins", "nobody could connect"}},
	{"empty list of hops", "next_hops: udp:192.0.2.10:5060", "next_hops: []", "20:3", []string{"core.next_hops", "where is the core"}},
	{"hop without transport", "udp:192.0.2.10:5060", "192.0.2.10:5060", "20:14", []string{"core.next_hops", "udp:HOST:PORT"}},
	{"name for a socket", "listen: 192.0.2.5:443", "listen: edge.ims.test:443", "10:11", []string{"not a name", "IP:PORT"}},
	{"no port", "listen: 192.0.2.5:443", "listen: 192.0.2.5", "10:11", []string{"IP:PORT", "203.0.113.5:443"}},
	{"port 0", "listen: 192.0.2.5:443", "listen: 192.0.2.5:0", "10:11", []string{"port 0"}},
	{"two listeners in one place", "tls: 192.0.2.6:5349", "tls: 192.0.2.5:443", "25:5", []string{"relay.listen.tls", "taken already by", "proxy.listen"}},
	{"unknown word", "  max_ttl: 10m", "  approach: pull", "2:13", []string{"shared-key or push", `"pull"`}},
	{"ports the wrong way round", "relay:", "relay:\n  min_port: 60000\n  max_port: 50000", "23:3", []string{"relay.max_port", "min_port"}},
	{"range with bits beyond", "relay:", "relay:\n  allow_peers: 10.1.2.3/8", "22:16", []string{"10.0.0.0/8"}},
	{"TURN URI", "  max_ttl: 10m", "  uris: [\"turn://turn.ims.test\"]", "2:10", []string{"turns:HOST:PORT"}},
	{"kid", "kid: k1", "kid: key-1", "5:10", []string{"keys.kid", "letters and digits", "key-1"}},
	{"key without file", "    file: k1.key\n", "", "5:5", []string{"kid and file"}},
	{"kid twice", "keys:", "keys:\n  - kid: k1\n    file: k1.key", "7:5", []string{"k1", "twice"}},
	{"key validity", `not_after: ""`, "not_after: soon", "7:16", []string{"2026-01-01T00:00:00Z"}},
	{"no key that is valid", `not_after: ""`, "not_after: 2020-01-01T00:00:00Z", "4:1", []string{"keys", "no key is valid now"}},
	{"no key", "keys:\n  - kid: k1\n    file: k1.key\n    not_after: \"\"\n", "", "1:1", []string{"keys", "shared-key"}},

	{"secret missing", "deployment.key", "nothing.key", "3:3", []string{"turn.deployment_secret_file", "nothing.key", "no such file"}},
	{"secret readable by others", "deployment.key", "open.key", "3:3", []string{"open.key", "0644", "chmod 600"}},
	{"secret readable by a group", "file: k1.key", "file: group.key", "5:5", []string{"group.key", "0640", "chmod 600"}},
	{"secret too short", "file: k1.key", "file: short.key", "5:5", []string{"short.key", "31 bytes", "32", "openssl"}},
	{"secret is a folder", "file: k1.key", "file: .", "5:5", []string{"directory"}},
	{"certificate missing", "edge.pem", "nothing.pem", "14:5", []string{"proxy.tls.cert_file", "nothing.pem", "no such file"}},
	{"key of another certificate", "edge.key", "other.key", "14:5", []string{"edge.pem", "other.key", "does not match"}},
	{"certificate expired", "edge.pem\n    key_file: edge.key", "expired.pem\n    key_file: expired.key", "14:5", []string{"expired.pem", "expired on", "renew"}},
	{"certificate not yet valid", "edge.pem\n    key_file: edge.key", "future.pem\n    key_file: future.key", "14:5", []string{"not valid before", "clock"}},
	{"TLS key readable by others", "edge.key", "open-edge.key", "15:5", []string{"proxy.tls.key_file", "0644", "chmod 600"}},
	{"certificate is not for the name in turns", "public_name: turn.ims.test", "public_name: relay.ims.test", "14:5", []string{"relay.ims.test", "turns:"}},
	{"half a pair", "relay:", "relay:\n  tls:\n    cert_file: edge.pem", "22:3", []string{"relay.tls", "both"}},

	{"folder of revocations missing", "relay:", "relay:\n  revocations_file: nothing/revocations.db", "22:3", []string{"relay.revocations_file", "nothing is no folder"}},
	{"token keys without a name", "admin:", "tokens:\n  keys: [{kid: t1, file: t1.key}]\nadmin:", "26:1", []string{"tokens.server_name", "turn.ims.example"}},
	{"tokens without a key", "admin:", "tokens: {server_name: turn.ims.test}\nadmin:", "26:1", []string{"tokens.keys", "kid: t1"}},
	{"token key that is not base64", "admin:", "tokens:\n  server_name: turn.ims.test\n  keys: [{kid: t1, file: short.key}]\nadmin:", "28:10", []string{"short.key", "base64", "openssl rand -base64 32"}},
	{"token key too short", "admin:", "tokens:\n  server_name: turn.ims.test\n  keys: [{kid: t1, file: t16.key}]\nadmin:", "28:10", []string{"t16.key", "16 bytes", "32"}},
	{"token key readable by others", "admin:", "tokens:\n  server_name: turn.ims.test\n  keys: [{kid: t1, file: open.key}]\nadmin:", "28:10", []string{"0644", "chmod 600"}},
	{"token algorithm", "admin:", "tokens:\n  server_name: turn.ims.test\n  keys:\n    - kid: t1\n      file: t1.key\n      algorithm: A256CBC-HS512\nadmin:", "31:18", []string{"tokens.keys.algorithm", "A256GCM or A128GCM"}},
	{"key of the other list", "    not_after:", "    foreign: true\n    not_after:", "7:14", []string{"keys.foreign", "kid, file, not_before, not_after"}},

	{"hop over TLS without authorities", "udp:192.0.2.10:5060", "tls:core.ims.test", "18:1", []string{"core.tls.ca_file", "tls:core.ims.test", "authorities"}},
	{"core's TLS without our certificate", "  next_hops:", "  tls: {ca_file: ca.pem}\n  next_hops:", "20:3", []string{"core.tls", "cert_file and key_file"}},
	{"core's TLS without authorities", "  next_hops:", "  tls: {cert_file: edge.pem, key_file: edge.key}\n  next_hops:", "20:3", []string{"core.tls", "ca_file"}},
	{"authorities that are none", "  next_hops:", "  tls: {ca_file: k1.key, cert_file: edge.pem, key_file: edge.key}\n  next_hops:", "20:9", []string{"core.tls.ca_file", "k1.key", "PEM"}},
	{"core's TLS port is taken", "  next_hops:", "  tls: {port: 5060, ca_file: ca.pem, cert_file: edge.pem, key_file: edge.key}\n  next_hops:", "20:9", []string{"core.tls.port", "taken already by", "core.listen"}},
	{"any origin", "https://phone.ims.test", `"*"`, "12:7", []string{"proxy.origins", "every page"}},
	{"origin in clear", "https://phone.ims.test", "http://phone.ims.test", "12:7", []string{"in clear"}},
	{"origin with a path", "https://phone.ims.test", "https://phone.ims.test/", "12:7", []string{"without a path"}},
	{"origin as no browser sends it", "https://phone.ims.test", "https://Phone.ims.test:443", "12:7", []string{"write https://phone.ims.test"}},
	{"life above a day", "max_ttl: 10m", "max_ttl: 25h", "2:12", []string{"24h", "stolen"}},
	{"life below 5 s", "max_ttl: 10m", "max_ttl: 1s", "2:12", []string{"5s"}},
	{"admin in the open", "127.0.0.1:9090", "0.0.0.0:9090", "27:11", []string{"admin.listen", "no authentication", "127.0.0.1:9090"}},
	{"everybody is a balancer", "  limits:", "  proxy_protocol:\n    trusted: 0.0.0.0/0\n  limits:", "17:14", []string{"everybody"}},
	{"every peer is open", "relay:", "relay:\n  allow_peers: [\"::/0\"]", "22:17", []string{"everybody"}},
	{"wildcard in Path", "listen: 192.0.2.5:5060", "listen: 0.0.0.0:5060", "19:3", []string{"core.listen", "Via and Path", "core.host"}},
	{"wildcard in a TURN URI", "  public_name: turn.ims.test\n  listen:\n    udp: 192.0.2.6:3478", "  relay_address: 192.0.2.6\n  listen:\n    udp: 0.0.0.0:3478", "24:5", []string{"relay.listen.udp", "nobody can send to it", "public_name"}},
	{"wildcard as relayed address", "udp: 192.0.2.6:3478", "udp: 0.0.0.0:3478", "21:1", []string{"relay.relay_address", "0.0.0.0:3478"}},
	{"IPv4 as the second address", "relay:", "relay:\n  relay_address6: 203.0.113.9", "22:3", []string{"relay.relay_address6", "IPv6"}},
	{"families of the NAT", "relay:", "relay:\n  external_address: \"2001:db8::1\"", "22:3", []string{"relay.external_address", "families"}},
	{"relay without a listener", "  listen:\n    udp: 192.0.2.6:3478\n    tls: 192.0.2.6:5349\n", "", "21:1", []string{"relay.listen", "relay.enabled"}},
}

func TestEachMistakeHasItsMessage(t *testing.T) {
	dir := folder(t)
	for _, tt := range mistakes {
		text := strings.Replace(good, tt.old, tt.new, 1)
		if text == good {
			t.Errorf("%s: the change changes nothing", tt.name)
			continue
		}
		name := write(t, dir, "epcscf.yaml", text, 0o644)
		_, err := Load(name, "")
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		said := err.Error()
		if !strings.HasPrefix(said, name+":"+tt.at) {
			t.Errorf("%s: %q, want it at %s", tt.name, said, tt.at)
		}
		for _, w := range tt.want {
			if !strings.Contains(said, w) {
				t.Errorf("%s: %q does not say %q", tt.name, said, w)
			}
		}
		if strings.Contains(said, "\n") || strings.Contains(said, "hunter2") {
			t.Errorf("%s: more than a line, or a secret: %q", tt.name, said)
		}
	}
}

func TestTokens(t *testing.T) {
	f, err := Load(write(t, folder(t), "epcscf.yaml", good+`tokens:
  server_name: turn.ims.test
  max_lifetime: 10m
  keys:
    - {kid: t1, file: t1.key}
    - {kid: as1, file: t16.key, algorithm: A128GCM, foreign: true, not_after: "2030-01-01T00:00:00Z"}
`, 0o644), "")
	if err != nil {
		t.Fatal(err)
	}
	got := f.Node().TURN.Tokens
	if got.ServerName != "turn.ims.test" || got.MaxLifetime != 10*time.Minute || len(got.Keys) != 2 {
		t.Fatalf("%+v", got)
	}
	if k := got.Keys[0]; k.ID != "t1" || k.Foreign || k.Algorithm.KeyLen() != 32 || string(k.Secret.Reveal()) != strings.Repeat("t", 32) {
		t.Errorf("t1: %+v", k)
	}
	if k := got.Keys[1]; k.ID != "as1" || !k.Foreign || k.Algorithm != token.A128GCM || k.NotAfter.Year() != 2030 {
		t.Errorf("as1: %+v", k)
	}
}

func TestRelayThatIsNotOurs(t *testing.T) {
	dir := folder(t)
	foreign := good[:strings.Index(good, "relay:")] + "relay:\n  enabled: false\n"
	for _, tt := range []struct {
		name, old, new, approach string
		want                     []string
	}{
		{"without its URIs", "", "", "", []string{"turn.uris", "relay.enabled is false", "turns:turn.ims.example"}},
		{"push", "turn:\n", "turn:\n  uris: turns:turn.ims.test:5349\n  approach: push\n", "", []string{":3:3: turn.approach", "use shared-key"}},
		{"push by the flag", "turn:\n", "turn:\n  uris: turns:turn.ims.test:5349\n", "push", []string{"turn.approach", "use shared-key"}},
		{"an approach that there is not", "", "", "pull", []string{"--turn-approach", "shared-key", "push"}},
	} {
		_, err := Load(write(t, dir, "epcscf.yaml", strings.Replace(foreign, tt.old, tt.new, 1), 0o644), tt.approach)
		for _, w := range tt.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", tt.name, err, w)
			}
		}
	}
	f, err := Load(write(t, dir, "epcscf.yaml", strings.Replace(foreign, "turn:\n", "turn:\n  uris: turns:turn.ims.test:5349\n", 1), 0o644), "")
	if err != nil {
		t.Fatal(err)
	}
	if n := f.Node(); n.Relay != nil || len(n.TURN.URIs) != 1 || !strings.Contains(strings.Join(f.Notes(), ""), "a revocation reaches nobody") {
		t.Errorf("%+v, notes %q", n.TURN, f.Notes())
	}
}

func TestEverythingWrongIsListed(t *testing.T) {
	name := write(t, folder(t), "epcscf.yaml", strings.NewReplacer("domain:", "domian:", "flows: 100", "flows: x", "max_ttl: 10m", "max_ttl: 10").Replace(good), 0o644)
	_, err := Load(name, "")
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 3 || faults[0].Line != 2 || faults[1].Line != 9 || faults[2].Line != 17 {
		t.Fatalf("%v, want three in the file's order", err)
	}
	if !strings.Contains(err.Error(), "and 2 more") {
		t.Errorf("%q does not say that there are more", err)
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "nothing.yaml"), t.TempDir()} {
		if _, err := Load(name, ""); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "epcscf config") {
			t.Errorf("Load(%s): %v", name, err)
		}
	}
}
