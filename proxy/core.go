package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// coreLink is the edge's side of Mw: one UDP socket, and TCP connections from the core and
// to it.
//
// sipgo's transport layer is not used. It logs whole messages that do not parse, keeps an
// entry for every address that ever sent a datagram, cuts reads at 32 KiB, refuses to send
// more than 1,300 octets by UDP, and has no place to check octets before the parser on TCP.
// Behind sip.Connection the transactions see no difference.
type coreLink struct {
	p *Proxy

	mu     sync.Mutex // guards what follows
	udp    net.PacketConn
	conns  map[*tcpPeer]struct{}
	dialed map[string]*tcpPeer // by address
}

func newCoreLink(p *Proxy) *coreLink {
	return &coreLink{p: p, conns: map[*tcpPeer]struct{}{}, dialed: map[string]*tcpPeer{}}
}

var errNoCoreSocket = errors.New("core link: not serving")

const (
	// maxCoreMessage is what a UDP datagram can carry; TCP is held to the same.
	maxCoreMessage = 65535
	dialTimeout    = 3 * time.Second
	coreWrite      = 3 * time.Second
)

// serve reads both sockets until ctx ends.
func (l *coreLink) serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	l.mu.Lock()
	l.udp = udp
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, 2)
	var wg sync.WaitGroup
	if udp != nil {
		wg.Go(func() { errs <- l.readUDP(udp) })
	}
	if tcp != nil {
		wg.Go(func() { errs <- l.accept(tcp) })
	}
	var err error
	select {
	case <-ctx.Done():
	case <-l.p.ctx.Done():
	case err = <-errs:
	}
	l.mu.Lock()
	l.udp = nil
	l.mu.Unlock()
	if udp != nil {
		_ = udp.Close()
	}
	if tcp != nil {
		_ = tcp.Close()
	}
	l.closeConns()
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

func (l *coreLink) closeConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.conn.Close()
	}
}

func (l *coreLink) readUDP(udp net.PacketConn) error {
	buf := make([]byte, maxCoreMessage)
	for {
		n, addr, err := udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			// An ICMP error of an earlier datagram; the socket is sound.
			l.p.log.Debug("core socket", "err", err)
			continue
		}
		if isKeepAlive(buf[:n]) {
			continue
		}
		from, err := netip.ParseAddrPort(addr.String())
		if err != nil {
			continue
		}
		l.take(buf[:n], udpPeer{pc: udp, addr: from}, "UDP", from)
	}
}

// take parses one message of the core and dispatches it.
func (l *coreLink) take(data []byte, conn sip.Connection, transport string, from netip.AddrPort) {
	m, raw, err := parse(l.p.parser, data, sipext.Limits{Headers: 256, Line: 32 << 10})
	if err != nil {
		l.p.metrics.dropped.WithLabelValues(dropCoreInvalid).Inc()
		l.p.log.Warn("malformed message from the core", "remote", from, "method", raw.Method, "err", err)
		return
	}
	if req, ok := m.(*sip.Request); ok {
		conn = l.replyPath(req, conn, from)
	}
	l.p.dispatch(m, peer{conn: conn, transport: transport})
}

// replyPath decides where responses go (RFC 3261 §18.2.2, RFC 3581 §4) and notes the
// source in the top Via (§18.2.1).
func (l *coreLink) replyPath(req *sip.Request, conn sip.Connection, from netip.AddrPort) sip.Connection {
	via := req.Via()
	source := from.Addr().Unmap().String()
	if via.Host != source {
		via.Params.Add("received", source)
	}
	port := uint16(sip.DefaultUdpPort)
	if via.Port > 0 && via.Port <= 65535 {
		port = uint16(via.Port)
	}
	if _, ok := via.Params.Get("rport"); ok {
		port = from.Port()
		via.Params.Add("rport", fmt.Sprint(port))
		via.Params.Add("received", source)
	}
	if u, ok := conn.(udpPeer); ok {
		u.addr = netip.AddrPortFrom(from.Addr(), port)
		return u
	}
	return conn
}

// peerFor returns the connection to a next hop, dialing where there is none.
func (l *coreLink) peerFor(n NextHop) (peer, error) {
	if n.Transport == "tcp" {
		c, err := l.dial(n.Addr)
		return peer{conn: c, transport: "TCP"}, err
	}
	l.mu.Lock()
	udp := l.udp
	l.mu.Unlock()
	if udp == nil {
		return peer{}, errNoCoreSocket
	}
	addr, err := resolve(l.p.ctx, n.Addr)
	return peer{conn: udpPeer{pc: udp, addr: addr}, transport: "UDP"}, err
}

// resolve takes the first A or AAAA record of a name. Choice by NAPTR and SRV, and
// failover (RFC 3263), belong here.
func resolve(ctx context.Context, hostport string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(hostport); err == nil {
		return a, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(n)), nil
}

// udpPeer is the core's address behind our UDP socket.
type udpPeer struct {
	noRef
	pc   net.PacketConn
	addr netip.AddrPort
}

var _ sip.Connection = udpPeer{}

// LocalAddr implements sip.Connection.
func (u udpPeer) LocalAddr() net.Addr { return u.pc.LocalAddr() }

// Close implements sip.Connection; the socket is shared.
func (u udpPeer) Close() error { return nil }

// WriteMsg implements sip.Connection. Messages beyond 1,300 octets go by UDP too, in
// fragments: IMS requests are that long, and RFC 3261 §18.1.1 allows it where the path is
// known to take them, as the network between an edge and its core is.
func (u udpPeer) WriteMsg(m sip.Message) error {
	_, err := u.pc.WriteTo(encode(m), net.UDPAddrFromAddrPort(u.addr))
	return err
}
