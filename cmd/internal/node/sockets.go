package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"

	"epcscf/relay"
)

// sockets are all that a node listens on, opened together or not at all.
type sockets struct {
	https            []net.Listener
	turnUDP          []net.PacketConn
	turnTCP, turnTLS []net.Listener
	admin            net.Listener
	coreUDP          net.PacketConn
	coreTCP          net.Listener
	coreTLS          []net.Listener // one, or none
	waf              []net.Listener // one, or none
	wafKeys          []net.Listener // one, or none
	hearing          []net.Listener // one, or none

	all []io.Closer
}

// Addresses are those of a node's sockets, with the ports that the kernel chose.
type Addresses struct {
	Web                       []netip.AddrPort
	TURNUDP, TURNTCP, TURNTLS []netip.AddrPort
	Admin, Core               netip.AddrPort
	WAF                       []netip.AddrPort // one, or none
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
	if s.https, err = s.listenTCP(cfg.Listen...); err != nil {
		return err
	}
	if r := cfg.Relay; r != nil {
		for _, a := range r.UDP {
			conns, err := relay.ListenUDP(context.Background(), a.AddrPort, runtime.NumCPU())
			if err != nil {
				return listenError("udp", a, err)
			}
			for _, pc := range conns {
				s.turnUDP, s.all = append(s.turnUDP, pc), append(s.all, pc)
			}
		}
		if s.turnTCP, err = s.listenTCP(r.TCP...); err != nil {
			return err
		}
		if s.turnTLS, err = s.listenTCP(r.TLS...); err != nil {
			return err
		}
	}
	admin, err := s.listenTCP(cfg.Admin)
	if err != nil {
		return err
	}
	s.admin = admin[0]
	if !cfg.Core.IsValid() { // of a relay by itself
		return nil
	}
	if s.coreUDP, s.coreTCP, err = listenBoth(cfg.Core); err != nil {
		return err
	}
	s.all = append(s.all, s.coreUDP, s.coreTCP)
	if cfg.WAF != nil {
		if s.waf, err = s.listenTCP(cfg.WAF.Listen); err != nil {
			return err
		}
		if i := cfg.WAF.Interface; i != nil && i.Listen.IsValid() {
			if s.wafKeys, err = s.listenTCP(i.Listen); err != nil {
				return err
			}
		}
	}
	if cfg.Hearing != nil {
		if s.hearing, err = s.listenTCP(cfg.Hearing.Listen); err != nil {
			return err
		}
	}
	if cfg.CoreTLS != nil {
		s.coreTLS, err = s.listenTCP(cfg.CoreTLS.Listen)
	}
	return err
}

func (s *sockets) close() {
	if s == nil { // one could not be opened
		return
	}
	for _, c := range s.all {
		_ = c.Close()
	}
}

func (s *sockets) addresses() Addresses {
	at := Addresses{
		Web: listening(s.https), TURNTCP: listening(s.turnTCP), TURNTLS: listening(s.turnTLS), TURNUDP: bound(s.turnUDP),
		Admin: addrPort(s.admin.Addr()), WAF: listening(s.waf),
	}
	if s.coreUDP != nil {
		at.Core = addrPort(s.coreUDP.LocalAddr())
	}
	return at
}

func listening(all []net.Listener) (at []netip.AddrPort) {
	for _, ln := range all {
		at = append(at, addrPort(ln.Addr()))
	}
	return at
}

func bound(all []net.PacketConn) (at []netip.AddrPort) {
	for _, pc := range all {
		at = append(at, addrPort(pc.LocalAddr()))
	}
	return slices.Compact(at) // several sockets may share one
}

// unopened are addresses as they are asked for.
func unopened(all []Address) (at []netip.AddrPort) {
	for _, a := range all {
		at = append(at, a.AddrPort)
	}
	return at
}

func (s *sockets) listenTCP(at ...Address) (all []net.Listener, err error) {
	for _, a := range at {
		ln, err := net.Listen(network("tcp", a), a.String())
		if err != nil {
			return nil, listenError("tcp", a, err)
		}
		all, s.all = append(all, ln), append(s.all, ln)
	}
	return all, nil
}

func listenUDP(a Address) (net.PacketConn, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), network("udp", a), a.String())
	if err != nil {
		return nil, listenError("udp", a, err)
	}
	return pc, nil
}

// network keeps the families apart, so that 0.0.0.0 and [::] may both be given.
func network(transport string, a Address) string {
	if a.Addr().Is4() {
		return transport + "4"
	}
	return transport + "6"
}

// listenBoth opens one port on UDP and TCP. For port 0 the kernel chooses a UDP port
// whose TCP twin may be taken: then it chooses again.
func listenBoth(a Address) (net.PacketConn, net.Listener, error) {
	const tries = 16
	for try := 1; ; try++ {
		udp, err := listenUDP(a)
		if err != nil {
			return nil, nil, err
		}
		got := Address{AddrPort: addrPort(udp.LocalAddr()), From: a.From}
		tcp, err := net.Listen(network("tcp", got), got.String())
		if err == nil {
			return udp, tcp, nil
		}
		_ = udp.Close()
		if a.Port() != 0 || try == tries {
			return nil, nil, listenError("tcp", got, err)
		}
	}
}

// listenError says which flag or key, which address and what to do.
func listenError(network string, a Address, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s %s: the %s port is in use: end the program that has it, or give another address", a.From, a, network)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s %s: this host does not have the address: give one of its own", a.From, a)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s %s: no permission for the %s port: give one of 1024 or above", a.From, a, network)
	}
	return fmt.Errorf("%s %s: %w", a.From, a, err)
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
