package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

// hopAddr is one address of the core, with what it takes to reach it.
type hopAddr struct {
	transport string // "udp", "tcp" or "tls"
	addr      netip.AddrPort
	name      string // tls only: what the certificate must prove
}

func (t hopAddr) String() string { return t.transport + ":" + t.addr.String() }

// candidate is an address with its place in the order of RFC 3263 §4.
type candidate struct {
	hopAddr
	rank   int    // lower ones first
	weight uint16 // share among those of one rank (RFC 2782)
	server string // the host that DNS named: its addresses stay together
}

// maxCandidates bounds what DNS can make a next hop grow to.
const maxCandidates = 32

// resolver finds the addresses of a next hop (RFC 3263). Names, /etc/hosts included, and
// SRV are the standard library's; NAPTR, which it does not know, is ours.
type resolver struct {
	names *net.Resolver
	naptr func(ctx context.Context, name string) ([]naptr, error)
	tls   bool // TLS may be chosen
}

func newResolver(cfg *Core) *resolver {
	r := &resolver{names: net.DefaultResolver, tls: cfg.TLS != nil}
	dns := &naptrClient{servers: cfg.Nameservers}
	r.naptr = dns.lookup
	if len(cfg.Nameservers) > 0 {
		var turn atomic.Uint32 // the library asks again where one is silent
		r.names = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			server := cfg.Nameservers[int(turn.Add(1)-1)%len(cfg.Nameservers)]
			return new(net.Dialer).DialContext(ctx, network, server.String())
		}}
	}
	return r
}

// service is a transport, and the name of its SRV records; "" where there are none to ask.
type service struct {
	transport string
	srv       string
}

var errNoAddress = errors.New("DNS names no address that we can use")

// resolve lists the addresses of a next hop, in order.
func (r *resolver) resolve(ctx context.Context, u hopURI) ([]candidate, error) {
	services, err := r.services(ctx, u)
	if err != nil {
		return nil, err
	}
	var all []candidate
	var errs []error
	for i, s := range services {
		found, err := r.service(ctx, u, s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, c := range found {
			c.rank += i << 16 // an SRV priority has 16 bits
			all = append(all, c)
		}
	}
	if len(all) == 0 && len(errs) == 0 && u.transport == "" {
		// RFC 3263 §4.1: no NAPTR and no SRV: UDP for a SIP URI, TLS for SIPS; §4.2: A and AAAA.
		all, err = r.addresses(ctx, u, u.host, u.plainTransport(), 0)
		errs = append(errs, err)
	}
	if len(all) == 0 {
		return nil, cmp.Or(errors.Join(errs...), errNoAddress)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.rank, b.rank) })
	return all[:min(len(all), maxCandidates)], nil
}

// plainTransport is the transport where nobody says more (RFC 3263 §4.1).
func (u hopURI) plainTransport() string {
	switch {
	case u.transport != "":
		return u.transport
	case u.secure:
		return "tls"
	}
	return "udp"
}

// services selects transports (RFC 3263 §4.1).
func (r *resolver) services(ctx context.Context, u hopURI) ([]service, error) {
	switch {
	case u.ip.IsValid() || u.port != 0:
		return []service{{transport: u.plainTransport()}}, nil
	case u.transport != "":
		return []service{{u.transport, srvName(u.transport, u.host)}}, nil
	}
	records, err := r.naptr(ctx, u.host)
	if err != nil {
		return nil, fmt.Errorf("NAPTR of %s: %w", u.host, err)
	}
	var chosen []service
	slices.SortStableFunc(records, naptr.compare)
	for _, n := range records {
		t := n.transport()
		if t != "" && (t == "tls" || !u.secure) && (t != "tls" || r.tls) {
			chosen = append(chosen, service{t, n.replacement})
		}
	}
	if len(chosen) > 0 {
		return chosen, nil
	}
	for _, t := range []string{"tls", "udp", "tcp"} {
		if (t == "tls" || !u.secure) && (t != "tls" || r.tls) {
			chosen = append(chosen, service{t, srvName(t, u.host)})
		}
	}
	return chosen, nil
}

func srvName(transport, host string) string {
	switch transport {
	case "tls":
		return "_sips._tcp." + host
	case "tcp":
		return "_sip._tcp." + host
	}
	return "_sip._udp." + host
}

// service lists the addresses of one transport (RFC 3263 §4.2). Without SRV records it is
// the host itself where the transport was given, else nothing.
func (r *resolver) service(ctx context.Context, u hopURI, s service) ([]candidate, error) {
	if s.srv == "" {
		return r.addresses(ctx, u, u.host, s.transport, u.port)
	}
	_, records, err := r.names.LookupSRV(ctx, "", "", s.srv)
	if isNotFound(err) {
		if u.transport == "" {
			return nil, nil
		}
		return r.addresses(ctx, u, u.host, s.transport, 0)
	}
	if err != nil {
		return nil, err
	}
	var all []candidate
	var errs []error
	for _, srv := range records[:min(len(records), maxCandidates)] {
		if srv.Target == "." { // RFC 2782: the service is decidedly not there
			continue
		}
		found, err := r.addresses(ctx, u, strings.TrimSuffix(srv.Target, "."), s.transport, srv.Port)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, c := range found {
			c.rank, c.weight = int(srv.Priority), srv.Weight
			all = append(all, c)
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, errors.Join(errs...)
}

// addresses lists the A and AAAA records of a host.
func (r *resolver) addresses(ctx context.Context, u hopURI, host, transport string, port uint16) ([]candidate, error) {
	if port == 0 {
		port = sipPort
		if transport == "tls" {
			port = sipsPort
		}
	}
	ips := []netip.Addr{u.ip}
	if !u.ip.IsValid() {
		var err error
		if ips, err = r.names.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	var all []candidate
	for _, ip := range ips {
		c := candidate{hopAddr: hopAddr{transport: transport, addr: netip.AddrPortFrom(ip.Unmap(), port)}, server: hostWithPort(host, port)}
		if transport == "tls" {
			c.name = u.host // RFC 5922 §4: the domain that was asked for, not what DNS says
		}
		all = append(all, c)
	}
	return all, nil
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
