package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"epcscf/cmd/internal/proxyproto"
	"epcscf/proxy"
	"epcscf/store/bolt"
)

// stopWithin is how long flows and requests have to end after the context did.
const stopWithin = 5 * time.Second

// Node is an eP-CSCF with its relay, ready to serve.
type Node struct {
	cfg     Config
	log     *slog.Logger
	sockets *sockets
	ready   atomic.Bool
	shown   *shownCertificates
	// misgreeted counts connections of listed balancers without a PROXY header.
	misgreeted prometheus.Counter

	turn        *turnSide
	revocations *revocationFile // nil: none are kept
	journal     *journal        // nil: there is no fleet
	ring        *ringSide       // nil: all keys are the file's
	waf         *wafSide        // nil: there is none
	hearing     *hearing        // nil: no WAF elsewhere tells of revocations
	heard       *bolt.Store     // what it told; nil without hearing
	proxy       *proxy.Proxy
	tokens      *tokenCheck // nil: the edge takes none
	https       http.Handler
	admin       http.Handler
}

// Listen opens every socket of cfg and wires the parts. Nothing is served before Run. An
// error names the flag or key, and leaves nothing open.
func Listen(cfg Config) (*Node, error) {
	s, err := openSockets(cfg)
	if err != nil {
		return nil, err
	}
	return newNode(cfg, s)
}

// newNode wires the parts, from the relay up to the page. It closes s where that fails.
func newNode(cfg Config, s *sockets) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: cfg.Logger, sockets: s}
	var err error
	n.revocations, err = openRevocations(cfg.Relay, cfg.TURN.Deployment)
	if err == nil && cfg.Fleet != nil {
		n.journal, err = openJournal(&cfg.Fleet.Interface, cfg.TURN.Deployment)
	}
	if err == nil && cfg.Hearing != nil {
		n.heard, err = openHeard(cfg.Hearing, cfg.TURN.Deployment)
	}
	if err == nil {
		err = n.wire(s.addresses())
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Check wires the parts as Listen does, but opens no socket: what it refuses, Listen does.
func Check(cfg Config) error {
	cfg.Logger = slog.New(slog.DiscardHandler)
	at := Addresses{Web: unopened(cfg.Listen), Admin: cfg.Admin.AddrPort, Core: cfg.Core.AddrPort}
	if r := cfg.Relay; r != nil {
		at.TURNUDP, at.TURNTCP, at.TURNTLS = unopened(r.UDP), unopened(r.TCP), unopened(r.TLS)
	}
	if cfg.WAF != nil {
		at.WAF = unopened([]Address{cfg.WAF.Listen})
	}
	n := &Node{cfg: cfg, log: cfg.Logger, sockets: &sockets{}}
	return errors.Join(n.wire(at), n.Close())
}

func (n *Node) wire(at Addresses) (err error) {
	cfg := n.cfg
	if err := CheckAdmin(cfg.Admin.AddrPort); err != nil {
		return fmt.Errorf("%s %s: %w", cfg.Admin.From, cfg.Admin, err)
	}
	reg := newRegistry()
	n.admin = adminHandler(reg, &n.ready)
	n.shown = showCertificates(cfg, reg)
	n.misgreeted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "epcscf_proxy_protocol_refused_total", Help: "Connections of listed balancers that did not begin with a PROXY header, version 2.",
	})
	reg.MustRegister(n.misgreeted)

	if n.turn, err = newTURNSide(cfg, at, n.journal, reg); err != nil {
		return err
	}
	if n.waf, err = newWAFSide(n, at, reg); err != nil {
		return err
	}
	if err := n.wireRing(reg); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	edge := cfg.Proxy
	edge.CoreAddr, edge.Provisioner = at.Core, n.turn
	edge.Logger, edge.Metrics = cfg.Logger, reg
	if n.waf == nil && cfg.Bearer != nil {
		if n.tokens, err = newTokenCheck(*cfg.Bearer); err != nil {
			return err
		}
	}
	n.tokens.edge(&edge, n.waf)
	ends, err := n.tellsOfEnds(&edge)
	if err != nil {
		return err
	}
	if c := cfg.CoreTLS; c != nil {
		edge.Core.TLS, edge.Core.TLSPort = coreTLS(c), c.Listen.Port()
	}
	if n.proxy, err = proxy.New(edge); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	n.tokens.use(n.proxy)
	if n.hearing, err = newHearing(n, ends, reg); err != nil {
		return err
	}
	n.https = n.proxy
	if cfg.Page != nil {
		n.https = pageOrWebSocket(cfg.Page, n.proxy)
	}
	return nil
}

const webSocketPath = "/ws"

