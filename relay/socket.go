package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// socketBuffer is the receive buffer of a socket. At 4 MiB 60,000 packets a second passed
// without loss where the default lost up to a quarter; the kernel clips it to
// net.core.rmem_max.
const socketBuffer = 4 << 20

// socket is a packet socket that speaks netip and so needs no memory for addresses.
// *net.UDPConn is one.
type socket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// socketOf returns pc itself where it is a socket, or an adapter.
func socketOf(pc net.PacketConn) socket {
	if b, ok := pc.(interface{ SetReadBuffer(bytes int) error }); ok {
		_ = b.SetReadBuffer(socketBuffer) // a smaller buffer still works
	}
	if s, ok := pc.(socket); ok {
		return s
	}
	return packetSocket{pc}
}

// packetSocket adapts any net.PacketConn, at the price of an address on the heap.
type packetSocket struct{ net.PacketConn }

func (p packetSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := p.ReadFrom(b)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	return n, addrPortOf(from), nil
}

func (p packetSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return p.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

// addrPortOf returns the address and port of a; invalid where it has none.
func addrPortOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	case nil:
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return unmapped(ap)
}

// unmapped gives an IPv4 address its own form, since a dual-stack socket maps it to IPv6.
func unmapped(ap netip.AddrPort) netip.AddrPort {
	if ap.Addr().Is4In6() {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return ap
}

// listenUDP is the default of Config.ListenPacket.
func listenUDP(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	pc, err := new(net.ListenConfig).ListenPacket(ctx, networkOf(addr), addr.String())
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	return pc, nil
}

// networkOf keeps the families apart, so that 0.0.0.0 and [::] may both be served.
func networkOf(addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return "udp6"
	}
	return "udp4"
}
