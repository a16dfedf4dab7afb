package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"epcscf/store"
	"epcscf/store/memory"
	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf"
)

// demoClient is the OAuth client that the demo's page is.
const demoClient = "demo"

// demoWAF is the demo's authorization server. Its keys and grants are gone with the process;
// its users are the miniature core's, with the same passwords.
type demoWAF struct {
	ln     net.Listener
	server *http.Server
	issuer string
	access string // initial access token, for one client more (RFC 7591)
}

// demoTokens are the keys of a process.
func demoTokens(d Demo) (t Tokens, err error) {
	var k [32]byte
	if _, err := rand.Read(k[:]); err != nil {
		return t, err
	}
	id := turncred.KeyID(strings.ToLower(rand.Text()[:12]))
	return Tokens{
		ServerName: "turn." + d.Domain, MaxLifetime: d.TTL, Keys: []token.Key{{ID: id, Secret: turncred.NewSecret(k[:])}},
	}, nil
}

// tokenIssuer makes the tokens that the node's relay takes.
func (n *Node) tokenIssuer() (*token.Issuer, error) {
	t := n.cfg.TURN.Tokens
	ring, err := token.NewKeyRing(t.Keys...)
	if err != nil {
		return nil, err
	}
	return token.NewIssuer(n.turn.minter, ring, t.ServerName)
}

// newDemoWAF wires the WAF to the relay of n; its listener is open.
func newDemoWAF(ctx context.Context, d Demo, n *DemoNode, ln net.Listener, sec secrets) (*demoWAF, error) {
	w := &demoWAF{ln: ln, issuer: "https://" + ln.Addr().String()}
	records, err := memory.New(memory.Config{})
	if err != nil {
		return nil, err
	}
	signing, err := waf.NewSigningKey("EdDSA")
	if err != nil {
		return nil, err
	}
	signing.State = store.KeyCurrent
	keys, err := waf.NewSigningKeys(nil, signing)
	if err != nil {
		return nil, err
	}
	tokens, err := n.tokenIssuer()
	if err != nil {
		return nil, err
	}
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	cfg := waf.Config{
		Issuer: w.issuer, Records: records, Keys: keys, Secret: turncred.NewSecret(secret[:]),
		Relays:       []waf.Relay{{Name: n.cfg.TURN.Tokens.ServerName, URIs: n.TURNURIs(), Tokens: tokens}},
		Registration: waf.Registration{Audience: "sip:" + d.Domain},
		Hasher:       waf.NewHasher(), Logger: n.log, AllowImplicit: true,
	}
	handler, err := waf.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := w.fill(ctx, d, n.info, records, cfg.Hasher, sec); err != nil {
		return nil, fmt.Errorf("WAF: %w", err)
	}
	w.server = &http.Server{
		Handler: handler, TLSConfig: httpTLS(n.cfg.Certificate), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	return w, nil
}

// fill makes the users and the page's client.
func (w *demoWAF) fill(ctx context.Context, d Demo, info Info, records store.Store, h *waf.Hasher, sec secrets) (err error) {
	for name, password := range sec.users {
		u, err := waf.NewUser{
			Name: name, Password: password, IMPI: turncred.IMPI(name + "@" + strings.ToLower(d.Domain)), IMPUs: []string{"sip:" + name + "@" + d.Domain},
		}.Record(h)
		if err != nil {
			return err
		}
		if err := records.AddUser(ctx, u); err != nil {
			return err
		}
	}
	var redirects []string
	for _, o := range info.origins() {
		redirects = append(redirects, o+"/")
	}
	c, _, err := waf.NewClient{
		ID: demoClient, Name: "The demo's page", RedirectURIs: redirects, Scopes: []string{waf.ScopeSTUN, waf.ScopeRegistration},
		GrantTypes: []string{"authorization_code", "refresh_token", "implicit"},
	}.Record()
	if err != nil {
		return err
	}
	if err := records.AddClient(ctx, c); err != nil {
		return err
	}
	w.access, err = waf.NewInitialAccess(ctx, records, time.Now().Add(30*24*time.Hour))
	return err
}

// serve runs until ctx ends.
func (w *demoWAF) serve(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return unlessClosed(w.server.ServeTLS(w.ln, "", "")) })
	g.Go(func() error {
		<-ctx.Done()
		return w.server.Close()
	})
}

// listenWAF opens the WAF's socket, where there is to be one.
func (s *sockets) listenWAF(d Demo) (net.Listener, error) {
	if !d.WAFListen.IsValid() {
		return nil, nil
	}
	ln, err := s.listenTCP(Address{AddrPort: d.WAFListen, From: "--waf-listen"})
	if err != nil {
		return nil, err
	}
	return ln[0], nil
}