// pageOrWebSocket lets the page and SIP over WebSocket share a port: what asks for an
// upgrade, and what comes to the WebSocket's own path, is the edge's.
func pageOrWebSocket(page, edge http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == webSocketPath || (r.URL.Path == "/" && r.Header.Get("Upgrade") != "") {
			edge.ServeHTTP(w, r)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// Addresses says where the node listens.
func (n *Node) Addresses() Addresses { return n.sockets.addresses() }

// TURNURIs are what WICs are given, the one that hides the user name first.
func (n *Node) TURNURIs() []string { return n.turn.uris }

// Close frees the sockets of a node that does not run.
func (n *Node) Close() error {
	n.sockets.close()
	var err error
	if n.proxy != nil {
		err = n.proxy.Close()
	}
	n.tokens.close()
	return errors.Join(err, n.waf.close(), n.closeTURN(), n.closeState())
}

// closeState closes what outlives the process.
func (n *Node) closeState() error {
	errs := []error{n.ring.close(), n.journal.close()}
	if n.heard != nil {
		errs = append(errs, n.heard.Close())
	}
	return errors.Join(errs...)
}

// closeTURN closes the relay, and then what it keeps its revocations in.
func (n *Node) closeTURN() error {
	return errors.Join(n.turn.close(), n.revocations.Close())
}

// ReloadCertificates reads the files again, whether they seem changed or not. A pair that
// cannot be shown leaves the one before, and a line in the log.
func (n *Node) ReloadCertificates() { n.shown.reload(true, n.log, time.Now()) }

// SetTURN takes the approach of next and its keys, of approach 1 and of tokens, from now on.
// Credentials that were made before stay good, those of approach 1 and tokens while their
// key is among the keys.
func (n *Node) SetTURN(next TURN) error {
	if n.ring != nil {
		return n.ring.setFile(next)
	}
	return n.takeTURN(next)
}

// wireRing has keys and relays come from the store too, where the configuration says so.
func (n *Node) wireRing(reg prometheus.Registerer) (err error) {
	side := &ringSide{turn: n.turn, take: n.takeTURN, log: n.log, file: n.cfg.TURN}
	if n.waf != nil {
		side.shared = n.waf.records
	}
	n.ring, err = newRingSide(n.cfg.Ring, side, len(n.sockets.https) > 0, reg)
	return err
}

func (n *Node) takeTURN(next TURN) error {
	if err := n.turn.setAll(next); err != nil {
		return err
	}
	return n.waf.use(next.Tokens)
}

// SetWeights takes the shares of the fleet's relays from now on.
func (n *Node) SetWeights(relays []FleetRelay) {
	for _, r := range relays {
		if n.turn.fleet != nil {
			n.turn.fleet.SetWeight(r.Name, r.Weight)
		}
	}
}

// handshakeTime is from accepting a WIC's connection to its upgrade. After a restart thousands
// come at once, and share the cores for their TLS handshakes: a shorter time would refuse the
// last of them, who would come again and share them once more.
const handshakeTime = 30 * time.Second

// Run serves until ctx ends, then turns readiness red, closes flows with 1001, allocations
// and listeners, and returns nil. A part that fails ends the others, and its error is
// returned.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s := n.sockets
	web := &http.Server{
		Handler: n.https, TLSConfig: httpTLS(n.cfg.Certificate), ReadHeaderTimeout: handshakeTime, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	admin := &http.Server{Handler: n.admin, ReadHeaderTimeout: 10 * time.Second}

	n.turn.serve(g, s, n.cfg.Relay)
	g.Go(func() error { return n.proxy.ServeCore(ctx, s.coreUDP, s.coreTCP) })
	for _, ln := range s.coreTLS {
		g.Go(func() error { return n.proxy.ServeCoreTLS(ctx, ln) })
	}
	// WICs come in when there is a way to the core, not a moment earlier.
	select {
	case <-n.proxy.Serving():
	case <-ctx.Done():
	}
	for _, ln := range s.https {
		g.Go(func() error { return unlessClosed(web.ServeTLS(n.behindBalancers(ln), "", "")) })
	}
	g.Go(func() error { return unlessClosed(admin.Serve(s.admin)) })
	g.Go(func() error { n.shown.watch(ctx, n.log); return nil })
	g.Go(func() error { n.revocations.prune(ctx, n.log); return nil })
	if n.turn.fleet != nil {
		g.Go(func() error { return n.turn.fleet.Run(ctx) })
	}
	g.Go(func() error { n.ring.run(ctx); return nil })
	n.serveWAF(ctx, g)
	n.hearing.serve(ctx, g, s.hearing)
	n.ready.Store(true)
	at := n.Addresses()
	n.log.Info("serving", "https", at.Web, "turn", at.TURNUDP, "turns", at.TURNTLS, "core_side", at.Core, "admin", at.Admin, "approach", n.cfg.TURN.Approach)

	g.Go(func() error {
		<-ctx.Done()
		n.ready.Store(false)
		n.log.Info("stopping")
		stop, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		// Flows first: a WIC that hears 1001 knows that it should come back.
		return errors.Join(n.proxy.Shutdown(stop), web.Close(), n.closeTURN(), admin.Close())
	})
	err := g.Wait()
	s.close()
	n.tokens.close()
	return errors.Join(err, n.waf.close(), n.closeState())
}

// newRegistry has what every process says of itself.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// behindBalancers takes the word of the listed balancers for whom they speak for.
func (n *Node) behindBalancers(ln net.Listener) net.Listener {
	if len(n.cfg.Balancers) == 0 {
		return ln
	}
	return &proxyproto.Listener{Listener: ln, Trusted: n.cfg.Balancers, Refused: func(peer net.Addr, err error) {
		n.misgreeted.Inc()
		n.log.Debug("balancer did not say whom it speaks for", "remote", peer, "err", err)
	}}
}

// httpTLS keeps HTTP/1.1: a WebSocket takes over the connection, which HTTP/2 does not allow.
func httpTLS(c *Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: aeadSuites(), GetCertificate: c.get, NextProtos: []string{"http/1.1"}}
}

// aeadSuites are the suites of TLS 1.2 with forward secrecy and an AEAD (RFC 9325 §4.2);
// Go's default has the CBC ones too.
func aeadSuites() (ids []uint16) {
	for _, s := range tls.CipherSuites() {
		aead := strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "_CHACHA20_")
		if aead && slices.Contains(s.SupportedVersions, tls.VersionTLS12) && strings.HasPrefix(s.Name, "TLS_ECDHE_") {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// coreTLS serves both directions. The pool must not be nil: nil would be the system's, and
// anybody with a certificate of the web would be the core.
func coreTLS(c *CoreTLS) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: c.Authorities, ClientCAs: c.Authorities, GetCertificate: c.Certificate.get,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate.get(nil) },
	}
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
