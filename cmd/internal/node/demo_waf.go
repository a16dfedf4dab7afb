package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf"
	"epcscf/wic"
)

// demoClient is the OAuth client that the demo's page is.
const demoClient = "demo"

// addWAF adds the authorization server, where there is to be one. Its keys and grants are
// gone with the process; its users are the miniature core's, with the same passwords.
func (d *Demo) addWAF(cfg *Config) error {
	if !d.WAFListen.IsValid() {
		return nil
	}
	var k [32]byte
	if _, err := rand.Read(k[:]); err != nil {
		return err
	}
	id := turncred.KeyID(strings.ToLower(rand.Text()[:12]))
	cfg.TURN.Tokens = Tokens{
		ServerName: "turn." + d.Domain, MaxLifetime: d.TTL, Keys: []token.Key{{ID: id, Secret: turncred.NewSecret(k[:])}},
	}
	cfg.Bearer = &Bearer{}
	cfg.WAF = &WAF{
		Listen: Address{AddrPort: d.WAFListen, From: "--waf-listen"}, Certificate: cfg.Certificate, Store: Store{Kind: StoreMemory},
		Settings: waf.Config{AllowImplicit: true, Registration: waf.Registration{Audience: "sip:" + d.Domain, Life: d.TokenLife}},
	}
	return nil
}

// oauth is what the page must know of the WAF; nil where there is none.
func (d *Demo) oauth(cfg *Config, at Addresses) *wic.OAuth {
	if cfg.WAF == nil {
		return nil
	}
	return &wic.OAuth{
		Issuer: "https://" + at.WAF[0].String(), ClientID: demoClient, Scope: waf.ScopeSTUN + " " + waf.ScopeRegistration,
		TURNServer: cfg.TURN.Tokens.ServerName, Implicit: cfg.WAF.Settings.AllowImplicit, TokenFields: tokenFieldsPath,
	}
}

// fillWAF makes the users, the page's client, and a token for one client more.
func (n *DemoNode) fillWAF(ctx context.Context, d Demo, sec secrets) (err error) {
	records, hasher := n.waf.records, waf.NewHasher()
	for name, password := range sec.users {
		u, err := waf.NewUser{
			Name: name, Password: password, IMPI: turncred.IMPI(name + "@" + strings.ToLower(d.Domain)), IMPUs: []string{"sip:" + name + "@" + d.Domain},
		}.Record(hasher)
		if err == nil {
			err = records.AddUser(ctx, u)
		}
		if err != nil {
			return fmt.Errorf("WAF: %w", err)
		}
	}
	var redirects []string
	for _, o := range n.info.origins() {
		redirects = append(redirects, o+"/")
	}
	c, _, err := waf.NewClient{
		ID: demoClient, Name: "The demo's page", RedirectURIs: redirects, Scopes: []string{waf.ScopeSTUN, waf.ScopeRegistration},
		GrantTypes: []string{"authorization_code", "refresh_token", "implicit"},
	}.Record()
	if err == nil {
		err = records.AddClient(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("WAF: %w", err)
	}
	n.info.WAF, n.info.WAFClient = n.waf.issuer, demoClient
	n.info.WAFAccess, err = waf.NewInitialAccess(ctx, records, time.Now().Add(30*24*time.Hour))
	return err
}

// trusted are the addresses whose word the miniature core takes that a user has been
// authenticated: the edge's, where it takes the WAF's tokens. Whoever else can send from
// there is trusted with it, which is why this is for a demo.
func (d *Demo) trusted() []netip.Addr {
	if !d.WAFListen.IsValid() {
		return nil
	}
	return []netip.Addr{d.CoreListen.Addr().Unmap()}
}
