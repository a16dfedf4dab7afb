package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"epcscf/turncred/push"
	"epcscf/turncred/token"
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

// wafOutside is what the WAF does for nodes in other processes.
type wafOutside struct {
	cfg  *WAFInterface
	keys *http.Server // nil: relays have the keys in files
	log  *slog.Logger
}

// newWAFOutside returns nil where the WAF has no place at the credential interface.
func newWAFOutside(n *Node, w *wafSide) (*wafOutside, error) {
	i := n.cfg.WAF.Interface
	if i == nil {
		return nil, nil
	}
	if err := i.CheckCertificate(push.RoleWAF); err != nil {
		return nil, err
	}
	o := &wafOutside{cfg: i, log: n.log}
	if !i.Listen.IsValid() {
		return o, nil
	}
	if w.tokens == nil {
		return nil, errors.New("waf.interface.listen hands out keys of tokens, and there are none: write tokens.server_name and tokens.keys")
	}
	var relays []string
	for _, to := range i.Nodes {
		if to.Role == push.RoleRelay {
			relays = append(relays, to.Name)
		}
	}
	h, err := stunkey.NewHandler(stunkey.HandlerConfig{
		Domain: i.Domain, Relays: map[string][]string{n.cfg.TURN.Tokens.ServerName: relays},
		Keys: func(string) []token.Key { return *w.turn.Load() }, Logger: n.log,
	})
	if err != nil {
		return nil, err
	}
	o.keys = &http.Server{
		Handler: h, TLSConfig: push.ServerTLS(interfaceKeys{&i.Interface}), Protocols: new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	o.keys.Protocols.SetHTTP2(true)
	return o, nil
}

// serve does it until ctx ends.
func (o *wafOutside) serve(ctx context.Context, g *errgroup.Group, keys []net.Listener) {
	if o == nil {
		return
	}
	for _, ln := range keys {
		g.Go(func() error { return unlessClosed(o.keys.ServeTLS(ln, "", "")) })
		g.Go(func() error { <-ctx.Done(); return o.keys.Close() })
	}
}
