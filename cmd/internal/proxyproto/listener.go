package proxyproto

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// greetWithin is how long a balancer has for its header, which it sends at once.
const greetWithin = 5 * time.Second

// Listener takes the source that listed peers say for the remote address of a connection.
type Listener struct {
	net.Listener
	// Trusted are the peers that must greet.
	Trusted []netip.Prefix
	// Refused, where it is set, is told of each connection that did not.
	Refused func(peer net.Addr, err error)
}

// Accept returns at once. The header is read by whoever first reads from the connection or
// asks for its remote address, so that one slow balancer does not hold up the others.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.trusts(c.RemoteAddr()) {
		return c, nil
	}
	return &conn{Conn: c, refused: l.Refused}, nil
}

func (l *Listener) trusts(a net.Addr) bool {
	peer, err := netip.ParseAddrPort(a.String())
	ip := peer.Addr().Unmap().WithZone("")
	return err == nil && slices.ContainsFunc(l.Trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// conn is a connection of a listed peer.
type conn struct {
	net.Conn
	refused func(net.Addr, error)

	once   sync.Once // greet; what follows is set by it
	source net.Addr
	err    error
}

// greet reads the header. The deadline that stood before is lost: net/http sets its own
// after it has asked for the remote address.
func (c *conn) greet() {
	c.source = c.Conn.RemoteAddr()
	_ = c.Conn.SetReadDeadline(time.Now().Add(greetWithin))
	source, err := Read(c.Conn)
	_ = c.Conn.SetReadDeadline(time.Time{})
	if err != nil {
		c.err = fmt.Errorf("PROXY header of %v: %w", c.source, err)
		if c.refused != nil {
			c.refused(c.source, err)
		}
		_ = c.Conn.Close()
		return
	}
	if source.IsValid() {
		c.source = net.TCPAddrFromAddrPort(source)
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.once.Do(c.greet); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn. A server speaks to nobody who has not said whom he speaks for.
func (c *conn) Write(p []byte) (int, error) {
	if c.once.Do(c.greet); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Write(p)
}

// RemoteAddr implements net.Conn: the client's address, or the peer's own where it speaks
// for itself or did not greet.
func (c *conn) RemoteAddr() net.Addr {
	c.once.Do(c.greet)
	return c.source
}

// SyscallConn implements syscall.Conn for who waits for the connection by its descriptor.
// Nothing beyond the header is kept from it.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if c.once.Do(c.greet); c.err != nil {
		return nil, c.err
	}
	inner, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return inner.SyscallConn()
}
