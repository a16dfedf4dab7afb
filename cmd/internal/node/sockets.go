package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// sockets are all that a node listens on, opened together or not at all.
type sockets struct {
	https   net.Listener
	turnUDP net.PacketConn
	turnTCP net.Listener
	turnTLS net.Listener
	admin   net.Listener
	coreUDP net.PacketConn
	coreTCP net.Listener
	// minicore's own; nil where another core serves.
	miniUDP net.PacketConn
	miniTCP net.Listener
}

func openSockets(cfg Config) (*sockets, error) {
	s := &sockets{}
	if err := s.open(cfg); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *sockets) open(cfg Config) (err error) {
	if s.https, err = listenTCP("--listen", cfg.Listen); err != nil {
		return err
	}
	if s.turnUDP, s.turnTCP, err = listenBoth("--turn-listen", cfg.TURNListen); err != nil {
		return err
	}
	if s.turnTLS, err = listenTCP("--turns-listen", cfg.TURNSListen); err != nil {
		return err
	}
	if s.admin, err = listenTCP("--admin-listen", cfg.AdminListen); err != nil {
		return err
	}
	if s.coreUDP, s.coreTCP, err = listenBoth("--core-listen", cfg.CoreListen); err != nil {
		return err
	}
	if cfg.Core == nil {
		if s.miniUDP, s.miniTCP, err = listenBoth("miniature core", netip.AddrPortFrom(cfg.CoreListen.Addr(), 0)); err != nil {
			return err
		}
	}
	return nil
}

func (s *sockets) close() {
	for _, c := range []interface{ Close() error }{s.https, s.turnUDP, s.turnTCP, s.turnTLS, s.admin, s.coreUDP, s.coreTCP, s.miniUDP, s.miniTCP} {
		if c != nil {
			_ = c.Close()
		}
	}
}

func listenTCP(flag string, a netip.AddrPort) (net.Listener, error) {
	ln, err := net.Listen("tcp", a.String())
	if err != nil {
		return nil, listenError(flag, "tcp", a, err)
	}
	return ln, nil
}

// listenBoth opens one port on UDP and TCP. For port 0 the kernel chooses a UDP port
// whose TCP twin may be taken: then it chooses again.
func listenBoth(flag string, a netip.AddrPort) (net.PacketConn, net.Listener, error) {
	const tries = 16
	var lc net.ListenConfig
	for try := 1; ; try++ {
		udp, err := lc.ListenPacket(context.Background(), "udp", a.String())
		if err != nil {
			return nil, nil, listenError(flag, "udp", a, err)
		}
		got := addrPort(udp.LocalAddr())
		tcp, err := net.Listen("tcp", got.String())
		if err == nil {
			return udp, tcp, nil
		}
		_ = udp.Close()
		if a.Port() != 0 || try == tries {
			return nil, nil, listenError(flag, "tcp", got, err)
		}
	}
}

// listenError says which flag, which address and what to do.
func listenError(flag, network string, a netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s %s: the %s port is in use: end the program that has it, or give another address", flag, a, network)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s %s: this host does not have the address: give one of its own", flag, a)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s %s: no permission for the %s port: give one of 1024 or above", flag, a, network)
	}
	return fmt.Errorf("%s %s: %w", flag, a, err)
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
