package minicore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"epcscf/turncred"
)

// Config configures a Core. Domain and Users must be set.
type Config struct {
	Domain string // home domain and digest realm, such as "ims.test"
	// Users maps the user part to its password. USER has the public identity
	// sip:USER@Domain and the private identity USER@Domain; as digest username
	// both USER and USER@Domain are taken.
	Users map[string]turncred.Secret
	// Host is the host:port that stands in Via and Service-Route and must route to
	// this core; default the address of the socket. A socket on 0.0.0.0 or :: needs it.
	Host string
	// MinExpires and MaxExpires bound a binding's life. A shorter wish gets a 423
	// (default 0: none is too short), a longer one is cut; default 600 s, which also
	// serves where a REGISTER names no expiry.
	MinExpires, MaxExpires time.Duration
	// Algorithms are the digest algorithms offered, a challenge each, in this order;
	// default SHA-256, then MD5: the strongest first (RFC 8760 §2.3). Browsers' SIP stacks
	// know MD5 only, and of several challenges they take the last.
	Algorithms []string
	NonceLife  time.Duration // a nonce older than this is stale; default 5 min
	// TrustedEdges are the addresses of eP-CSCFs whose word it takes that a user has been
	// authenticated: a REGISTER from there with integrity-protected="auth-done" gets no
	// challenge (Trusted Node Authentication, TS 24.292 clause 6, known to us by TS 33.203
	// X.3). None by default: whoever can send from such an address is any user.
	TrustedEdges []netip.Addr
	// RecordRoute keeps the core in the path of dialogs, as real S-CSCFs are.
	RecordRoute bool
	Logger      *slog.Logger     // default: discard
	Now         func() time.Time // default time.Now
}

// Core is a registrar and S-CSCF in miniature. Make one with New. Safe for concurrent use.
type Core struct {
	cfg    Config
	log    *slog.Logger
	auth   *authenticator
	where  *location
	events *notifier
	txs    transactions
	socks  sockets
	wg     sync.WaitGroup
	mu     sync.Mutex // guards served and stopped, and is held while an operator's word goes out
	// served is set by the one call of Serve, which alone writes what follows.
	served bool
	self   selfAddrs
	// stopped is set when Serve ends.
	stopped bool
	ctx     context.Context // of Serve: what the core's own goroutines stop by
}

// New checks cfg. It opens no sockets and starts nothing.
func New(cfg Config) (*Core, error) {
	if cfg.Domain == "" {
		return nil, errors.New("minicore: Domain is not set")
	}
	if len(cfg.Users) == 0 {
		return nil, errors.New("minicore: Users is empty: nobody could register")
	}
	for u, pw := range cfg.Users {
		if u == "" || strings.ContainsAny(u, "@:; <>\"\r\n") || pw.Len() == 0 {
			return nil, fmt.Errorf("minicore: Users: %q is no user part, or its password is empty", u)
		}
	}
	if cfg.MaxExpires == 0 {
		cfg.MaxExpires = 600 * time.Second
	}
	if cfg.MaxExpires < time.Second || cfg.MinExpires > cfg.MaxExpires || cfg.MinExpires < 0 {
		return nil, fmt.Errorf("minicore: MinExpires %v and MaxExpires %v leave no room", cfg.MinExpires, cfg.MaxExpires)
	}
	if cfg.Algorithms == nil {
		cfg.Algorithms = []string{"SHA-256", "MD5"}
	}
	for _, a := range cfg.Algorithms {
		if !slices.Contains([]string{"MD5", "SHA-256", "SHA-512-256"}, a) {
			return nil, fmt.Errorf("minicore: Algorithms: %q is none of MD5, SHA-256, SHA-512-256", a)
		}
	}
	if cfg.NonceLife == 0 {
		cfg.NonceLife = 5 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Core{cfg: cfg, log: cfg.Logger, where: newLocation(cfg.Now)}
	c.auth = newAuthenticator(cfg)
	c.events = newNotifier(c)
	c.txs.init()
	c.socks.init()
	return c, nil
}

// Serve answers on udp and tcp, either of which may be nil, until ctx ends or a socket
// fails. It then closes both, waits for its goroutines and returns nil, or the socket's
// error. It can be called once.
func (c *Core) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	if udp == nil && tcp == nil {
		return errors.New("minicore: neither a UDP nor a TCP socket to serve on")
	}
	c.mu.Lock()
	again := c.served
	c.served = true
	c.mu.Unlock()
	if again {
		return errors.New("minicore: Serve was called twice")
	}
	var err error
	if c.self, err = newSelfAddrs(c.cfg.Host, udp, tcp); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	c.socks.udp = udp
	c.wg.Go(c.events.run)
	if udp != nil {
		c.wg.Go(func() { stop(c.readUDP(udp)) })
	}
	if tcp != nil {
		c.wg.Go(func() { stop(c.acceptTCP(tcp)) })
	}
	<-ctx.Done()
	c.mu.Lock()
	c.stopped = true // and no Terminate is under way
	c.mu.Unlock()
	cause := context.Cause(ctx)
	if udp != nil {
		_ = udp.Close()
	}
	if tcp != nil {
		_ = tcp.Close()
	}
	c.socks.closeAll()
	c.txs.terminateAll()
	c.wg.Wait()
	if cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("minicore: %w", cause)
	}
	return nil
}

// Bindings returns the bindings that have not expired, by AOR and age.
func (c *Core) Bindings() []Binding { return c.where.snapshot() }

// aor returns the public identity of a user part.
func (c *Core) aor(user string) string { return "sip:" + user + "@" + c.cfg.Domain }

func (c *Core) isDomain(host string) bool { return strings.EqualFold(host, c.cfg.Domain) }

// selfAddrs are the addresses that this core goes by.
type selfAddrs struct{ udp, tcp netip.AddrPort }

func newSelfAddrs(host string, udp net.PacketConn, tcp net.Listener) (s selfAddrs, err error) {
	if host != "" {
		if s.udp, err = netip.ParseAddrPort(host); err != nil {
			return s, fmt.Errorf("minicore: Host %q: want IP:PORT", host)
		}
		s.tcp = s.udp
		return s, nil
	}
	if udp != nil {
		if s.udp, err = socketAddr(udp.LocalAddr()); err != nil {
			return s, err
		}
	}
	if tcp != nil {
		if s.tcp, err = socketAddr(tcp.Addr()); err != nil {
			return s, err
		}
	}
	return s, nil
}

func socketAddr(a net.Addr) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil || ap.Addr().IsUnspecified() {
		return ap, fmt.Errorf("minicore: socket on %s: Host must be set to the address that peers reach", a)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// of returns the address for a transport.
func (s selfAddrs) of(transport string) netip.AddrPort {
	if transport == transportTCP && s.tcp.IsValid() || !s.udp.IsValid() {
		return s.tcp
	}
	return s.udp
}

// is reports whether host and port name this core; port 0 is 5060.
func (s selfAddrs) is(host string, port int) bool {
	if port == 0 {
		port = 5060
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return false
	}
	ap := netip.AddrPortFrom(ip.Unmap(), uint16(port))
	return ap == s.udp || ap == s.tcp
}
