package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// coreLink is the edge's side of Mw: one UDP socket, and TCP and TLS connections from the
// core and to it.
//
// sipgo's transport layer is not used. It logs whole messages that do not parse, keeps an
// entry for every address that ever sent a datagram, cuts reads at 32 KiB, refuses to send
// more than 1,300 octets by UDP, and has no place to check octets before the parser on TCP.
// Behind sip.Connection the transactions see no difference.
type coreLink struct {
	p *Proxy

	hops      *hopSet
	emergency *hopSet // nil: there is no emergency route
	self      *hopSet // ourselves, where a route leads back
	service   serviceHops

	serving chan struct{} // closed when there are sockets to the core
	once    sync.Once     // closes serving

	mu      sync.Mutex // guards what follows
	udp     datagrams
	conns   map[*tcpPeer]struct{}
	dialed  map[hopAddr]*tcpPeer
	dialing map[hopAddr]*dialing
}

func newCoreLink(p *Proxy) *coreLink {
	l := &coreLink{p: p, serving: make(chan struct{}), conns: map[*tcpPeer]struct{}{}, dialed: map[hopAddr]*tcpPeer{}, dialing: map[hopAddr]*dialing{}}
	l.hops = newHopSet(p, p.cfg.NextHops, true)
	l.service = serviceHops{p: p, sets: map[NextHop]*hopSet{}}
	if p.cfg.EmergencyRoute != nil {
		l.emergency = newHopSet(p, []NextHop{*p.cfg.EmergencyRoute}, true)
	}
	self := NextHop{"udp", p.cfg.CoreAddr.String()}
	if p.coreTransport() != "udp" {
		self.Transport = "tcp"
	}
	l.self = newHopSet(p, []NextHop{self}, false)
	l.self.steady = true
	return l
}

var errNoCoreSocket = errors.New("core link: not serving")

const (
	// maxCoreMessage is what a UDP datagram can carry; TCP is held to the same.
	maxCoreMessage = 65535
	dialTimeout    = 3 * time.Second
	coreWrite      = 3 * time.Second
)

// serve reads both sockets until ctx ends.
func (l *coreLink) serve(ctx context.Context, pc net.PacketConn, tcp net.Listener) error {
	udp := datagramsOf(pc)
	l.mu.Lock()
	l.udp = udp
	l.mu.Unlock()
	l.once.Do(func() { close(l.serving) })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, 2)
	var wg sync.WaitGroup
	if udp != nil {
		wg.Go(func() { errs <- l.readUDP(udp) })
	}
	wg.Go(func() { l.hops.watch(ctx) })
	if l.emergency != nil {
		wg.Go(func() { l.emergency.watch(ctx) })
	}
	if tcp != nil {
		wg.Go(func() { errs <- l.accept(tcp, "TCP") })
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
	cancel()
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

func (l *coreLink) readUDP(udp datagrams) error {
	buf := make([]byte, maxCoreMessage)
	for {
		n, from, err := udp.ReadFromUDPAddrPort(buf)
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
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		l.take(buf[:n], udpPeer{pc: udp, addr: from}, "UDP", from)
	}
}

// take checks one message of the core and dispatches it.
func (l *coreLink) take(data []byte, conn sip.Connection, transport string, from netip.AddrPort) {
	m, err := sipext.Scan(data, sipext.Limits{Headers: 256, Line: 32 << 10})
	if err == nil {
		err = l.p.dispatch(m, peer{conn: conn, transport: transport, source: from})
	}
	if err != nil {
		l.p.metrics.dropped.WithLabelValues(dropCoreInvalid).Inc()
		l.p.log.Warn("malformed message from the core", "remote", from, "method", m.Method, "err", err)
	}
}

// replyPath decides where responses go (RFC 3261 §18.2.2, RFC 3581 §4) and notes the
// source in the top Via (§18.2.1).
func (p peer) replyPath(req *sip.Request) sip.Connection {
	via := req.Via()
	source := p.source.Addr().Unmap().String()
	if via.Host != source {
		via.Params.Add("received", source)
	}
	port := uint16(sip.DefaultUdpPort)
	if via.Port > 0 && via.Port <= 65535 {
		port = uint16(via.Port)
	}
	if _, ok := via.Params.Get("rport"); ok {
		port = p.source.Port()
		via.Params.Add("rport", fmt.Sprint(port))
		via.Params.Add("received", source)
	}
	if u, ok := p.conn.(udpPeer); ok {
		u.addr = netip.AddrPortFrom(p.source.Addr(), port)
		return u
	}
	return p.conn
}

// open returns the connection to a hop, dialing where there is none.
func (l *coreLink) open(h *hop) (peer, error) {
	if h.transport != "udp" {
		c, err := l.dial(h.hopAddr)
		if err != nil {
			return peer{}, err
		}
		return peer{conn: c, transport: c.transport, hop: h}, nil
	}
	l.mu.Lock()
	udp := l.udp
	l.mu.Unlock()
	if udp == nil {
		return peer{}, errNoCoreSocket
	}
	return peer{conn: udpPeer{pc: udp, addr: h.addr}, transport: "UDP", hop: h}, nil
}

// isOpen reports whether open would not have to wait.
func (l *coreLink) isOpen(h *hop) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return h.transport == "udp" || l.dialed[h.hopAddr] != nil
}

