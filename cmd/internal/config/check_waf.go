package config

import (
	"net/url"
	"slices"

	"epcscf/cmd/internal/node"
	"epcscf/turncred/push"
	"epcscf/turncred/token"
)

// checkWAF is the authorization server, where there is to be one.
func (f *File) checkWAF() {
	w := &f.waf
	if !f.wafOn {
		return
	}
	f.node.WAF = w
	if !w.Listen.IsValid() {
		f.addAt("waf.listen", "is missing: write where browsers connect, such as 203.0.113.5:8443")
	}
	w.Store = f.store
	if w.Store.Kind == node.StoreMemory {
		f.addAt("store.kind", "is memory, and waf.enabled is on: its users and clients would be gone with the process. Use bolt, or postgres for more than one node")
	}
	if w.Settings.Registration.Audience == "" {
		w.Settings.Registration.Audience = "sip:" + f.node.Proxy.Domain
	}
	if w.Settings.AllowImplicit {
		f.note("waf.allow_implicit is on: tokens travel in URLs, where scripts and histories see them (RFC 9700 2.1.2)")
	}
	t := f.node.TURN.Tokens
	if t.ServerName == "" || f.node.Ring == nil && !slices.ContainsFunc(t.Keys, func(k token.Key) bool { return !k.Foreign }) {
		f.note("waf: tokens.keys has no key of ours, so it makes registration tokens only, and none for the relay")
	}
	f.checkWAFCertificate()
	f.checkProvider()
	f.checkWAFInterface()
}

// checkWAFInterface is the WAF's place at the credential interface, where it has one.
func (f *File) checkWAFInterface() {
	i := &f.wafPlace
	if i.Name == "" {
		if i.Listen.IsValid() || len(i.Nodes) > 0 {
			f.addAt("waf.interface.name", "is missing, and it turns waf.interface on: epcscf pki makes a certificate and says what to write here")
		}
		return
	}
	if i.Domain == "" {
		i.Domain = f.node.Proxy.Domain
	}
	f.checkPlace("waf.interface", &i.Interface, f.wafPlaceFiles, push.RoleWAF)
	if len(i.Nodes) == 0 {
		f.addAt(wafNodesKey, "is empty: write who takes this WAF's tokens, such as - {name: relay1, address: relay1.ims.example:8443}")
	}
	f.waf.Interface = i
}

// checkWAFCertificate wants an issuer, and a certificate that is for it.
func (f *File) checkWAFCertificate() {
	w, where := &f.waf, "waf.tls"
	if f.wafTLS == (pairFiles{}) {
		w.Certificate, where = f.node.Certificate, "proxy.tls"
	} else {
		w.Certificate = f.certificate(where, f.wafTLS)
	}
	u, err := url.Parse(w.Settings.Issuer)
	switch {
	case w.Settings.Issuer == "":
		f.addAt("waf.issuer", "is missing: write how browsers reach waf.listen, such as https://login.ims.example")
	case err != nil || u.Scheme != "https" || u.Host == "" || "https://"+u.Host != w.Settings.Issuer:
		f.addAt("waf.issuer", "%q: want https://HOST or https://HOST:PORT, and no path", w.Settings.Issuer)
	case w.Certificate != nil && w.Certificate.Leaf().VerifyHostname(u.Hostname()) != nil:
		f.addAt(where+".cert_file", "the certificate is not for %s, which browsers are sent to as waf.issuer: have one made for that name", u.Hostname())
	}
}

// checkProvider is the OpenID Connect provider, where there is one.
func (f *File) checkProvider() {
	p := f.wafProvider
	if p.Issuer == "" {
		return
	}
	if p.Name == "" {
		p.Name = p.Issuer
	}
	if p.ClientID == "" {
		f.addAt("waf.provider.client_id", "is missing: the provider gave one when epcscf was registered there")
	}
	if f.wafProviderSecret == "" {
		f.addAt("waf.provider.secret_file", "is missing: write the client secret that the provider gave into a file of mode 0600")
	} else {
		var err error
		if p.Secret, err = node.ReadPassword(f.path(f.wafProviderSecret)); err != nil { // theirs, so as long as they like
			f.addAt("waf.provider.secret_file", "%v", err)
		}
	}
	if u, err := url.Parse(p.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
		f.addAt("waf.provider.issuer", "%q: want an https URL", p.Issuer)
	}
	f.waf.Settings.Provider = &p
}
