package config

import (
	"path/filepath"
	"strings"
	"testing"
)

// withWAF is good with a section waf, a store to go with it, and a provider's secret.
func withWAF(t *testing.T, section, rest string) (*File, error) {
	t.Helper()
	dir := folder(t)
	issue(t, filepath.Join(dir, "pki"), "ims.test")
	write(t, dir, "provider.key", "canary\n", 0o600)
	return Load(write(t, dir, "epcscf.yaml", good+"waf:\n"+section+rest, 0o644), "")
}

const wafPlace = "  interface: {name: waf1, cert_file: pki/waf-waf1.pem, key_file: pki/waf-waf1.key, ca_file: pki/ca.pem}\n"

func TestWAF(t *testing.T) {
	const (
		bolt = "store: {kind: bolt, file: s.db, kek_file: k1.key}\n"
		on   = "  enabled: true\n  listen: 127.0.0.1:8444\n  issuer: https://edge.ims.test:8444\n"
	)
	for _, tt := range []struct {
		name, section, rest string
		off                 bool
		faults              []string // words of the error; none: it is good
	}{
		{name: "off", section: "  issuer: nonsense\n", off: true},
		{name: "on", section: on, rest: bolt},
		{name: "with a provider", section: on + "  provider: {issuer: https://op.test, client_id: x, secret_file: provider.key, class: guests}\n", rest: bolt},

		{name: "with a place at the credential interface", section: on + wafPlace + "  nodes: [{name: relay1, address: 10.0.0.6:8443}, {name: edge1, role: edge, address: edge1.ims.test:8443, server_name: e.test}]\n", rest: bolt},

		{name: "for nobody", section: on + wafPlace, rest: bolt, faults: []string{"waf.nodes: is empty"}},
		{name: "for two of one name", section: on + wafPlace + "  nodes: [{name: relay1, address: 10.0.0.6:8443}, {name: relay1, address: 10.0.0.7:8443}]\n", rest: bolt, faults: []string{"relay1 is there twice"}},
		{name: "for a node without an address", section: on + wafPlace + "  nodes: [{name: relay1}]\n", rest: bolt, faults: []string{"want name and address"}},
		{name: "for another WAF", section: on + wafPlace + "  nodes: [{name: waf2, role: waf, address: 10.0.0.6:8443}]\n", rest: bolt, faults: []string{"want relay or edge"}},
		{name: "nodes alone", section: on + "  nodes: [{name: relay1, address: 10.0.0.6:8443}]\n", rest: bolt, faults: []string{"waf.interface.name: is missing"}},
		{name: "another node's certificate", section: on + strings.ReplaceAll(wafPlace, "waf-waf1", "edge-edge1") + "  nodes: [{name: relay1, address: 10.0.0.6:8443}]\n", rest: bolt, faults: []string{"waf.interface.cert_file", "waf/waf1"}},
		{name: "keys of none", section: on + strings.Replace(wafPlace, "{", "{listen: 127.0.0.1:8445, ", 1) + "  nodes: [{name: relay1, address: 10.0.0.6:8443}]\n", rest: bolt, faults: []string{"waf.interface.listen", "tokens.server_name"}},

		{name: "without a store", section: on, faults: []string{"store.kind", "bolt, or postgres"}},
		{name: "nowhere", section: "  enabled: true\n  issuer: https://edge.ims.test\n", rest: bolt, faults: []string{"waf.listen", "203.0.113.5:8443"}},
		{name: "nameless", section: "  enabled: true\n  listen: 127.0.0.1:8444\n", rest: bolt, faults: []string{"waf.issuer", "https://login.ims.example"}},
		{name: "http", section: strings.Replace(on, "https:", "http:", 1), rest: bolt, faults: []string{"waf.issuer", "want https://HOST"}},
		{name: "with a path", section: strings.Replace(on, ":8444\n  issuer: https://edge.ims.test:8444", ":8444\n  issuer: https://edge.ims.test/waf", 1), rest: bolt, faults: []string{"waf.issuer", "no path"}},
		{name: "another's certificate", section: strings.Replace(on, "edge.ims.test", "login.ims.test", 1), rest: bolt, faults: []string{"proxy.tls.cert_file", "login.ims.test"}},
		{name: "half a provider", section: on + "  provider: {issuer: https://op.test}\n", rest: bolt, faults: []string{"waf.provider.client_id"}},
		{name: "a provider over http", section: on + "  provider: {issuer: http://op.test, client_id: x, secret_file: provider.key}\n", rest: bolt, faults: []string{"waf.provider.issuer", "https"}},
		{name: "a short life", section: on + "  registration_life: 1s\n", rest: bolt, faults: []string{"waf.registration_life"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := withWAF(t, tt.section, tt.rest)
			if err != nil {
				for _, word := range append(tt.faults, "") {
					if len(tt.faults) == 0 || !strings.Contains(err.Error(), word) {
						t.Errorf("Load = %v, want %q", err, tt.faults)
					}
				}
				return
			}
			if len(tt.faults) > 0 || (f.Node().WAF == nil) != tt.off {
				t.Errorf("WAF %v, want off: %v, and faults %q", f.Node().WAF, tt.off, tt.faults)
			}
			if !tt.off && f.Node().WAF.Settings.Registration.Audience != "sip:ims.test" {
				t.Errorf("audience %q", f.Node().WAF.Settings.Registration.Audience)
			}
		})
	}
}
