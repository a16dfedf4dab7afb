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
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// tcpPeer is one TCP or TLS connection of the core's side.
type tcpPeer struct {
	noRef
	conn      net.Conn
	addr      netip.AddrPort
	transport string        // "TCP" or "TLS", as in Via
	key       hopAddr       // it was dialed at; zero: the core has dialed us
	gone      chan struct{} // closed when nothing more will come

	mu     sync.Mutex // held while a message is written
	broken atomic.Bool
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
		c.broken.Store(true)
		_ = c.conn.Close() // half a message may be out: the stream is of no more use
		return err
	}
	return nil
}

// maxCoreConns bounds the connections that the core's side may open to us.
const maxCoreConns = 1024

func (l *coreLink) accept(ln net.Listener, transport string) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		l.mu.Lock()
		full := len(l.conns) >= maxCoreConns
		l.mu.Unlock()
		if full || l.adopt(conn, transport, hopAddr{}) == nil {
			_ = conn.Close()
		}
	}
}

// adopt enters a connection and starts its reader; key is where it was dialed. It returns
// nil after Close.
func (l *coreLink) adopt(conn net.Conn, transport string, key hopAddr) *tcpPeer {
	addr, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	c := &tcpPeer{conn: conn, addr: addr, transport: transport, key: key, gone: make(chan struct{})}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	if key.addr.IsValid() {
		l.dialed[key] = c
	}
	l.mu.Unlock()
	if !l.p.start(func() { l.read(c) }) {
		l.forget(c)
		return nil
	}
	return c
}

func (l *coreLink) forget(c *tcpPeer) {
	_ = c.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if l.dialed[c.key] == c {
		delete(l.dialed, c.key)
	}
	close(c.gone)
}

// dialing is an attempt to connect, which all who need the connection wait for.
type dialing struct {
	done chan struct{} // closed when conn and err are set
	conn *tcpPeer
	err  error
}

// dial returns the open connection to t, or opens one.
func (l *coreLink) dial(t hopAddr) (*tcpPeer, error) {
	l.mu.Lock()
	if c := l.dialed[t]; c != nil && !c.broken.Load() {
		l.mu.Unlock()
		return c, nil
	}
	d := l.dialing[t]
	if d != nil {
		l.mu.Unlock()
		<-d.done
		return d.conn, d.err
	}
	d = &dialing{done: make(chan struct{})}
	l.dialing[t] = d
	l.mu.Unlock()

	d.conn, d.err = l.connect(t)
	l.mu.Lock()
	delete(l.dialing, t)
	l.mu.Unlock()
	close(d.done)
	return d.conn, d.err
}

// connect opens a connection in dialTimeout at most, the handshake of TLS included.
func (l *coreLink) connect(t hopAddr) (*tcpPeer, error) {
	ctx, cancel := context.WithTimeout(l.p.ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.addr.String())
	if err != nil {
		return nil, err
	}
	transport := "TCP"
	if t.transport == "tls" {
		transport = "TLS"
		if conn, err = l.clientTLS(ctx, conn, t.name); err != nil {
			return nil, err
		}
	}
	c := l.adopt(conn, transport, t)
	if c == nil {
		_ = conn.Close()
		return nil, errClosed
	}
	return c, nil
}

// read reads messages until the connection ends or its framing is lost.
func (l *coreLink) read(c *tcpPeer) {
	defer l.forget(c)
	if err := serverHandshake(l.p.ctx, c.conn); err != nil {
		l.p.log.Warn("core connection refused", "remote", c.addr, "err", err)
		return
	}
	r := bufio.NewReaderSize(c.conn, 8<<10)
	for {
		msg, err := readFramed(r, func() { _ = c.write([]byte("\r\n")) })
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				l.p.log.Info("core connection ended", "remote", c.addr, "err", err)
			}
			return
		}
		l.take(msg, c, c.transport, c.addr)
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
