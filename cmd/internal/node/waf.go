package node

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"epcscf/store"
	"epcscf/store/postgres"
	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf"
)

// WAF says where the OAuth authorization server listens, and what it does.
type WAF struct {
	Listen      Address
	Certificate *Certificate
	Store       Store // its users, clients, grants and keys
	// Interface is its place at the credential interface, for relays and edges elsewhere; nil:
	// it has none.
	Interface *WAFInterface
	// Settings are the WAF's own but for what the node adds: Records, Keys, Secret, Relays,
	// Revoker, which is the edge beside it, Logger, Metrics; Issuer where it is empty is
	// https:// and the address of Listen.
	Settings waf.Config
}

// storeTimeout bounds what a start waits for a database.
const storeTimeout = 5 * time.Second

// wafSide is the authorization server and what it lives on.
type wafSide struct {
	*waf.Server
	issuer  string
	records store.Store
	keys    *waf.SigningKeys
	tokens  *token.Issuer               // nil: the relay takes none of ours
	turn    atomic.Pointer[[]token.Key] // what tokens are made with
	outside *wafOutside                 // nil: there is no Interface
	log     *slog.Logger
}

// newWAFSide returns nil where there is no WAF. Without a socket the configuration is only
// looked at, and its store not opened.
func newWAFSide(n *Node, at Addresses, reg prometheus.Registerer) (_ *wafSide, err error) {
	if n.cfg.WAF == nil {
		return nil, nil
	}
	w, cfg := &wafSide{log: n.log}, n.cfg.WAF.Settings
	w.turn.Store(&n.cfg.TURN.Tokens.Keys)
	where := n.cfg.WAF.Store
	if len(n.sockets.waf) == 0 {
		where = Store{Kind: StoreMemory}
	}
	// SIP goes on without the database, so an edge starts without it too.
	where.Late = true
	opening, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if w.records, err = OpenStore(opening, where, n.log); err != nil {
		return nil, fmt.Errorf("WAF: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("WAF: %w", err), w.close())
		}
	}()
	if w.keys, err = waf.NewSigningKeys(nil); err != nil {
		return nil, err
	}
	if err := w.loadKeys(opening); err != nil {
		if !postgres.Away(err) {
			return nil, err
		}
		n.log.Error("WAF: no signing keys until the database answers", "err", err)
	}
	secret, err := hkdf.Key(sha256.New, n.cfg.TURN.Deployment.Reveal(), nil, "epcscf waf", 32)
	if err != nil {
		return nil, err
	}
	if cfg.Issuer == "" {
		cfg.Issuer = "https://" + at.WAF[0].String()
	}
	if n.cfg.Bearer != nil {
		if n.tokens, err = newTokenCheck(n.cfg.Bearer.of(cfg, w.keys)); err != nil {
			return nil, err
		}
	}
	if w.outside, err = newWAFOutside(n, reg); err != nil {
		return nil, err
	}
	cfg.Revoker = w.outside.revoker(n.tokens)
	cfg.Records, cfg.Keys, cfg.Secret, cfg.Logger, cfg.Metrics = w.records, w.keys, turncred.NewSecret(secret), n.log, reg
	if t := n.cfg.TURN.Tokens; t.ServerName != "" && (n.cfg.Ring != nil || slices.ContainsFunc(t.Keys, func(k token.Key) bool { return !k.Foreign })) {
		ring, err := token.NewKeyRing(t.Keys...)
		if err != nil {
			return nil, err
		}
		minter, err := w.outside.minter(n.turn)
		if err != nil {
			return nil, err
		}
		if w.tokens, err = token.NewIssuer(minter, ring, t.ServerName); err != nil {
			return nil, err
		}
		cfg.Relays = []waf.Relay{{Name: t.ServerName, URIs: n.turn.uris, Tokens: w.tokens}}
		if n.turn.fleet != nil {
			cfg.Relays[0].Offered = n.turn.fleet.Offered
		}
	}
	if err := w.outside.handOut(n, w); err != nil {
		return nil, err
	}
	w.issuer = cfg.Issuer
	w.Server, err = waf.New(cfg)
	return w, err
}

// loadKeys takes the signing keys of the store, and makes the first one.
func (w *wafSide) loadKeys(ctx context.Context) error {
	keys, err := w.records.Keys(ctx, store.KeyJWT)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		k, err := waf.NewSigningKey("EdDSA")
		if err != nil {
			return err
		}
		// Nobody knows a token of ours yet, so the key need not be published first.
		k.State = store.KeyCurrent
		if err := w.records.AddKey(ctx, k); err != nil {
			return err
		}
		if keys, err = w.records.Keys(ctx, store.KeyJWT); err != nil { // another process may have made one too
			return err
		}
	}
	return w.keys.Set(keys...)
}

// use takes the keys of next for the tokens that are made from now on.
func (w *wafSide) use(next Tokens) error {
	if w == nil || w.tokens == nil {
		return nil
	}
	ring, err := token.NewKeyRing(next.Keys...)
	if err != nil {
		return err
	}
	w.tokens.Use(ring)
	w.turn.Store(&next.Keys)
	return nil
}

// serveWAF runs the WAF, where there is one, until ctx ends.
func (n *Node) serveWAF(ctx context.Context, g *errgroup.Group) {
	w := n.waf
	if w == nil {
		return
	}
	web := &http.Server{
		Handler: w, TLSConfig: httpTLS(n.cfg.WAF.Certificate), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	for _, ln := range n.sockets.waf {
		g.Go(func() error { return unlessClosed(web.ServeTLS(n.behindBalancers(ln), "", "")) })
	}
	w.outside.serve(ctx, g, w.Server, n.sockets.wafKeys)
	g.Go(func() error { w.watch(ctx); return nil })
	g.Go(func() error { prune(ctx, w.records, w.log); return nil })
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		return errors.Join(web.Shutdown(stop), web.Close())
	})
}

// watch takes signing keys as they change in the store, until ctx ends.
func (w *wafSide) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		w.log.Error("signing keys are not followed: trying again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second): // an outage; nothing waits for this
		}
	}
}

func (w *wafSide) follow(ctx context.Context) error {
	at, err := w.records.Cursor(ctx)
	if err != nil {
		return err
	}
	if err := w.loadKeys(ctx); err != nil {
		return err
	}
	return w.records.Watch(ctx, at, func(changes []store.Change, _ store.Cursor) error {
		if !slices.ContainsFunc(changes, func(c store.Change) bool { return c.Kind == store.ChangedKey }) {
			return nil
		}
		return w.loadKeys(ctx)
	})
}

func (w *wafSide) close() error {
	if w == nil {
		return nil
	}
	return errors.Join(w.records.Close(), w.outside.close())
}
