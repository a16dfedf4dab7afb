package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"epcscf/relay"
	"epcscf/store/wal"
	"epcscf/turncred/push"
	"epcscf/waf/stunkey"
)

// RelayConfig says what a relay in a process of its own runs, and where.
type RelayConfig struct {
	Listen    Address // of the credential interface
	Interface Interface
	Admin     Address
	TURN      TURN // but for URIs, Order and Sink
	// TokenKeys is the WAF that keys of tokens are fetched from, https://HOST:PORT; "": none are.
	TokenKeys string
	Relay     *Relay
	// WaitForEdge keeps clients out after a start until an edge has spoken.
	WaitForEdge bool
	Draining    bool  // edges are asked for no new users
	Ring        *Ring // nil: all keys are those of TURN

	// Logger may be nil, for no log.
	Logger *slog.Logger
}

// RelayNode is a relay in a process of its own, ready to serve.
type RelayNode struct {
	cfg     RelayConfig
	log     *slog.Logger
	sockets *sockets
	listen  net.Listener // of the credential interface
	shown   *shownCertificates
	admin   http.Handler

	turn        *turnSide
	ring        *ringSide // nil: all keys are the file's
	server      *push.Server
	events      *push.EventLog
	credentials *wal.Log
	revocations *revocationFile
	tokenKeys   *stunkey.Client // nil: none are fetched

	ready    atomic.Bool
	draining atomic.Bool
	contact  chan struct{} // closed when an edge has spoken
	spoken   sync.Once
}

