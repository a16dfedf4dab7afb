package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// NextHop is where requests to the core go: a transport and a host, or a SIP domain whose
// hosts and transports DNS names (RFC 3263).
type NextHop struct {
	Transport string // "udp", "tcp" or "tls"; "sip" or "sips" where DNS chooses
	Addr      string // host or host:port; an IPv6 address stands in brackets
}

// String returns the form that ParseNextHop reads.
func (n NextHop) String() string { return n.Transport + ":" + n.Addr }

// ParseNextHop reads udp:HOST[:PORT], tcp:HOST[:PORT], tls:HOST[:PORT], sip:DOMAIN or
// sips:DOMAIN.
func ParseNextHop(s string) (NextHop, error) {
	transport, addr, _ := strings.Cut(s, ":")
	n := NextHop{Transport: strings.ToLower(transport), Addr: addr}
	if _, err := n.uri(); err != nil {
		return NextHop{}, fmt.Errorf("core address %q: %w", s, err)
	}
	return n, nil
}

// hopURI is a NextHop taken apart, in the words of RFC 3263 §4.1: TARGET, port and
// transport, each of which may be left to DNS.
type hopURI struct {
	host      string     // TARGET, without brackets
	ip        netip.Addr // TARGET where it is numeric
	port      uint16     // 0: not given
	transport string     // "": not given
	secure    bool       // a SIPS URI
}

var errNextHopForm = errors.New("want udp:HOST:PORT, tcp:HOST:PORT, tls:HOST:PORT, sip:DOMAIN or sips:DOMAIN")

func (n NextHop) uri() (hopURI, error) {
	u := hopURI{secure: n.Transport == "sips"}
	switch n.Transport {
	case "udp", "tcp", "tls":
		u.transport = n.Transport
	case "sip", "sips":
	default:
		return u, errNextHopForm
	}
	host, port := n.Addr, ""
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		host, port = host[:colon], host[colon+1:]
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil || p == 0 {
			return u, fmt.Errorf("port %q is not a number from 1 to 65535", port)
		}
		u.port = uint16(p)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner = strings.TrimSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		if err != nil || !ip.Is6() || "["+inner+"]" != host {
			return u, fmt.Errorf("%q is no IPv6 address in brackets", host)
		}
		u.host, u.ip = inner, ip
		return u, nil
	}
	if !isHost(host) {
		return u, errNextHopForm
	}
	u.host = host
	u.ip, _ = netip.ParseAddr(host)
	return u, nil
}

// Core says how the edge reaches its next hops, and when it turns to another. The zero
// value is good for UDP and TCP.
type Core struct {
	// TLS reaches next hops over TLS: RootCAs say whom we trust, Certificates are ours, for
	// a core that asks (and for ServeCoreTLS). The name checked is that of the NextHop as
	// configured, whatever DNS made of it (RFC 5922 §4). Without it there is no TLS.
	TLS *tls.Config
	// TLSPort is where the core reaches us over TLS, at CoreAddr's address. It stands in
	// Via, Path and Record-Route where the next hop in use is TLS; default 5061.
	TLSPort uint16

	// FollowServiceRoute sends requests of a WIC to the host on top of its Service-Route (RFC
	// 3608 §6.1), where a registration has got one. Else they go to the next hop, which must
	// follow Route itself.
	FollowServiceRoute bool

	// Failover is how long a next hop may be silent before a request goes to the next one
	// too; default 4 s: four tries by UDP.
	Failover time.Duration
	// Timeout is when a request other than INVITE is given up, and a REGISTER gets 504;
	// default 30 s, just before a WIC with the usual timers gives up itself.
	Timeout time.Duration
	// Probe is the time between OPTIONS to a next hop that is silent otherwise; default
	// 10 s, negative: none. A next hop that never answered one is not judged by it.
	Probe time.Duration
	// Aside is how long a dead next hop is left alone before it is tried again; default 10 s.
	Aside time.Duration

	// Nameservers are asked in place of those of /etc/resolv.conf.
	Nameservers []netip.AddrPort
	// Refresh is how long what DNS said is taken for true; default 30 s. It holds on after
	// that where DNS does not answer.
	Refresh time.Duration
}

const (
	sipPort  = 5060
	sipsPort = 5061
)

// checkCore checks the next hops and how they are reached, and fills in the defaults.
func (c *Config) checkCore() error {
	for i, n := range c.NextHops {
		if err := c.Core.checkHop(n); err != nil {
			return fmt.Errorf("NextHops[%d] is %q: %w", i, n, err)
		}
	}
	if n := c.EmergencyRoute; n != nil {
		if err := c.Core.checkHop(*n); err != nil {
			return fmt.Errorf("EmergencyRoute is %q: %w", n, err)
		}
	}
	return c.Core.check()
}

var errWantsTLS = errors.New("TLS wants Core.TLS: whom do we trust?")

func (c *Core) checkHop(n NextHop) error {
	u, err := n.uri()
	if err == nil && u.plainTransport() == "tls" && c.TLS == nil {
		err = errWantsTLS
	}
	return err
}

// check fills in the defaults; its error names the field.
func (c *Core) check() error {
	for name, d := range map[string]time.Duration{"Failover": c.Failover, "Timeout": c.Timeout, "Aside": c.Aside, "Refresh": c.Refresh} {
		if d < 0 {
			return fmt.Errorf("Core.%s is %v: want a time above zero, or zero for the default", name, d)
		}
	}
	setDefault(&c.TLSPort, sipsPort)
	setDefault(&c.Failover, 4*time.Second)
	setDefault(&c.Timeout, 30*time.Second)
	setDefault(&c.Probe, 10*time.Second)
	setDefault(&c.Aside, 10*time.Second)
	setDefault(&c.Refresh, 30*time.Second)
	return nil
}

// hostWithPort writes a host and port as SIP does.
func hostWithPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
