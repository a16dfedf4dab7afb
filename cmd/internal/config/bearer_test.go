package config

import (
	"strings"
	"testing"
)

const jwks = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"w1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}` // RFC 8037 A.2

// withBearer is good with keys of proxy, and a section proxy.bearer.
func withBearer(t *testing.T, keys, section string) (*File, error) {
	t.Helper()
	dir := folder(t)
	write(t, dir, "jwks.json", jwks, 0o644)
	write(t, dir, "none.json", `{"keys":[]}`, 0o644)
	write(t, dir, "client.secret", "hunter2\n", 0o600)
	if section != "" {
		keys += "  bearer:\n" + section
	}
	return Load(write(t, dir, "epcscf.yaml", strings.Replace(good, "  limits:\n", keys+"  limits:\n", 1), 0o644), "")
}

func TestBearer(t *testing.T) {
	const issuer = "    issuer: https://login.ims.test\n"
	for _, tt := range []struct {
		name, keys, section string
		faults              []string // words of the error; none: it is good
	}{
		{name: "off"},
		{name: "keys in a file", keys: "  close_on_bad_token: true\n", section: issuer + "    jwks_file: jwks.json\n"},
		{name: "keys by URL", keys: "  token_every_request: true\n", section: issuer + "    jwks_url: https://login.ims.test/jwks\n    ca_file: ca.pem\n"},
		{name: "introspection", section: issuer + "    introspection_url: https://login.ims.test/introspect\n    client_id: edge\n    client_secret_file: client.secret\n"},

		{name: "no issuer", section: "    jwks_file: jwks.json\n", faults: []string{"proxy.bearer.issuer", "https://login.ims.example"}},
		{name: "every request, of what", keys: "  token_every_request: true\n", faults: []string{"proxy.token_every_request", "proxy.bearer.issuer"}},
		{name: "bad token, of what", keys: "  close_on_bad_token: true\n", faults: []string{"proxy.close_on_bad_token", "proxy.bearer.issuer"}},
		{name: "no way to check", section: issuer, faults: []string{"one of jwks_url, jwks_file and introspection_url"}},
		{name: "two ways", section: issuer + "    jwks_file: jwks.json\n    jwks_url: https://login.ims.test/jwks\n", faults: []string{"one of jwks_url"}},
		{name: "issuer in clear", section: "    issuer: http://login.ims.test\n    jwks_file: jwks.json\n", faults: []string{"proxy.bearer.issuer", "https URL"}},
		{name: "keys in clear", section: issuer + "    jwks_url: http://login.ims.test/jwks\n", faults: []string{"proxy.bearer.jwks_url", "https URL"}},
		{name: "no key", section: issuer + "    jwks_file: none.json\n", faults: []string{"proxy.bearer.jwks_file", "no public key"}},
		{name: "no JWKS", section: issuer + "    jwks_file: k1.key\n", faults: []string{"proxy.bearer.jwks_file", "want a JWKS"}},
		{name: "no client", section: issuer + "    introspection_url: https://login.ims.test/introspect\n", faults: []string{"client_id and client_secret_file"}},
		{name: "client, but nobody to ask", section: issuer + "    jwks_file: jwks.json\n    client_id: edge\n", faults: []string{"proxy.bearer.introspection_url"}},
		{name: "secret in the open", section: issuer + "    introspection_url: https://login.ims.test/introspect\n    client_id: edge\n    client_secret_file: open.key\n",
			faults: []string{"proxy.bearer.client_secret_file", "chmod 600"}},
		{name: "authorities that are none", section: issuer + "    jwks_url: https://login.ims.test/jwks\n    ca_file: k1.key\n", faults: []string{"proxy.bearer.ca_file", "PEM"}},
	} {
		f, err := withBearer(t, tt.keys, tt.section)
		switch {
		case err == nil && len(tt.faults) == 0:
			if b := f.Node().Bearer; (b != nil) != (tt.section != "") || b != nil && (b.Expected.Audience != "sip:ims.test" || b.Expected.Scope != "webrtc-ims-client-access-to-ims") {
				t.Errorf("%s: %+v", tt.name, b)
			}
		case err == nil || len(tt.faults) == 0:
			t.Errorf("%s: %v, want %q", tt.name, err, tt.faults)
		default:
			for _, word := range tt.faults {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%s: %v, want %q in it", tt.name, err, word)
				}
			}
		}
	}
}
