package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"epcscf/turncred"
)

func mustAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestConfigErrors(t *testing.T) {
	sound := func() Config {
		return Config{
			Domain: testDomain, CoreAddr: mustAddr("127.0.0.1:5060"),
			NextHops: []NextHop{{"udp", "127.0.0.1:5070"}}, Origins: []string{testOrigin},
		}
	}
	if _, err := New(sound()); err != nil {
		t.Errorf("New of a sound Config: %v", err)
	}
	for field, change := range map[string]func(*Config){
		"Domain":   func(c *Config) { c.Domain = "" },
		"CoreAddr": func(c *Config) { c.CoreAddr = mustAddr("0.0.0.0:5060") },
		"port 0":   func(c *Config) { c.CoreAddr = mustAddr("127.0.0.1:0") },
		"CoreHost": func(c *Config) { c.CoreHost = "a b" },
		"NextHop":  func(c *Config) { c.NextHops = []NextHop{{}} },
		"Origins":  func(c *Config) { c.Origins = nil },
		"origin":   func(c *Config) { c.Origins = []string{"http://wic.example"} },
		"path":     func(c *Config) { c.Origins = []string{"https://wic.example/"} },
		"Offer":    func(c *Config) { c.Offer = "sometimes" },
		"FlowKey":  func(c *Config) { c.FlowKey = turncred.NewSecret([]byte("short")) },
	} {
		c := sound()
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("New with a bad %s: %v, want an error that names it", field, err)
		}
	}
}

func TestParseNextHop(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want NextHop
	}{
		{"udp:127.0.0.1:5070", NextHop{"udp", "127.0.0.1:5070"}},
		{"TCP:[::1]:5060", NextHop{"tcp", "[::1]:5060"}},
		{"udp:core.ims.test:5060", NextHop{"udp", "core.ims.test:5060"}},
		{"127.0.0.1:5070", NextHop{}},
		{"udp:127.0.0.1", NextHop{"udp", "127.0.0.1"}},
		{"tls:[::1]", NextHop{"tls", "[::1]"}},
		{"sip:ims.test", NextHop{"sip", "ims.test"}},
		{"sips:ims.test:5061", NextHop{"sips", "ims.test:5061"}},
		{"udp:[::1]x:5060", NextHop{}},
		{"udp:[1.2.3.4]:5060", NextHop{}},
		{"udp:::1:5060", NextHop{}},
		{"udp:evil host", NextHop{}},
		{"udp:127.0.0.1:0", NextHop{}},
		{"udp::5060", NextHop{}},
		{"tls:127.0.0.1:5061", NextHop{"tls", "127.0.0.1:5061"}},
		{"ws:127.0.0.1:5061", NextHop{}},
		{"", NextHop{}},
	} {
		got, err := ParseNextHop(tt.in)
		if got != tt.want || (err == nil) != (tt.want != NextHop{}) {
			t.Errorf("ParseNextHop(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
}

func TestFlowToken(t *testing.T) {
	a := newTokenSealer(testSecret)
	tok := a.seal(7)
	if id, err := a.open(tok); id != 7 || err != nil {
		t.Errorf("open(seal(7)) = %d, %v", id, err)
	}
	for i := range tok {
		b := []byte(tok)
		b[i] ^= 1
		if _, err := a.open(FlowToken(b)); err == nil {
			t.Errorf("token with octet %d changed is taken", i)
		}
	}
	if _, err := newTokenSealer(testSecret).open(tok); !errors.Is(err, errTokenEpoch) {
		t.Errorf("a later process says %v, want errTokenEpoch", err)
	}
	if _, err := newTokenSealer(turncred.Secret{}).open(tok); !errors.Is(err, errTokenForged) {
		t.Errorf("another key says %v, want errTokenForged", err)
	}
	if strings.Trim(string(tok), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		t.Errorf("token %q is no user part of a SIP URI", tok)
	}
}
