package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/turncred/push"
)

// issue puts the interface's certificates into a folder, as epcscf pki does.
func issue(t *testing.T, dir, domain string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := push.NewAuthority(domain, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca.pem", string(a.PEM()), 0o600)
	for _, p := range []push.Peer{{Domain: domain, Role: push.RoleEdge, Name: "edge1"}, {Domain: domain, Role: push.RoleRelay, Name: "relay1"}, {Domain: domain, Role: push.RoleWAF, Name: "waf1"}} {
		cert, key, err := a.Issue(p, []string{"relay1." + domain}, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		base := string(p.Role) + "-" + p.Name
		write(t, dir, base+".pem", string(cert), 0o600)
		write(t, dir, base+".key", string(key.Reveal()), 0o600)
	}
}

// The relay's printed file loads as it is: all that it lacks are the files that it names.
func TestPrintedRelayFileLoads(t *testing.T) {
	var b bytes.Buffer
	if err := PrintRelay(&b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name := write(t, dir, "relay.yaml", b.String(), 0o644)
	if _, err := LoadRelay(name); err == nil || !strings.Contains(err.Error(), "epcscf check --relay -c "+name) {
		t.Errorf("without its files: %v", err)
	}
	lay(t, dir)
	issue(t, filepath.Join(dir, "pki"), "ims.example")
	f, err := LoadRelay(name)
	if err != nil {
		t.Fatal(err)
	}
	if missing := f.missingKeys(); len(missing) > 0 || len(f.Notes()) > 0 {
		t.Errorf("the printed file lacks %q, notes %q", missing, f.Notes())
	}
	if n := f.Relay(); n.Interface.Name != "relay1" || n.Interface.Domain != "ims.example" || n.Listen.String() != "10.0.0.6:8443" || n.WaitForEdge || len(n.TURN.Keys) != 1 {
		t.Errorf("%+v", n)
	}
}

const goodRelay = `interface:
  listen: 10.0.0.6:8443
  name: relay1
  cert_file: pki/relay-relay1.pem
  key_file: pki/relay-relay1.key
  ca_file: pki/ca.pem
turn:
  realm: ims.test
  deployment_secret_file: deployment.key
relay:
  listen:
    udp: 192.0.2.6:3478
`

func TestRelayMistakes(t *testing.T) {
	dir := folder(t)
	issue(t, filepath.Join(dir, "pki"), "ims.test")
	load := func(old, new string) error {
		text := strings.Replace(goodRelay, old, new, 1)
		if text == goodRelay && old != "" {
			t.Errorf("%q changes nothing", old)
		}
		_, err := LoadRelay(write(t, dir, "relay.yaml", text, 0o644))
		return err
	}
	if err := load("", ""); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		old, new, at string
		want         []string
	}{
		{"  name: relay1\n", "", "1:1", []string{"interface.name", "is missing", "relay1"}},
		{"name: relay1", "name: Relay1", "3:3", []string{"small letters"}},
		{"name: relay1", "name: relay2", "4:3", []string{"relay/relay1", "want relay/relay2"}},
		{"pki/relay-relay1.pem\n  key_file: pki/relay-relay1.key", "pki/edge-edge1.pem\n  key_file: pki/edge-edge1.key", "4:3", []string{"edge/edge1", "want relay/relay1"}},
		{"pki/relay-relay1.pem\n  key_file: pki/relay-relay1.key", "edge.pem\n  key_file: edge.key", "4:3", []string{"0 URIs", "spiffe://ims.test/turn-cred/relay/relay1", "epcscf pki issue"}},
		{"ca_file: pki/ca.pem", "ca_file: k1.key", "6:3", []string{"no certificate in PEM"}},
		{"realm: ims.test", "realm: other.test", "4:3", []string{`domain "ims.test", want "other.test"`}},
		{"turn:\n", "  state_dir: nothing/state\nturn:\n", "7:3", []string{"interface.state_dir", "make it"}},
		{"listen: 10.0.0.6:8443", "listen: relay1:8443", "2:11", []string{"an address, not a name"}},
		{"udp: 192.0.2.6:3478", "tls: 192.0.2.6:5349", "10:1", []string{"relay.tls", "cert_file and key_file"}},
		{"udp: 192.0.2.6:3478", "tcp: 10.0.0.6:8443", "12:5", []string{"taken already by", "interface.listen"}},
		{"relay:\n", "relay:\n  enabled: true\n", "11:3", []string{"no key relay.enabled", "epcscf config --relay"}},
		{"relay:\n", "relay:\n  start_alone: maybe\n", "11:16", []string{"serve or wait"}},
		{"turn:\n", "tokens: {keys_url: \"https://waf1.ims.test:8444\"}\nturn:\n", "7:1", []string{"tokens.server_name", "is missing"}},
		{"turn:\n", "tokens: {server_name: turn.ims.test, keys_url: \"https://waf1.ims.test/keys\"}\nturn:\n", "7:38", []string{"tokens.keys_url", "no path"}},
		{"relay:\n", "proxy:\n  domain: x\nrelay:\n", "10:1", []string{"no key proxy"}},
	} {
		err := load(tt.old, tt.new)
		if err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, "relay.yaml")+":"+tt.at+":") {
			t.Errorf("%q for %q: %v, want it at %s", tt.new, tt.old, err, tt.at)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q for %q: %v, want %q", tt.new, tt.old, err, w)
			}
		}
	}
}

