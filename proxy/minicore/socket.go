package minicore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

const (
	transportUDP = "UDP"
	transportTCP = "TCP"

	// writeTimeout bounds how long a peer that does not read holds one up.
	writeTimeout = 5 * time.Second
	dialTimeout  = 5 * time.Second
	// maxConns bounds TCP connections: a handful of edges, each with one or two.
	maxConns = 256
)

// peer is where a message came from or goes to. As a sip.Connection it serves sipgo's
// state machines; it counts no references, its owner closes it.
type peer interface {
	sip.Connection
	transport() string
}

// udpPeer is an address behind the UDP socket.
type udpPeer struct {
	sock net.PacketConn
	addr netip.AddrPort
}

func (p udpPeer) transport() string      { return transportUDP }
func (p udpPeer) LocalAddr() net.Addr    { return p.sock.LocalAddr() }
func (p udpPeer) Ref(int) int            { return 1 }
func (p udpPeer) TryClose() (int, error) { return 1, nil }
func (p udpPeer) Close() error           { return nil }

// WriteMsg sends m in one datagram, whatever its size. RFC 3261 §18.1.1 wants TCP above
// 1300 bytes; IMS requests are larger, and this core runs on loopback.
func (p udpPeer) WriteMsg(m sip.Message) error {
	_, err := p.sock.WriteTo([]byte(m.String()), net.UDPAddrFromAddrPort(p.addr))
	return err
}

// tcpPeer is a connection, accepted or dialled.
type tcpPeer struct {
	conn net.Conn
	mu   sync.Mutex // one message at a time
}

func (p *tcpPeer) transport() string      { return transportTCP }
func (p *tcpPeer) LocalAddr() net.Addr    { return p.conn.LocalAddr() }
func (p *tcpPeer) Ref(int) int            { return 1 }
func (p *tcpPeer) TryClose() (int, error) { return 1, nil }
func (p *tcpPeer) Close() error           { return nil }

func (p *tcpPeer) WriteMsg(m sip.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := p.conn.Write([]byte(m.String()))
	return err
}

// hop is a peer as a client transaction sees it.
type hop struct{ peer }

// WriteMsg leaves one Via on the ACK that sipgo makes for a non-2xx response: "The ACK
// MUST contain a single Via header field" (RFC 3261 §17.1.1.3); sipgo copies them all.
func (h hop) WriteMsg(m sip.Message) error {
	if ack, ok := m.(*sip.Request); ok && ack.IsAck() {
		via := ack.Via().Clone()
		sipext.Strip(ack, "Via")
		ack.PrependHeader(via)
	}
	return h.peer.WriteMsg(m)
}

// sockets are what the core writes to.
type sockets struct {
	udp net.PacketConn // set before the first read

	mu     sync.Mutex          // guards conns and closed
	conns  map[*tcpPeer]string // to the remote address, which two may share
	closed bool
}

var errTooManyConns = errors.New("too many TCP connections")

func (s *sockets) init() { s.conns = map[*tcpPeer]string{} }

// add takes a connection over; where it cannot, it closes it.
func (s *sockets) add(conn net.Conn) (*tcpPeer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns {
		_ = conn.Close()
		if s.closed {
			return nil, net.ErrClosed
		}
		return nil, errTooManyConns
	}
	p := &tcpPeer{conn: conn}
	s.conns[p] = conn.RemoteAddr().String()
	return p, nil
}

func (s *sockets) remove(p *tcpPeer) {
	_ = p.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, p)
}

func (s *sockets) lookup(addr netip.AddrPort) *tcpPeer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, remote := range s.conns {
		if remote == addr.String() {
			return p
		}
	}
	return nil
}

func (s *sockets) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for p := range s.conns {
		_ = p.conn.Close()
	}
}

// peerFor returns the way to a URI: transport by its parameter, default UDP, or what
// there is (RFC 3263 §4.1 without DNS beyond addresses).
func (c *Core) peerFor(ctx context.Context, uri *sip.Uri) (peer, error) {
	addr, err := resolve(ctx, uri)
	if err != nil {
		return nil, err
	}
	tp, _ := uri.UriParams.Get("transport")
	switch {
	case strings.EqualFold(tp, "tcp"), tp == "" && c.socks.udp == nil:
		return c.dialTCP(ctx, addr)
	case (tp == "" || strings.EqualFold(tp, "udp")) && c.socks.udp != nil:
		return udpPeer{c.socks.udp, addr}, nil
	}
	return nil, fmt.Errorf("no socket for transport %q", tp)
}

func resolve(ctx context.Context, uri *sip.Uri) (netip.AddrPort, error) {
	port := uri.Port
	if port == 0 {
		port = 5060
	}
	if port < 0 || port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("port %d", port)
	}
	host := strings.Trim(uri.Host, "[]")
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
	}
	// RFC 7118 Appendix B.1: a WIC's host name resolves nowhere; do not ask.
	if strings.HasSuffix(strings.ToLower(host), ".invalid") {
		return netip.AddrPort{}, fmt.Errorf("%s is no address: the request lacks a Route", host)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(port)), nil
}

func (c *Core) dialTCP(ctx context.Context, addr netip.AddrPort) (peer, error) {
	if p := c.socks.lookup(addr); p != nil {
		return p, nil
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	p, err := c.socks.add(conn)
	if err != nil {
		return nil, err
	}
	c.wg.Go(func() { c.readTCP(p) })
	return p, nil
}

// readUDP is the only reader of the socket. It returns nil when the core stops.
func (c *Core) readUDP(sock net.PacketConn) error {
	parser := sip.NewParser()
	buf := make([]byte, 65535)
	for {
		n, from, err := sock.ReadFrom(buf)
		if err != nil {
			if c.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("read UDP: %w", err)
		}
		src, err := netip.ParseAddrPort(from.String())
		if err != nil || len(bytes.Trim(buf[:n], "\r\n\x00")) == 0 {
			continue // a keep-alive
		}
		m, err := parser.ParseSIP(bytes.Clone(buf[:n]))
		if err != nil {
			c.log.Debug("drop a datagram", "reason", "malformed", "from", src)
			continue
		}
		m.SetTransport(transportUDP)
		c.dispatch(m, src, udpPeer{sock, netip.AddrPortFrom(src.Addr().Unmap(), src.Port())})
	}
}

func (c *Core) acceptTCP(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			if c.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept TCP: %w", err)
		}
		p, err := c.socks.add(conn)
		if err != nil {
			c.log.Warn("refuse a connection", "from", conn.RemoteAddr(), "err", err)
			continue
		}
		c.wg.Go(func() { c.readTCP(p) })
	}
}

// readTCP is the only reader of a connection. A framing error ends it, since there is
// no message boundary to go on from.
func (c *Core) readTCP(p *tcpPeer) {
	defer c.socks.remove(p)
	src, err := netip.ParseAddrPort(p.conn.RemoteAddr().String())
	if err != nil {
		return
	}
	stream := sip.NewParser().NewSIPStream()
	defer stream.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			return
		}
		err = stream.ParseSIPStream(buf[:n], func(m sip.Message) {
			m.SetTransport(transportTCP)
			c.dispatch(m, src, p)
		})
		if err != nil && !errors.Is(err, sip.ErrParseSipPartial) {
			c.log.Debug("close a connection", "reason", "malformed", "from", src)
			return
		}
	}
}
