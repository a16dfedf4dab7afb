package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ListenUDP opens n sockets of one address for ServeUDP, among which the kernel shares the
// clients out (SO_REUSEPORT), so that each core can have its own. The port must be nobody
// else's: of two servers that share one in silence each would get half of the clients.
func ListenUDP(ctx context.Context, addr netip.AddrPort, n int) (conns []net.PacketConn, err error) {
	if n < 2 {
		pc, err := listenUDP(ctx, addr)
		if err != nil {
			return nil, err
		}
		return []net.PacketConn{pc}, nil
	}
	probe, err := listenUDP(ctx, addr)
	if err != nil {
		return nil, err
	}
	addr = addrPortOf(probe.LocalAddr())
	if err := probe.Close(); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if err != nil {
			return err
		}
		return failed
	}}
	for range n {
		pc, err := lc.ListenPacket(ctx, networkOf(addr), addr.String())
		if err != nil {
			for _, pc := range conns {
				_ = pc.Close()
			}
			return nil, fmt.Errorf("open a shared socket: %w", err)
		}
		conns = append(conns, pc)
	}
	return conns, nil
}
