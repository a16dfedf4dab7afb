package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ServeUDP answers clients on pc until Close and then returns nil. It may run on several
// sockets, also of one address (SO_REUSEPORT, ListenUDP): they share all allocations. pc is
// ServeUDP's from the call on: on Linux a *net.UDPConn is closed at once, and its socket
// goes on in the hands of a carrier.
func (s *Server) ServeUDP(pc net.PacketConn) error {
	if !s.begin(pc) {
		return nil
	}
	defer s.finish(pc)

	server := addrPortOf(pc.LocalAddr())
	if !server.IsValid() {
		return fmt.Errorf("relay: listener %v has no IP address and port", pc.LocalAddr())
	}
	c, err := newCarrier(s, pc)
	if err != nil {
		return err
	}
	s.denyPeer(server)
	s.log.Info("relay: serving", "transport", UDP, "addr", server)
	if c != nil {
		return s.carry(c)
	}
	return s.readAll(socketOf(pc), server)
}

// readAll answers clients on a socket that no carrier can have.
func (s *Server) readAll(sock socket, server netip.AddrPort) error {
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
		w.udp = udpClient{sock: sock, addr: from}
		w.handle(buf[:n:n], FiveTuple{UDP, from, server}, &w.udp)
	}
}

// carry has a carrier work until Close.
func (s *Server) carry(c *carrier) error {
	if !s.begin(c) {
		c.free()
		return nil
	}
	s.mu.Lock()
	s.carriers[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.carriers, c)
		var heir *carrier
		for o := range s.carriers {
			if o.server == c.server {
				heir = o
			}
		}
		closed := s.closed
		s.mu.Unlock()
		if !closed {
			c.bequeath(heir)
		}
		c.free()
		s.finish(c)
	}()
	return c.run()
}