// ListenRelay opens every socket of cfg and what the relay has kept, and wires the parts.
// Nothing is served before Run. An error names the key, and leaves nothing open.
func ListenRelay(cfg RelayConfig) (*RelayNode, error) {
	n := newRelayNode(cfg)
	err := n.open()
	if err == nil {
		err = n.wire(n.sockets.addresses())
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// CheckRelay wires the parts as ListenRelay does, but opens no socket and no file: what it
// refuses, ListenRelay does.
func CheckRelay(cfg RelayConfig) error {
	cfg.Logger = nil
	n := newRelayNode(cfg)
	r := cfg.Relay
	at := Addresses{TURNUDP: unopened(r.UDP), TURNTCP: unopened(r.TCP), TURNTLS: unopened(r.TLS), Admin: cfg.Admin.AddrPort}
	return errors.Join(n.wire(at), n.Close())
}

func newRelayNode(cfg RelayConfig) *RelayNode {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	own := *cfg.Relay // its settings are completed here
	cfg.Relay = &own
	n := &RelayNode{cfg: cfg, log: cfg.Logger, sockets: &sockets{}, contact: make(chan struct{})}
	n.draining.Store(cfg.Draining)
	return n
}

func (n *RelayNode) open() (err error) {
	if n.sockets, err = openSockets(Config{Relay: n.cfg.Relay, Admin: n.cfg.Admin}); err != nil {
		return err
	}
	lns, err := n.sockets.listenTCP(n.cfg.Listen)
	if err != nil {
		return err
	}
	n.listen = lns[0]
	if err := n.cfg.Interface.makeStateDir(); err != nil {
		return err
	}
	if n.revocations, err = openRevocations(n.cfg.Relay, n.cfg.TURN.Deployment); err != nil {
		return err
	}
	keks, err := stateKEKs(n.cfg.TURN.Deployment, "credentials")
	if err != nil {
		return err
	}
	n.credentials, err = wal.Open(wal.Config{Dir: filepath.Join(n.cfg.Interface.StateDir, "credentials"), KEKs: keks, Logger: n.log})
	if err != nil {
		return fmt.Errorf("%s: %w", n.cfg.Interface.From, err)
	}
	return nil
}

func (n *RelayNode) wire(at Addresses) (err error) {
	cfg := n.cfg
	if err := CheckAdmin(cfg.Admin.AddrPort); err != nil {
		return fmt.Errorf("%s %s: %w", cfg.Admin.From, cfg.Admin, err)
	}
	if err := cfg.Interface.CheckCertificate(push.RoleRelay); err != nil {
		return err
	}
	reg := newRegistry()
	n.admin = adminHandler(reg, &n.ready)
	n.shown = &shownCertificates{}
	n.shown.add("interface", cfg.Interface.Certificate, reg)
	n.shown.trust("interface", cfg.Interface.Authorities)
	if c := cfg.Relay.Certificate; c != nil {
		n.shown.add("relay", c, reg)
	}
	if n.events, err = push.NewEventLog(nil); err != nil {
		return err
	}
	if err := n.wireTURN(at, reg); err != nil {
		return err
	}
	return n.wireInterface(reg)
}

// wireTURN makes the relay, with what it had at the last life's end.
func (n *RelayNode) wireTURN(at Addresses, reg prometheus.Registerer) (err error) {
	set := &n.cfg.Relay.Settings
	set.RemoteEdges, set.Events = true, n.event
	// The interface is no peer either.
	set.DenyPeers = append([]netip.AddrPort{n.cfg.Listen.AddrPort}, set.DenyPeers...)
	if n.turn, err = newRelaySide(n.cfg, n.log, at, reg); err != nil {
		return err
	}
	if n.credentials == nil { // a check
		return n.wireRing(reg)
	}
	n.turn.table, err = push.OpenTable(context.Background(), n.cfg.TURN.Realm, n.credentials, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", n.cfg.Interface.From, err)
	}
	n.log.Info("credentials loaded", "count", n.turn.table.Len())
	if err := n.turn.setAuth(n.cfg.TURN.Keys); err != nil {
		return err
	}
	if n.tokenKeys, err = newTokenKeys(n.cfg, n.turn.tokens, n.log); err != nil {
		return err
	}
	return n.wireRing(reg)
}

// wireRing has keys come from the store too, where the configuration says so.
func (n *RelayNode) wireRing(reg prometheus.Registerer) (err error) {
	n.ring, err = newRingSide(n.cfg.Ring, &ringSide{
		turn: n.turn, take: n.turn.setAll, log: n.log, file: n.cfg.TURN, relay: n.cfg.Interface.Name,
	}, n.credentials != nil, reg)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// take has the keys of approach 1 and of tokens known from now on.
func (n *RelayNode) take(next TURN) error {
	if n.ring != nil {
		return n.ring.setFile(next)
	}
	return n.turn.setAll(next)
}

func (n *RelayNode) wireInterface(reg prometheus.Registerer) error {
	file := ""
	if n.credentials != nil {
		file = filepath.Join(n.cfg.Interface.StateDir, "epochs.json")
	}
	epochs, err := push.OpenEpochs(file)
	if err != nil {
		return fmt.Errorf("%s: %w", n.cfg.Interface.From, err)
	}
	n.server, err = push.NewServer(push.ServerConfig{
		Domain: n.cfg.Interface.Domain, Name: n.cfg.Interface.Name, Realm: n.cfg.TURN.Realm, Keys: interfaceKeys{&n.cfg.Interface},
		Table: n.turn.table, Revoker: heardRevocations{relay: n.turn.relay}, Epochs: epochs, Events: n.events,
		Status: n.status, Contact: n.heard, Logger: n.log, Metrics: reg,
	})
	return err
}

// status is what edges are told.
func (n *RelayNode) status() push.Status {
	return push.Status{Ready: n.ready.Load(), Draining: n.draining.Load(), Keys: n.turn.keyIDs()}
}

// heard is called for each request of an edge.
func (n *RelayNode) heard() {
	n.turn.relay.EdgeContact(time.Now())
	n.spoken.Do(func() { close(n.contact) })
}

// event tells the edges what became of an allocation.
func (n *RelayNode) event(e relay.Event) {
	types := map[relay.EventKind]push.EventType{relay.EventMade: push.EventAllocated, relay.EventRefreshed: push.EventBytes, relay.EventEnded: push.EventEnded}
	n.events.Add(push.Event{
		Time: e.Time, Type: types[e.Kind], Tid: string(e.Tid), Subject: e.Subject.String(), Relayed: e.Relayed.String(), Reason: string(e.Reason),
		ToPeers: e.BytesToPeer, FromPeers: e.BytesToClient,
	})
}

// Addresses says where the node listens, and where its credential interface does.
func (n *RelayNode) Addresses() (turn Addresses, credentials netip.AddrPort) {
	return n.sockets.addresses(), addrPort(n.listen.Addr())
}

// ReloadCertificates reads the files again, whether they seem changed or not.
func (n *RelayNode) ReloadCertificates() { n.shown.reload(true, n.log, time.Now()) }

// Set takes the keys of approach 1 and of tokens, and whether the relay drains, from now on.
func (n *RelayNode) Set(next TURN, draining bool) error {
	if err := n.take(next); err != nil {
		return err
	}
	if n.draining.Swap(draining) != draining {
		n.log.Info("draining changed", "draining", draining)
	}
	return nil
}

// Close frees the sockets and files of a node that does not run.
func (n *RelayNode) Close() error {
	n.sockets.close()
	var errs []error
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	errs = append(errs, n.turn.close(), n.revocations.Close())
	if n.credentials != nil {
		errs = append(errs, n.credentials.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then turns readiness red, ends the interface and the
// allocations, and returns nil.
func (n *RelayNode) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	admin := &http.Server{Handler: n.admin, ReadHeaderTimeout: 10 * time.Second}
	g.Go(func() error { return unlessClosed(admin.Serve(n.sockets.admin)) })
	g.Go(func() error { return n.server.Serve(n.listen) })
	g.Go(func() error { n.shown.watch(ctx, n.log); return nil })
	g.Go(func() error { n.revocations.prune(ctx, n.log); return nil })
	g.Go(func() error { n.ring.run(ctx); return nil })
	if n.tokenKeys != nil {
		g.Go(func() error { return n.tokenKeys.Run(ctx) })
	}
	g.Go(func() error { return n.serveTURN(ctx, g) })
	g.Go(func() error {
		<-ctx.Done()
		n.ready.Store(false)
		n.log.Info("stopping")
		stop, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		return errors.Join(n.server.Shutdown(stop), n.Close(), admin.Close())
	})
	err := g.Wait()
	n.sockets.close()
	return err
}

// serveTURN lets clients in, at once or when an edge has spoken.
func (n *RelayNode) serveTURN(ctx context.Context, g *errgroup.Group) error {
	if n.cfg.WaitForEdge {
		n.log.Info("waiting for an edge before clients are served")
		select {
		case <-n.contact:
		case <-ctx.Done():
			return nil
		}
	}
	n.turn.serve(g, n.sockets, n.cfg.Relay)
	n.ready.Store(true)
	at, credentials := n.Addresses()
	n.log.Info("serving", "turn", at.TURNUDP, "turns", at.TURNTLS, "interface", credentials, "admin", at.Admin, "draining", n.draining.Load())
	return nil
}
