package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// maxAcceptDelay is how long Accept rests where the process has no descriptors left.
const maxAcceptDelay = time.Second

// ServeTCP answers clients on ln until Close and then returns nil. It may run on several
// listeners. ln is closed when it returns.
func (s *Server) ServeTCP(ln net.Listener) error {
	return s.serveListener(ln, TCP, func(_ context.Context, c net.Conn) (net.Conn, error) { return c, nil })
}

// secureFunc turns an accepted connection into one that carries STUN, or fails.
type secureFunc func(ctx context.Context, c net.Conn) (net.Conn, error)

func (s *Server) serveListener(ln net.Listener, transport Transport, secure secureFunc) error {
	if !s.begin(ln) {
		return nil
	}
	defer s.finish(ln)

	server := addrPortOf(ln.Addr())
	if !server.IsValid() {
		return fmt.Errorf("relay: listener %v has no IP address and port", ln.Addr())
	}
	s.denyPeer(server)
	s.log.Info("relay: serving", "transport", transport, "addr", server)

	delay := 5 * time.Millisecond
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			delay = 5 * time.Millisecond
			s.startStream(c, transport, secure)
		case s.ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default: // as net/http does: descriptors may come free
			s.log.Warn("relay: accept", "addr", server, "err", err)
			select {
			case <-s.ctx.Done():
				return nil
			case <-time.After(delay):
				delay = min(2*delay, maxAcceptDelay)
			}
		}
	}
}

// startStream gives c its own goroutine, within limits.
func (s *Server) startStream(c net.Conn, transport Transport, secure secureFunc) {
	if s.pending.Add(1) > int64(s.cfg.MaxPendingStreams) {
		s.pending.Add(-1)
		s.metrics.drop(dropPending)
		_ = c.Close()
		return
	}
	if !s.begin(c) {
		s.pending.Add(-1)
		return
	}
	go func() {
		defer s.finish(c) // the descriptor is free when the stream ends, not when memory is collected
		_ = c.SetReadDeadline(time.Now().Add(firstAllocation))
		conn, err := secure(s.ctx, c)
		if err != nil {
			s.pending.Add(-1)
			s.metrics.drop(dropHandshake)
			s.log.Debug("relay: handshake", "flow", c.RemoteAddr(), "transport", transport, "err", err)
			return
		}
		s.serveStream(conn, transport)
	}()
}
