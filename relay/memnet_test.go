package relay

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Sockets in memory, for tests in a testing/synctest bubble, where time is fake and a
// goroutine that waits for the kernel would stop it.

// memListener hands out one end of each memConn.
type memListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemListener() *memListener {
	return &memListener{
		addr:  net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:3478")),
		conns: make(chan net.Conn), closed: make(chan struct{}),
	}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memListener) Addr() net.Addr { return l.addr }

// dial returns a client's end; port tells it from others.
func (l *memListener) dial(port uint16) net.Conn {
	client, server := net.Pipe()
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, port))
	l.conns <- memConn{server, l.addr, from}
	return memConn{client, from, l.addr}
}

// memConn is a net.Pipe with addresses.
type memConn struct {
	net.Conn
	local, remote net.Addr
}

func (c memConn) LocalAddr() net.Addr  { return c.local }
func (c memConn) RemoteAddr() net.Addr { return c.remote }

// memPacketConn receives nothing and sends nowhere.
type memPacketConn struct {
	net.PacketConn
	addr   net.Addr
	closed chan struct{}
	once   sync.Once
}

func newMemPacketConn(addr netip.AddrPort) *memPacketConn {
	return &memPacketConn{addr: net.UDPAddrFromAddrPort(addr), closed: make(chan struct{})}
}

func listenMemory(_ context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	return newMemPacketConn(addr), nil
}

func (p *memPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-p.closed
	return 0, nil, net.ErrClosed
}

// The methods of socket, so that the data path can be measured over it.
func (p *memPacketConn) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	<-p.closed
	return 0, netip.AddrPort{}, net.ErrClosed
}

func (p *memPacketConn) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) {
	return len(b), nil
}

func (p *memPacketConn) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (p *memPacketConn) LocalAddr() net.Addr                       { return p.addr }
func (p *memPacketConn) Close() error                              { p.once.Do(func() { close(p.closed) }); return nil }
