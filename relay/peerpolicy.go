package relay

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
)

// neverPeers are no unicast address of anybody, so AllowPeers does not open them. Linux
// takes 0.0.0.0 and :: for itself: they would be a way around everything below.
var neverPeers = prefixes(
	"0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", // RFC 791, RFC 5771, RFC 1112 §4
	"::/128", "ff00::/8", // RFC 4291 §2.5.2, §2.7
)

// deniedPeers are what is not the public Internet (the registries of RFC 6890): a relay
// stands with one foot inside the operator's network, and a client must not reach it
// through us (RFC 8656 §21.2). netip's own predicates do not do: IsPrivate is false for
// shared, translated and reserved addresses.
var deniedPeers = prefixes(
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // private, RFC 1918
	"100.64.0.0/10",                                     // shared, RFC 6598
	"127.0.0.0/8",                                       // loopback, RFC 1122 §3.2.1.3
	"169.254.0.0/16",                                    // link-local, RFC 3927: cloud metadata lives here
	"192.0.0.0/24",                                      // IETF protocol assignments, RFC 6890
	"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation, RFC 5737
	"192.88.99.0/24",             // 6to4 relays, RFC 7526
	"198.18.0.0/15",              // benchmarking, RFC 2544
	"::1/128",                    // loopback, RFC 4291 §2.5.3
	"64:ff9b:1::/48",             // translation within a network, RFC 8215
	"100::/64",                   // discard, RFC 6666
	"2001::/23",                  // IETF protocol assignments, RFC 2928
	"2001:db8::/32", "3fff::/20", // documentation, RFC 3849, RFC 9637
	"5f00::/16", // segment routing, RFC 9602
	"fc00::/7",  // unique local, RFC 4193
	"fe80::/10", // link-local, RFC 4291 §2.5.6
	"fec0::/10", // site-local, RFC 3879
)

// embeddings are where IPv6 hides an IPv4 address: such a peer gets the verdict of the
// plain address, since a translator on the way would deliver it there.
var embeddings = []struct {
	prefix netip.Prefix
	at     int  // where the four bytes stand
	invert bool // stored as their complement
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12, false},   // mapped, RFC 4291 §2.5.5.2
	{netip.MustParsePrefix("::/96"), 12, false},           // compatible, RFC 4291 §2.5.5.1
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, false}, // translated, RFC 2765 §2.1
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false},    // NAT64, RFC 6052 §2.1
	{netip.MustParsePrefix("2002::/16"), 2, false},        // 6to4, RFC 3056 §2
	{netip.MustParsePrefix("2001::/32"), 4, false},        // Teredo's server, RFC 4380 §4
	{netip.MustParsePrefix("2001::/32"), 12, true},        // Teredo's client
}

func prefixes(s ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(s))
	for i := range s {
		p[i] = netip.MustParsePrefix(s[i])
	}
	return p
}

// verdict is what the policy says of a peer's address, ports aside.
type verdict uint8

const (
	denied verdict = iota
	// relayedOnly is our own address: open are the ports that live allocations hold, so
	// that two users of this relay can talk, and no other.
	relayedOnly
	open
)

// peerPolicy decides who may be a peer. judge stands where a permission is installed,
// and admits before each datagram in either direction.
type peerPolicy struct {
	own   []netip.Addr // where relayed sockets are bound, and what is given out for them
	allow []netip.Prefix

	// ports are never peers: our listeners and Config.DenyPeers. A reader takes the map as
	// it is; the server's lock guards the writers.
	ports atomic.Pointer[map[netip.AddrPort]struct{}]
}

func newPeerPolicy(cfg *Config, log *slog.Logger) *peerPolicy {
	p := &peerPolicy{own: cfg.faces().own()}
	p.ports.Store(&map[netip.AddrPort]struct{}{})
	for _, a := range cfg.AllowPeers {
		if a.Addr().Is4In6() && a.Bits() >= 96 {
			a = netip.PrefixFrom(a.Addr().Unmap(), a.Bits()-96)
		}
		p.allow = append(p.allow, a.Masked())
		log.Warn("relay: peers opened that are denied by default", "prefix", a.Masked().String())
	}
	p.deny(cfg.DenyPeers...)
	return p
}

// deny makes peers of none of addrs. A wildcard address stands for every address of this
// host. Callers hold the server's lock or are alone.
func (p *peerPolicy) deny(addrs ...netip.AddrPort) {
	ports := maps.Clone(*p.ports.Load())
	for _, a := range addrs {
		if !a.Addr().IsUnspecified() {
			ports[canonical(a)] = struct{}{}
			continue
		}
		for _, ip := range slices.Concat(p.own, interfaceAddrs(), loopbacks) {
			ports[netip.AddrPortFrom(ip, a.Port())] = struct{}{}
		}
	}
	p.ports.Store(&ports)
}

// loopbacks stand for all of 127.0.0.0/8 in the map of ports: see barred.
var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

func interfaceAddrs() []netip.Addr {
	var ips []netip.Addr
	addrs, _ := net.InterfaceAddrs() // without the list, RelayIP and loopback are still denied
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				ips = append(ips, ip.Unmap())
			}
		}
	}
	return ips
}

// judge returns the verdict on a peer's address (RFC 8656 §10.2, §12.2: 403).
func (p *peerPolicy) judge(ip netip.Addr) verdict {
	ip = ip.WithZone("")
	v := p.judgePlain(ip)
	if ip.Is6() && ip != netip.IPv6Loopback() { // which is no compatible 0.0.0.1; IsLoopback takes mapped ones too
		for _, e := range embeddings {
			if !e.prefix.Contains(ip) {
				continue
			}
			b := ip.As16()
			v4 := [4]byte(b[e.at:])
			if e.invert {
				for i := range v4 {
					v4[i] = ^v4[i]
				}
			}
			v = min(v, p.judgePlain(netip.AddrFrom4(v4)))
		}
	}
	if _, barred := (*p.ports.Load())[netip.AddrPortFrom(ip.Unmap(), 0)]; barred {
		return denied
	}
	return v
}

func (p *peerPolicy) judgePlain(ip netip.Addr) verdict {
	in := func(set []netip.Prefix) bool {
		return slices.ContainsFunc(set, func(x netip.Prefix) bool { return x.Contains(ip) })
	}
	switch {
	case in(neverPeers):
		return denied
	case in(p.allow):
		return open
	case slices.Contains(p.own, ip):
		return relayedOnly
	case in(deniedPeers):
		return denied
	}
	return open
}

// barred reports whether a is a listener or another address of DenyPeers.
func (p *peerPolicy) barred(a netip.AddrPort) bool {
	ports := *p.ports.Load()
	if a.Addr().Is4() && a.Addr().IsLoopback() { // a listener on 127.0.0.1 may be one on all of them
		a = netip.AddrPortFrom(loopbacks[0], a.Port())
	}
	_, barred := ports[a]
	return barred
}

// canonical is the form in which addresses stand in the map of ports.
func canonical(a netip.AddrPort) netip.AddrPort {
	ip := a.Addr().Unmap().WithZone("")
	if ip.Is4() && ip.IsLoopback() && a.Port() != 0 {
		ip = loopbacks[0]
	}
	return netip.AddrPortFrom(ip, a.Port())
}