const (
	// maxUDPRequest is where RFC 3261 §18.1.1 has requests go by TCP, since a path's MTU
	// is not known.
	maxUDPRequest = 1300
	// tcpRefused is how long a hop that refused TCP is not asked again.
	tcpRefused = time.Minute
)

// fit turns to TCP where a request of that size is too long for UDP, unless TCP is refused
// (RFC 3261 §18.1.1).
func (l *coreLink) fit(h *hop, to peer, size int) peer {
	if to.transport != "UDP" || size <= maxUDPRequest || time.Now().UnixNano() <= h.noTCP.Load() {
		return to
	}
	c, err := l.dial(hopAddr{transport: "tcp", addr: h.addr})
	if err == nil {
		to.transport, to.conn = c.transport, c
		l.p.metrics.core.overTCP.Inc()
	} else if l.p.ctx.Err() == nil {
		h.noTCP.Store(time.Now().Add(tcpRefused).UnixNano())
		l.p.log.Info("long requests go by UDP: the next hop takes no TCP", "next_hop", h.String(), "err", err)
	}
	return to
}

// fitRequest encodes a request that bears our Via, which says how it goes.
func (l *coreLink) fitRequest(h *hop, req *sip.Request, to peer) peer {
	raw := encode(req)
	if longer := l.fit(h, to, len(raw)); longer.transport != to.transport {
		to = longer
		req.Via().Transport = to.transport
		raw = encode(req)
	}
	to.conn = &requestConn{Connection: to.conn, req: req, raw: raw}
	return to
}

// write sends a request that has no transaction, an ACK, to the first hop of a set for that key.
func (l *coreLink) write(req *sip.Request, hops *hopSet, key uint64) error {
	up, _ := hops.wait(l.p.ctx, key)
	if len(up) == 0 {
		return errAllDown
	}
	to, err := l.open(up[0])
	if err != nil {
		return err
	}
	l.p.pushVia(req, to, "")
	return l.fitRequest(up[0], req, to).conn.WriteMsg(req)
}

// requestConn writes a request in the form in which it was measured, and its repetitions
// too, unless nobody needs them any more.
type requestConn struct {
	sip.Connection
	req   *sip.Request
	raw   []byte
	muted atomic.Bool
}

type rawWriter interface{ write([]byte) error }

// WriteMsg implements sip.Connection.
func (r *requestConn) WriteMsg(m sip.Message) error {
	w, ok := r.Connection.(rawWriter)
	if !ok || m != sip.Message(r.req) {
		return r.Connection.WriteMsg(m)
	}
	if r.muted.Load() {
		return nil
	}
	return w.write(r.raw)
}

// gone is closed when the connection to a peer has ended; nil: it has none that ends.
func (p peer) gone() <-chan struct{} {
	conn := p.conn
	if r, ok := conn.(*requestConn); ok {
		conn = r.Connection
	}
	switch c := conn.(type) {
	case *Flow:
		return c.done
	case *tcpPeer:
		return c.gone
	}
	return nil
}

// udpPeer is the core's address behind our UDP socket.
type udpPeer struct {
	noRef
	pc   datagrams
	addr netip.AddrPort
}

var _ sip.Connection = udpPeer{}

// LocalAddr implements sip.Connection.
func (u udpPeer) LocalAddr() net.Addr { return u.pc.LocalAddr() }

// Close implements sip.Connection; the socket is shared.
func (u udpPeer) Close() error { return nil }

// WriteMsg implements sip.Connection. A response goes the way that its request came,
// however long it is (RFC 3261 §18.2.2).
func (u udpPeer) WriteMsg(m sip.Message) error { return u.write(encode(m)) }

func (u udpPeer) write(b []byte) error {
	_, err := u.pc.WriteToUDPAddrPort(b, u.addr)
	return err
}

// datagrams is what of a *net.UDPConn is used: it names addresses without allocating them.
type datagrams interface {
	net.PacketConn
	ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// datagramsOf returns pc as datagrams, by way of net.Addr where it is another socket than
// *net.UDPConn; nil: there is none.
func datagramsOf(pc net.PacketConn) datagrams {
	if d, ok := pc.(datagrams); ok || pc == nil {
		return d
	}
	return otherPacketConn{pc}
}

type otherPacketConn struct{ net.PacketConn }

// ReadFromUDPAddrPort implements datagrams.
func (o otherPacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, addr, err := o.ReadFrom(b)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	from, err := netip.ParseAddrPort(addr.String())
	return n, from, err
}

// WriteToUDPAddrPort implements datagrams.
func (o otherPacketConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return o.WriteTo(b, net.UDPAddrFromAddrPort(to))
}
