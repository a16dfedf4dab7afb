package config

import (
	"crypto/x509"
	"net/url"
	"os"

	"epcscf/cmd/internal/node"
)

// checkBearer is registration by access token, where it is on.
func (f *File) checkBearer() {
	b := &f.bearer
	var ways []string
	for _, v := range []string{b.JWKSURL, f.bearerKeys, b.IntrospectionURL} {
		if v != "" {
			ways = append(ways, v)
		}
	}
	if b.Expected.Issuer == "" && f.wafOn {
		f.node.Bearer = b // of the WAF of this process
	}
	if b.Expected.Issuer == "" {
		if len(ways) > 0 {
			f.addAt("proxy.bearer.issuer", "is missing, and it turns proxy.bearer on: write whose tokens are taken, such as https://login.ims.example")
		}
		for name, on := range map[string]bool{"proxy.token_every_request": b.EveryRequest, "proxy.close_on_bad_token": b.CloseOnBad} {
			if on && !f.wafOn {
				f.addAt(name, "is on, but no tokens are taken: write proxy.bearer.issuer, or leave it out")
			}
		}
		return
	}
	f.node.Bearer = b
	if b.Expected.Audience == "" {
		b.Expected.Audience = "sip:" + f.node.Proxy.Domain
	}
	for _, u := range []struct{ key, value string }{
		{"proxy.bearer.issuer", b.Expected.Issuer}, {"proxy.bearer.authz_server", b.AuthzServer},
		{"proxy.bearer.jwks_url", b.JWKSURL}, {"proxy.bearer.introspection_url", b.IntrospectionURL},
	} {
		if p, err := url.Parse(u.value); u.value != "" && (err != nil || p.Scheme != "https" || p.Host == "") {
			f.addAt(u.key, "%q: want an https URL", u.value)
		}
	}
	if len(ways) != 1 {
		f.addAt("proxy.bearer", "want one of jwks_url, jwks_file and introspection_url: how else are the WAF's tokens checked?")
	}
	f.readBearer()
}

// readBearer reads the files.
func (f *File) readBearer() {
	b, err := &f.bearer, error(nil)
	if f.bearerKeys != "" {
		if b.Keys, err = node.ReadKeys(f.path(f.bearerKeys)); err != nil {
			f.addAt("proxy.bearer.jwks_file", "%v", err)
		}
	}
	switch given := b.ClientID != "" || f.bearerSecret != ""; {
	case b.IntrospectionURL == "" && given:
		f.addAt("proxy.bearer.introspection_url", "is missing, and there is a client to ask it as")
	case b.IntrospectionURL != "" && (b.ClientID == "" || f.bearerSecret == ""):
		f.addAt("proxy.bearer.client_id", "want client_id and client_secret_file: the WAF tells of tokens only to clients that it knows")
	case given:
		if b.ClientSecret, err = node.ReadPassword(f.path(f.bearerSecret)); err != nil { // theirs, so as long as they like
			f.addAt("proxy.bearer.client_secret_file", "%v", err)
		}
	}
	if f.bearerCA != "" {
		b.Authorities = f.authorities("proxy.bearer.ca_file", f.bearerCA)
	}
}

// authorities reads the PEM file that a key names.
func (f *File) authorities(key, name string) *x509.CertPool {
	pool := x509.NewCertPool()
	if pem, err := os.ReadFile(f.path(name)); err != nil {
		f.addAt(key, "%v", node.FileError(f.path(name), err))
	} else if !pool.AppendCertsFromPEM(pem) {
		f.addAt(key, "%s: no certificate in it: want PEM, as -----BEGIN CERTIFICATE-----", f.path(name))
	}
	return pool
}
