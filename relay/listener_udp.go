package relay

import (
	"errors"
	"fmt"
	"net"
)

// ServeUDP answers clients on pc until Close and then returns nil. It may run on several
// sockets, also of one address (SO_REUSEPORT): they share all allocations. pc is closed
// when it returns.
func (s *Server) ServeUDP(pc net.PacketConn) error {
	if !s.begin(pc) {
		return nil
	}
	defer s.finish(pc)

	sock := socketOf(pc)
	server := addrPortOf(pc.LocalAddr())
	if !server.IsValid() {
		return fmt.Errorf("relay: listener %v has no IP address and port", pc.LocalAddr())
	}
	s.denyPeer(server)
	s.log.Info("relay: serving", "transport", UDP, "addr", server)

	w := newWorker(s)
	buf := make([]byte, largeDatagram)
	for {
		n, from, err := sock.ReadFromUDPAddrPort(buf)
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("relay: read from %s: %w", server, err)
		}
		from = unmapped(from)
		w.udp = udpClient{sock, from}
		w.handle(buf[:n:n], FiveTuple{UDP, from, server}, &w.udp)
	}
}