// fleetOf makes an edge's file of one with a relay of its own.
func fleetOf(text string) string {
	i, j := strings.Index(text, "relay:"), strings.Index(text, "admin:")
	return strings.Replace(text[:i]+text[j:], "turn:\n", `turn:
  interface:
    name: edge1
    cert_file: pki/edge-edge1.pem
    key_file: pki/edge-edge1.key
    ca_file: pki/ca.pem
  relays:
    - name: relay1
      address: relay1.ims.test:8443
      uris: turns:relay1.ims.test:443?transport=tcp
    - name: relay2
      address: "[2001:db8::7]:8443"
      uris: [turn:relay2.ims.test]
      weight: 0
      region: north
`, 1)
}

func TestFleetInTheFile(t *testing.T) {
	dir := folder(t)
	issue(t, filepath.Join(dir, "pki"), "ims.test")
	base := fleetOf(good)
	load := func(old, new string) (*File, error) {
		text := strings.Replace(base, old, new, 1)
		if text == base && old != "" {
			t.Errorf("%q changes nothing", old)
		}
		return Load(write(t, dir, "epcscf.yaml", text, 0o644), "push")
	}
	old, err := load("", "")
	if err != nil {
		t.Fatal(err)
	}
	f := old.Node().Fleet
	if f == nil || f.Name != "edge1" || f.Domain != "ims.test" || len(f.Relays) != 2 || f.Relays[0].Weight != 100 || f.Relays[1].Weight != 0 || f.Relays[1].Region != "north" || old.Node().Relay != nil {
		t.Fatalf("%+v", f)
	}
	for _, tt := range []struct {
		old, new, at string
		want         []string
	}{
		{"    name: edge1\n", "", "2:3", []string{"turn.interface.name", "epcscf pki"}},
		{"    ca_file: pki/ca.pem\n", "", "2:3", []string{"turn.interface.ca_file", "epcscf pki"}},
		{"name: edge1", "name: edge2", "4:5", []string{"edge/edge1", "want edge/edge2"}},
		{"name: relay2", "name: relay1", "11:7", []string{"relay1 is there twice"}},
		{"      address: relay1.ims.test:8443\n", "", "8:7", []string{"want name, address and uris"}},
		{"address: relay1.ims.test:8443", "address: relay1.ims.test", "9:16", []string{"HOST:PORT", "relay1.ims.example:8443"}},
		{"uris: turns:", "uris: https:", "10:13", []string{"turns:HOST:PORT"}},
		{"weight: 0", "weight: -1", "14:15", []string{"out of range"}},
		{"weight: 0", "wieght: 0", "14:15", []string{"no such key", "weight"}},
		{"  relays:\n", "  spare: 2\n  relays:\n", "7:3", []string{"turn.spare", "1 or fewer"}},
		{"  relays:\n", "  uris: turn:x.test\n  relays:\n", "7:3", []string{"turn.uris", "its own uris"}},
		{"admin:", "relay:\n  listen: {udp: \"192.0.2.6:3478\"}\nadmin:", "", []string{"relay.enabled", "leave the section relay out"}},
	} {
		_, err := load(tt.old, tt.new)
		if err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, "epcscf.yaml")+":"+tt.at) {
			t.Errorf("%q for %q: %v, want it at %s", tt.new, tt.old, err, tt.at)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q for %q: %v, want %q", tt.new, tt.old, err, w)
			}
		}
	}
	for _, tt := range []struct{ old, new, taken, waiting string }{
		{"weight: 0", "weight: 50", "turn.relays", ""},
		{"region: north", "region: south", "", "turn.relays"},
	} {
		next, err := load(tt.old, tt.new)
		if err != nil {
			t.Fatal(err)
		}
		taken, waiting := next.Changed(old)
		if strings.Join(taken, " ") != tt.taken || strings.Join(waiting, " ") != tt.waiting {
			t.Errorf("%s: taken %v, waiting %v", tt.new, taken, waiting)
		}
	}
}
