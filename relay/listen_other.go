//go:build !linux

package relay

import (
	"context"
	"net"
	"net/netip"
)

// ListenUDP opens one socket for ServeUDP: where there is no SO_REUSEPORT as Linux has it,
// one must do.
func ListenUDP(ctx context.Context, addr netip.AddrPort, _ int) ([]net.PacketConn, error) {
	pc, err := listenUDP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return []net.PacketConn{pc}, nil
}
