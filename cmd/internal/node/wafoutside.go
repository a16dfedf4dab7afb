package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/token"
	"epcscf/waf"
	"epcscf/waf/bearer"
	"epcscf/waf/stunkey"
)

// WAFInterface is a WAF's place at the credential interface.
type WAFInterface struct {
	Interface
	Listen Address   // where relays fetch the keys of tokens; not valid: nowhere
	Nodes  []WAFNode // who takes its tokens
}

// WAFNode is a relay or an edge in a process of its own.
type WAFNode struct {
	Name                string
	Role                push.Role
	Address, ServerName string // of its credential interface, as of a FleetRelay
}

// wafOutside is what the WAF does for nodes in other processes. A nil one does nothing.
type wafOutside struct {
	cfg     *WAFInterface
	fleet   *push.Fleet  // tells them of revocations
	left    chan string  // grants that an edge has no registration of any more
	journal *journal     // nil in a check
	keys    *http.Server // nil: relays have the keys in files
	log     *slog.Logger
}

// newWAFOutside returns nil where the WAF has no place at the credential interface.
func newWAFOutside(n *Node, reg prometheus.Registerer) (o *wafOutside, err error) {
	i := n.cfg.WAF.Interface
	if i == nil {
		return nil, nil
	}
	if err := i.CheckCertificate(push.RoleWAF); err != nil {
		return nil, err
	}
	o = &wafOutside{cfg: i, log: n.log, left: make(chan string, 1024)}
	set := push.FleetConfig{
		Role: push.RoleWAF, Domain: i.Domain, Name: i.Name, Epoch: 1, Keys: interfaceKeys{&i.Interface},
		Journal: unopenedJournal{}, Event: o.hear, Logger: n.log, Metrics: reg,
	}
	if len(n.sockets.waf) > 0 {
		if o.journal, err = openJournal(&i.Interface, n.cfg.TURN.Deployment); err != nil {
			return nil, err
		}
		set.Epoch, set.Journal = o.journal.epoch, o.journal.store.Journal()
	}
	for _, to := range i.Nodes {
		set.Relays = append(set.Relays, push.RelayConfig{Name: to.Name, Role: to.Role, Address: to.Address, ServerName: to.ServerName})
	}
	if o.fleet, err = push.NewFleet(context.Background(), set); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// hear takes an edge's word that nothing stands on a grant any more. One that is lost costs
// some minutes: the loan ends with the token.
func (o *wafOutside) hear(node string, e push.Event) {
	edge := slices.ContainsFunc(o.cfg.Nodes, func(n WAFNode) bool { return n.Name == node && n.Role == push.RoleEdge })
	grant := bearer.GrantOf(turncred.Tid(e.Tid))
	if !edge || e.Type != push.EventLeft || grant == "" {
		return
	}
	select {
	case o.left <- grant:
	default:
		o.log.Warn("too many registrations end at once: what was lent comes back with its token's end", "relay", node)
	}
}

// takeBack takes back what was lent to grants that edges have done with, until ctx ends.
func (o *wafOutside) takeBack(ctx context.Context, s *waf.Server) {
	for {
		select {
		case <-ctx.Done():
			return
		case grant := <-o.left:
			_ = s.ReturnIdentity(ctx, grant) // which logs what fails
		}
	}
}

// minter is for TURN tokens: what it takes back, the nodes outside hear of too.
func (o *wafOutside) minter(t *turnSide) (*turncred.Minter, error) {
	if o == nil {
		return t.minter, nil
	}
	making := t.making
	making.Revoker = bothRevokers{making.Revoker, o.fleet}
	return turncred.NewMinter(making)
}

// bothRevokers tells two.
type bothRevokers [2]turncred.Revoker

// Revoke implements turncred.Revoker.
func (b bothRevokers) Revoke(ctx context.Context, r turncred.Revocation) error {
	return errors.Join(b[0].Revoke(ctx, r), b[1].Revoke(ctx, r))
}

// revoker is for grants: it tells the edge of this process, where it takes tokens, and the
// nodes outside.
func (o *wafOutside) revoker(here *tokenCheck) waf.Revoker {
	switch {
	case o != nil:
		return grantRevoker{here, o.fleet}
	case here != nil:
		return here
	}
	return nil
}

// grantRevoker is the waf.Revoker of a WAF with nodes in other processes.
type grantRevoker struct {
	here    *tokenCheck // nil: the edge of this process takes no tokens
	outside *push.Fleet
}

// RevokeGrant implements waf.Revoker.
func (g grantRevoker) RevokeGrant(ctx context.Context, r waf.Revocation) error {
	var errs []error
	if g.here != nil {
		errs = append(errs, g.here.RevokeGrant(ctx, r))
	}
	if tid := bearer.GrantTid(r.Grant); tid != "" {
		errs = append(errs, g.outside.Revoke(ctx, turncred.Revocation{Tid: tid, Until: r.Until}))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if n := g.outside.Owed(); n > 0 {
		return fmt.Errorf("%w: %d revocations wait for nodes that do not answer", waf.ErrLater, n)
	}
	return nil
}

// handOut gives relays the keys of tokens, where the configuration says so.
func (o *wafOutside) handOut(n *Node, w *wafSide) error {
	if o == nil || !o.cfg.Listen.IsValid() {
		return nil
	}
	if w.tokens == nil {
		return errors.New("waf.interface.listen hands out keys of tokens, and there are none: write tokens.server_name and tokens.keys")
	}
	var relays []string
	for _, to := range o.cfg.Nodes {
		if to.Role == push.RoleRelay {
			relays = append(relays, to.Name)
		}
	}
	h, err := stunkey.NewHandler(stunkey.HandlerConfig{
		Domain: o.cfg.Domain, Relays: map[string][]string{n.cfg.TURN.Tokens.ServerName: relays},
		Keys: func(string) []token.Key { return *w.turn.Load() }, Logger: n.log,
	})
	if err != nil {
		return err
	}
	o.keys = &http.Server{
		Handler: h, TLSConfig: push.ServerTLS(interfaceKeys{&o.cfg.Interface}), Protocols: new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	o.keys.Protocols.SetHTTP2(true)
	return nil
}

// serve does all this until ctx ends.
func (o *wafOutside) serve(ctx context.Context, g *errgroup.Group, s *waf.Server, keys []net.Listener) {
	if o == nil {
		return
	}
	g.Go(func() error { return o.fleet.Run(ctx) })
	g.Go(func() error { o.takeBack(ctx, s); return nil })
	for _, ln := range keys {
		g.Go(func() error { return unlessClosed(o.keys.ServeTLS(ln, "", "")) })
		g.Go(func() error { <-ctx.Done(); return o.keys.Close() })
	}
}

func (o *wafOutside) close() error {
	if o == nil {
		return nil
	}
	return o.journal.close()
}
