package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"epcscf/proxy"
	"epcscf/store"
	"epcscf/store/bolt"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/waf"
	"epcscf/waf/bearer"
)

// Hearing is where WAFs in other processes tell an edge of revocations: the credential
// interface, of which an edge serves nothing else.
type Hearing struct {
	Interface
	Listen Address
}

// hearing is the edge's side. A nil one does nothing.
type hearing struct {
	events *push.EventLog // what the WAF hears from us
	server *push.Server
	kept   *bolt.Store
	log    *slog.Logger
}

// openHeard opens the file of what the edge is told: a revoked token must not be good again
// after a restart.
func openHeard(h *Hearing, deployment turncred.Secret) (*bolt.Store, error) {
	if err := h.makeStateDir(); err != nil {
		return nil, err
	}
	keks, err := stateKEKs(deployment, "heard")
	if err == nil {
		var s *bolt.Store
		if s, err = bolt.Open(context.Background(), bolt.Config{File: filepath.Join(h.StateDir, "heard.db"), KEKs: keks}); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", h.From, err)
}

// tellsOfEnds has a WAF elsewhere hear that nothing stands on a grant any more, beside that of
// this process. It returns nil where none listens.
func (n *Node) tellsOfEnds(edge *proxy.Config) (*push.EventLog, error) {
	if n.cfg.Hearing == nil || edge.Bearer == nil {
		return nil, nil
	}
	log, err := push.NewEventLog(nil)
	if err != nil {
		return nil, err
	}
	here := edge.Bearer.Ended
	edge.Bearer.Ended = func(ctx context.Context, grant string) {
		if tid := bearer.GrantTid(grant); tid != "" {
			log.Add(push.Event{Type: push.EventLeft, Tid: string(tid)})
		}
		if here != nil {
			here(ctx, grant)
		}
	}
	return log, nil
}

// newHearing returns nil where no WAF tells the edge anything.
func newHearing(n *Node, events *push.EventLog, reg prometheus.Registerer) (*hearing, error) {
	h := n.cfg.Hearing
	if h == nil {
		return nil, nil
	}
	if err := h.CheckCertificate(push.RoleEdge); err != nil {
		return nil, err
	}
	to := heardRevocations{tokens: n.tokens, relay: n.turn.making.Revoker}
	if n.turn.relay == nil {
		to.relay = nil // the WAF tells relays elsewhere by itself
	}
	epochs := ""
	if n.heard != nil {
		epochs = filepath.Join(h.StateDir, "epochs.json")
		all, err := n.heard.Revocations(context.Background())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.From, err)
		}
		for _, r := range all {
			if err := to.Revoke(context.Background(), r); err != nil {
				return nil, fmt.Errorf("%s: %w", h.From, err)
			}
		}
		to.kept = n.heard
	}
	known, err := push.OpenEpochs(epochs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.From, err)
	}
	s, err := push.NewServer(push.ServerConfig{
		Domain: h.Domain, Name: h.Name, Realm: n.cfg.TURN.Realm, Keys: interfaceKeys{&h.Interface}, Writers: []push.Role{push.RoleWAF},
		Table: push.NewTable(n.cfg.TURN.Realm, nil), Revoker: to, Epochs: known, Events: events, Logger: n.log, Metrics: reg,
	})
	return &hearing{events, s, n.heard, n.log}, err
}

// serve does it until ctx ends.
func (h *hearing) serve(ctx context.Context, g *errgroup.Group, at []net.Listener) {
	if h == nil {
		return
	}
	for _, ln := range at {
		g.Go(func() error { return h.server.Serve(ln) })
	}
	g.Go(func() error { prune(ctx, h.kept, h.log); return nil })
	g.Go(func() error { <-ctx.Done(); return h.server.Close() })
}

// heardRevocations takes what a WAF says to the node that it is for: of grants an edge that
// takes tokens, of anything else a relay.
type heardRevocations struct {
	tokens *tokenCheck       // nil: none are taken here
	relay  turncred.Revoker  // nil: there is none here
	kept   store.Revocations // of grants; nil: they are not kept
}

// Revoke implements turncred.Revoker.
func (h heardRevocations) Revoke(ctx context.Context, r turncred.Revocation) error {
	grant := bearer.GrantOf(r.Tid)
	switch {
	case grant == "" && h.relay != nil:
		return h.relay.Revoke(ctx, r)
	case grant == "" || h.tokens == nil:
		return nil
	}
	// At once, whatever the disk does.
	err := h.tokens.RevokeGrant(ctx, waf.Revocation{Grant: grant, Until: r.Until})
	if h.kept != nil {
		err = errors.Join(err, h.kept.AddRevocation(ctx, r))
	}
	return err
}
