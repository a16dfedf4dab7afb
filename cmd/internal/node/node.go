package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"epcscf/proxy"
	"epcscf/proxy/minicore"
	"epcscf/relay"
	"epcscf/wic"
)

// stopWithin is how long flows and requests have to end after the context did.
const stopWithin = 5 * time.Second

// Node is an eP-CSCF with its relay, its page and, in a demo, its core, ready to serve.
type Node struct {
	cfg     Config
	info    Info
	sockets *sockets
	tls     *tls.Config
	ready   atomic.Bool

	relay *relay.Server
	proxy *proxy.Proxy
	core  *minicore.Core // nil where another core serves
	https http.Handler
	admin http.Handler
}

// Listen checks cfg, prepares the data directory, opens every socket and wires the parts.
// Nothing is served before Run. An error names the flag or the file, and leaves nothing open.
func Listen(cfg Config) (_ *Node, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.DataDir, err = filepath.Abs(cfg.DataDir); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	sec, err := loadSecrets(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	pki, err := loadPKI(cfg.DataDir, []netip.Addr{cfg.Listen.Addr(), cfg.TURNSListen.Addr()}, time.Now())
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	s, err := openSockets(cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, sockets: s}
	if err := n.wire(sec, pki); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// wire makes the parts, from the relay up to the page.
func (n *Node) wire(sec secrets, pki *localPKI) error {
	cfg, s := n.cfg, n.sockets
	n.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pki.Leaf}}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.admin = adminHandler(reg, &n.ready)

	turn, err := newTURNSide(cfg, sec, s, reg)
	if err != nil {
		return err
	}
	n.relay = turn.relay
	next, err := n.nextHop(sec)
	if err != nil {
		return err
	}
	n.info = newInfo(cfg, s, pki, sec, turn.uris, next)
	n.proxy, err = proxy.New(proxy.Config{
		Domain: cfg.Domain, CoreAddr: addrPort(s.coreUDP.LocalAddr()), NextHop: next,
		Origins: n.info.origins(), AllowNoOrigin: true, // native clients: cmd/wic sends none
		Provisioner: turn.provisioner, Logger: cfg.Logger, Metrics: reg,
	})
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	page, err := wic.NewHandler(wic.PageConfig{
		Domain: cfg.Domain, WebSocketPath: webSocketPath, Users: demoUsers, TURNApproach: string(cfg.Approach),
		CAPEM: pki.CAPEM, Demo: cfg.Core == nil, TrustHint: n.info.ChromiumCommand(),
	})
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	n.https = pageOrWebSocket(page, n.proxy)
	return nil
}

// nextHop returns where requests go: the given core, or a miniature one that is reached
// by its socket like any other.
func (n *Node) nextHop(sec secrets) (proxy.NextHop, error) {
	if n.cfg.Core != nil {
		return *n.cfg.Core, nil
	}
	var err error
	if n.core, err = minicore.New(minicore.Config{Domain: n.cfg.Domain, Users: sec.users, Logger: n.cfg.Logger}); err != nil {
		return proxy.NextHop{}, fmt.Errorf("miniature core: %w", err)
	}
	return proxy.ParseNextHop("udp:" + addrPort(n.sockets.miniUDP.LocalAddr()).String())
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

// Info says where the node listens and who may sign in.
func (n *Node) Info() Info { return n.info }

// Close frees the sockets of a node that does not run.
func (n *Node) Close() error {
	n.sockets.close()
	if n.relay != nil {
		return n.relay.Close()
	}
	return nil
}

// Run serves until ctx ends, then closes flows with 1001, allocations and listeners, and
// returns nil. A part that fails ends the others, and its error is returned.
func (n *Node) Run(ctx context.Context) error {
	log, s := n.cfg.Logger, n.sockets
	g, ctx := errgroup.WithContext(ctx)
	web := &http.Server{
		Handler: n.https, TLSConfig: httpTLS(n.tls), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	admin := &http.Server{Handler: n.admin, ReadHeaderTimeout: 10 * time.Second}

	g.Go(func() error { return n.relay.ServeUDP(s.turnUDP) })
	g.Go(func() error { return n.relay.ServeTCP(s.turnTCP) })
	g.Go(func() error { return n.relay.ServeTLS(s.turnTLS, n.tls) })
	if n.core != nil {
		g.Go(func() error { return n.core.Serve(ctx, s.miniUDP, s.miniTCP) })
	}
	g.Go(func() error { return n.proxy.ServeCore(ctx, s.coreUDP, s.coreTCP) })
	g.Go(func() error { return unlessClosed(web.ServeTLS(s.https, "", "")) })
	g.Go(func() error { return unlessClosed(admin.Serve(s.admin)) })
	n.ready.Store(true)
	log.Info("serving", "https", addrPort(s.https.Addr()), "turn", addrPort(s.turnUDP.LocalAddr()), "turns", addrPort(s.turnTLS.Addr()),
		"core_side", addrPort(s.coreUDP.LocalAddr()), "admin", addrPort(s.admin.Addr()), "approach", n.cfg.Approach)

	g.Go(func() error {
		<-ctx.Done()
		n.ready.Store(false)
		log.Info("stopping")
		stop, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		// Flows first: a WIC that hears 1001 knows that it should come back.
		return errors.Join(n.proxy.Shutdown(stop), web.Close(), n.relay.Close(), admin.Close())
	})
	err := g.Wait()
	s.close()
	return err
}

// httpTLS keeps HTTP/1.1: a WebSocket takes over the connection, which HTTP/2 does not allow.
func httpTLS(base *tls.Config) *tls.Config {
	c := base.Clone()
	c.NextProtos = []string{"http/1.1"}
	return c
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
