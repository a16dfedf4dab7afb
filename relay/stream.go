package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// firstAllocation is how long a stream may live without an allocation: a browser
	// needs two round trips.
	firstAllocation = 10 * time.Second
	// writeTimeout is how long a client may refuse to read before its stream is cut. Its
	// relayed socket's buffer fills meanwhile, and the kernel drops the peer's datagrams.
	writeTimeout = 10 * time.Second
)

// stream is the clientConn of a TCP or TLS five-tuple. Its deadlines are real time, since
// the kernel keeps them.
type stream struct {
	s    *Server
	conn net.Conn

	writing sync.Mutex // one writer at a time

	mu sync.Mutex // guards the fields below
	// trusted says that an allocation lives. A stream without one is counted in
	// Server.pending and has a deadline.
	trusted bool
	gone    bool // the reader has ended
}

func (c *stream) write(b []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // a closed stream says so below
	_, err := c.conn.Write(b)
	if err != nil { // half a message may have left: nothing can follow it
		_ = c.conn.Close()
	}
	return err
}

func (c *stream) retain() clientConn { return c }

// trust takes the deadline away. The allocation may end at the same moment, by a
// revocation: then release has been called, or is about to be, and its deadline stands.
func (c *stream) trust(a *allocation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.ended.Load() {
		return
	}
	c.setTrustedLocked(true)
	_ = c.conn.SetReadDeadline(time.Time{})
}

// release gives the client time for another allocation, and then the stream ends: it lives
// no longer than what it carries.
func (c *stream) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setTrustedLocked(false)
	_ = c.conn.SetReadDeadline(time.Now().Add(firstAllocation))
}

func (c *stream) setTrustedLocked(trusted bool) {
	if c.gone || c.trusted == trusted {
		return
	}
	c.trusted = trusted
	if trusted {
		c.s.pending.Add(-1)
	} else {
		c.s.pending.Add(1)
	}
}

// leave takes the stream out of the count of pending ones.
func (c *stream) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.trusted {
		c.s.pending.Add(-1)
	}
	c.gone = true
}

// limit is the longest message that the client may send now.
func (c *stream) limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trusted {
		return longestFrame
	}
	return firstFrame
}

// serveStream reads messages from conn until it ends. conn has a read deadline already.
func (s *Server) serveStream(conn net.Conn, transport Transport) {
	five := FiveTuple{transport, addrPortOf(conn.RemoteAddr()), addrPortOf(conn.LocalAddr())}
	c := &stream{s: s, conn: conn}
	defer c.leave()
	if !five.Client.IsValid() || !five.Server.IsValid() {
		s.log.Warn("relay: stream without IP addresses", "addr", conn.RemoteAddr())
		return
	}
	err := c.readAll(five)
	s.metrics.streamEnded(err)
	s.log.Debug("relay: stream ended", "flow", five.Client, "transport", transport, "err", err)

	// A client that has gone can use its allocation no more.
	if a := s.flows.load(five); a != nil {
		s.end(a, EndDisconnected)
	}
}

func (c *stream) readAll(five FiveTuple) error {
	w := newWorker(c.s)
	in := newFrames(c.conn)
	for {
		m, err := in.next(c.limit())
		if err != nil {
			return err
		}
		w.handle(m, five, c)
	}
}

// streamEnded counts why a stream was cut; one that the client closed is none.
func (m *metrics) streamEnded(err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		m.drop(dropTimeout)
	case errors.Is(err, errFraming), errors.Is(err, io.ErrUnexpectedEOF):
		m.drop(dropMalformed)
	}
}
