package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// tcpPeer is one TCP connection of the core's side.
type tcpPeer struct {
	noRef
	conn net.Conn
	addr netip.AddrPort

	mu sync.Mutex // held while a message is written
}

var _ sip.Connection = (*tcpPeer)(nil)

// LocalAddr implements sip.Connection.
func (c *tcpPeer) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// Close implements sip.Connection; connections outlive transactions.
func (c *tcpPeer) Close() error { return nil }

// WriteMsg implements sip.Connection.
func (c *tcpPeer) WriteMsg(m sip.Message) error { return c.write(encode(m)) }

func (c *tcpPeer) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(coreWrite))
	if _, err := c.conn.Write(b); err != nil {
		_ = c.conn.Close() // half a message may be out: the stream is of no more use
		return err
	}
	return nil
}

func (l *coreLink) accept(tcp net.Listener) error {
	for {
		conn, err := tcp.Accept()
		if err != nil {
			return err
		}
		if _, err := l.adopt(conn, ""); err != nil {
			_ = conn.Close()
		}
	}
}

// adopt enters a connection and starts its reader; key is the address it was dialed at.
func (l *coreLink) adopt(conn net.Conn, key string) (*tcpPeer, error) {
	addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	c := &tcpPeer{conn: conn, addr: addr}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	if key != "" {
		l.dialed[key] = c
	}
	l.mu.Unlock()
	if !l.p.start(func() { l.readTCP(c, key) }) {
		l.forget(c, key)
		return nil, errClosed
	}
	return c, nil
}

func (l *coreLink) forget(c *tcpPeer, key string) {
	_ = c.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if l.dialed[key] == c {
		delete(l.dialed, key)
	}
}

// dial returns the open connection to addr, or opens one.
func (l *coreLink) dial(addr string) (*tcpPeer, error) {
	l.mu.Lock()
	c := l.dialed[addr]
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(l.p.ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if c, err = l.adopt(conn, addr); err != nil {
		_ = conn.Close()
	}
	return c, err
}

// readTCP reads messages until the connection ends or its framing is lost.
func (l *coreLink) readTCP(c *tcpPeer, key string) {
	defer l.forget(c, key)
	r := bufio.NewReaderSize(c.conn, 8<<10)
	for {
		msg, err := readFramed(r, func() { _ = c.write([]byte("\r\n")) })
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				l.p.log.Info("core connection ended", "remote", c.addr, "err", err)
			}
			return
		}
		l.take(msg, c, "TCP", c.addr)
	}
}

var errFraming = errors.New("core connection: message without end")

// readFramed reads one message from a stream by its Content-Length (RFC 3261 §18.3). pong
// answers the double CRLF of RFC 5626 §3.5.1.
func readFramed(r *bufio.Reader, pong func()) ([]byte, error) {
	if err := skipKeepAlives(r, pong); err != nil {
		return nil, err
	}
	var msg bytes.Buffer
	length, partial := -1, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		msg.Write(line)
		if msg.Len() > maxCoreMessage {
			return nil, errFraming
		}
		whole := err == nil && !partial
		partial = err != nil // a long line comes in pieces
		if !whole {
			continue
		}
		if string(line) == "\r\n" {
			break
		}
		if n, ok := contentLength(line); ok {
			length = n
		}
	}
	if length < 0 || length > maxCoreMessage-msg.Len() {
		return nil, fmt.Errorf("%w: Content-Length %d", errFraming, length)
	}
	if _, err := io.CopyN(&msg, r, int64(length)); err != nil {
		return nil, err
	}
	return msg.Bytes(), nil
}

func skipKeepAlives(r *bufio.Reader, pong func()) error {
	for crlf := 0; ; {
		b, err := r.Peek(2)
		if err != nil {
			return err
		}
		if string(b) != "\r\n" {
			return nil
		}
		_, _ = r.Discard(2)
		if crlf++; crlf == 2 {
			pong()
			crlf = 0
		}
	}
}

func contentLength(line []byte) (int, bool) {
	name, value, ok := strings.Cut(string(line), ":")
	name = strings.Trim(name, " \t")
	if !ok || !strings.EqualFold(name, "Content-Length") && !strings.EqualFold(name, "l") {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.Trim(value, " \t\r\n"), 10, 31)
	if err != nil {
		return -1, true
	}
	return int(n), true
}

// isKeepAlive reports whether a datagram is nothing but CRLFs or NULs.
func isKeepAlive(b []byte) bool { return len(bytes.Trim(b, "\r\n\x00")) == 0 }
