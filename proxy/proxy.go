package proxy

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
	"epcscf/turncred"
)

// IMPU is an IMS public user identity as a URI, such as sip:alice@ims.test (TS 23.003 §13.4).
type IMPU string

// Proxy is the SIP edge. Make one with New; its methods are safe for concurrent use.
type Proxy struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	parser    *sip.Parser
	tokens    *tokenSealer
	flows     flowTable
	dialogs   dialogTable
	sources   addressTable
	txs       txTable
	regs      bindingTable
	registers registerTable
	untold    untoldQueue
	revoked   revokedTokens
	events    regEvents
	core      *coreLink
	nextURI   hopURI // the first next hop
	visited   string // value of P-Visited-Network-ID
	origIOI   string // value of orig-ioi, quoted

	plain, secure ownAddress // without TLS, and over it
	origins       map[string]bool

	upgrader websocket.Upgrader
	seed     maphash.Seed
	readers  readers
	polling  sync.Once // makes poller
	poller   *poller   // nil: the reader of each flow waits itself

	ctx    context.Context // ends with Close: every wait of ours selects on it
	cancel context.CancelFunc

	mu       sync.Mutex // guards draining and closed
	draining bool
	closed   bool
	work     sync.WaitGroup // every goroutine that we start
}

var _ http.Handler = (*Proxy)(nil)

// New checks cfg. It opens no sockets and starts nothing.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	visited, origIOI, err := networkNames(cfg.VisitedNetwork)
	if err != nil {
		return nil, fmt.Errorf("proxy: VisitedNetwork: %w", err)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("proxy: metrics: %w", err)
	}
	p := &Proxy{
		cfg: cfg, log: cfg.Logger, metrics: m, parser: newParser(),
		tokens: newTokenSealer(cfg.FlowKey), origins: map[string]bool{},
		visited: visited, origIOI: origIOI,
	}
	for _, o := range cfg.Origins {
		p.origins[o] = true
	}
	p.plain, p.secure = cfg.ownAddresses()
	p.seed = maphash.MakeSeed()
	p.flows.init()
	p.readers.init()
	p.dialogs.init(m.dialogs)
	p.sources.init()
	p.txs.init()
	p.regs.init()
	p.registers.init(p)
	p.events.init()
	p.upgrader = newUpgrader()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.nextURI, _ = cfg.NextHops[0].uri() // check has read it
	p.core = newCoreLink(p)
	return p, nil
}

// networkNames writes the network's name as P-Visited-Network-ID has it, a token or quoted
// (RFC 7315 §5.1), and as the type 1 orig-ioi of a P-Charging-Vector has it (§5.6).
func networkNames(network string) (visited, origIOI string, err error) {
	if origIOI, err = sipext.Quote("Type 1" + network); err != nil {
		return "", "", err
	}
	if sipext.IsToken(network) {
		return network, origIOI, nil
	}
	visited, err = sipext.Quote(network)
	return visited, origIOI, err
}

// start runs f in a goroutine that Close waits for. It reports false after Close.
func (p *Proxy) start(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.work.Go(f)
	return true
}

// poll starts the poller, once.
func (p *Proxy) poll() {
	p.polling.Do(func() {
		pl, err := newPoller(func(id uint64) {
			if f := p.flows.get(id); f != nil {
				f.wakeReader()
			}
		})
		if err != nil {
			p.log.Info("each idle flow keeps a goroutine", "err", err)
			return
		}
		if !p.start(pl.run) {
			pl.close()
			return
		}
		p.poller = pl
	})
}

// Shutdown refuses new flows, closes the live ones with 1001 (going away) and waits until
// they have ended or ctx has; then it does as Close.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	flows := p.flows.all()
	for _, f := range flows {
		f.close(websocket.CloseGoingAway, "shutting down", closedShutdown)
	}
	var err error
	for _, f := range flows {
		select {
		case <-f.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return cmp.Or(p.Close(), err)
}

// Close ends everything at once and waits for its goroutines. The core's sockets end with
// the context of ServeCore.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.draining, p.closed = true, true
	p.mu.Unlock()
	p.cancel()
	for _, f := range p.flows.all() {
		f.abort(closedShutdown)
	}
	p.txs.terminateAll()
	p.regs.stop()
	p.events.stop()
	p.core.closeConns()
	if p.polling.Do(func() {}); p.poller != nil {
		p.poller.close()
	}
	p.work.Wait()
	return nil
}

func (p *Proxy) isDraining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining
}

// ServeCore talks to the core over the sockets until ctx ends, then closes them. udp must
// be set where a next hop is UDP; tcp may be nil.
func (p *Proxy) ServeCore(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	return p.core.serve(ctx, udp, tcp)
}

// Serving returns a channel that is closed when ServeCore has its sockets. A server that
// accepts WebSockets earlier answers the first requests with 503 and 504.
func (p *Proxy) Serving() <-chan struct{} { return p.core.serving }

// FlowInfo is one flow as an operator sees it.
type FlowInfo struct {
	ID            string
	Remote        string
	Origin        string
	Since         time.Time
	Registrations []RegistrationInfo
}

// RegistrationInfo is one registration on a flow.
type RegistrationInfo struct {
	IMPU       IMPU // the address of record
	IMPI       turncred.IMPI
	Contact    string
	Instance   string
	RegID      string
	Associated []IMPU
	Expires    time.Time
	// Of the access token that it stands on; "" where there is none.
	TokenID, WWSF, WAF string
}

// Flows returns a snapshot of the live flows, oldest first.
func (p *Proxy) Flows() []FlowInfo {
	var all []FlowInfo
	for _, f := range p.flows.all() {
		all = append(all, f.info())
	}
	slices.SortFunc(all, func(a, b FlowInfo) int { return a.Since.Compare(b.Since) })
	return all
}

// ownAddress is our host and port in Via, Path and Record-Route.
type ownAddress struct {
	host string // an IPv6 address in brackets
	port int
	text string // host:port
}

// ownAddresses are what the core reaches us by: over TLS, and otherwise.
func (c *Config) ownAddresses() (plain, secure ownAddress) {
	host := c.CoreHost
	if host == "" {
		host = c.CoreAddr.Addr().String()
		if c.CoreAddr.Addr().Is6() {
			host = "[" + host + "]"
		}
	}
	at := func(port uint16) ownAddress {
		return ownAddress{host, int(port), host + ":" + strconv.Itoa(int(port))}
	}
	return at(c.CoreAddr.Port()), at(c.Core.TLSPort)
}

// sentBy is what the core reaches us by over a transport.
func (p *Proxy) sentBy(transport string) *ownAddress {
	if strings.EqualFold(transport, "tls") {
		return &p.secure
	}
	return &p.plain
}
