package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// Flow is one WebSocket connection of a WIC (RFC 5626 §3.2). It is a sip.Connection, so
// sipgo's transactions write to it.
//
// An idle flow has no goroutine and one timer: it is parked, and the poller starts a reader
// when something comes (flowread.go). One goroutine writes, and only while there is
// something to write.
type Flow struct {
	noRef

	id     uint64
	token  FlowToken
	remote string
	origin string
	since  time.Time
	p      *Proxy
	ws     *websocket.Conn
	br     *bufio.Reader // what ws reads from
	done   chan struct{} // closed when the flow has ended and its goroutines with it

	sawRegister atomic.Bool

	// The reader's own.
	bucket  bucket
	reading bool // within a message
	left    bool // the peer closed with a close frame, of its own accord
	polled  bool // the poller knows the socket

	dialogs flowDialogs // guarded by dialogTable.mu

	mu          sync.Mutex // guards what follows
	parked      bool       // no reader runs: the poller, the alarm or the end of the flow starts one
	alone       bool       // the poller cannot help: the reader waits itself
	heard       time.Time  // when the last message or pong came; before the first REGISTER, when the flow began
	endBy       time.Time  // for the peer's close frame, when ours has been sent
	nextPing    time.Time
	alarm       *time.Timer
	queue       []outgoing
	writing     bool        // a writer runs
	ending      *closeFrame // no more is queued; the writer sends it last
	closed      bool        // the socket is closed
	reason      string      // why, the first cause
	side        sync.WaitGroup
	regs        []*Registration
	pending     int            // requests without an answer
	registering []*registering // of these
	last        *replayed      // the last answer with a credential
}

type outgoing struct {
	kind int
	data []byte
}

type closeFrame struct {
	code int
	text string
}

var errQueueFull = errors.New("flow: send queue is full")

var _ sip.Connection = (*Flow)(nil)

func (p *Proxy) newFlow(ws *websocket.Conn, br *bufio.Reader, remote, origin string) *Flow {
	now := time.Now()
	f := &Flow{p: p, ws: ws, br: br, remote: remote, origin: origin, since: p.cfg.Now(), heard: now, done: make(chan struct{})}
	ws.SetReadLimit(p.cfg.Limits.MessageSize)
	p.flows.add(f, p.tokens.seal)
	p.metrics.flows.Inc()
	f.mu.Lock()
	defer f.mu.Unlock()
	// Spread over the interval, so that flows that came together do not ping together.
	first := p.cfg.Limits.Ping/2 + rand.N(p.cfg.Limits.Ping/2+1) //nolint:gosec // G404: spreads load, guards nothing
	f.nextPing = now.Add(first)
	f.alarm = time.AfterFunc(min(first, p.cfg.Limits.Register), f.ring)
	return f
}

// discard ends a flow whose reader never started.
func (f *Flow) discard() {
	f.abort(closedShutdown)
	f.finish(closedShutdown)
}

// message takes one WebSocket message: a keep-alive, or one SIP message (RFC 7118 §5).
func (f *Flow) message(kind int, data []byte) {
	switch {
	case string(data) == "\r\n\r\n": // RFC 5626 §3.5.1: a ping of two CRLF gets a pong of one
		_ = f.enqueue(outgoing{websocket.TextMessage, []byte("\r\n")})
	case string(data) == "\r\n":
	case kind == websocket.TextMessage && !utf8.Valid(data): // RFC 6455 §8.1
		f.close(websocket.CloseInvalidFramePayloadData, "text message is not UTF-8: send binary", closedUTF8)
	default:
		f.p.receive(f, data)
	}
}

// lastWord sends a close frame where the connection is about to end.
func (f *Flow) lastWord(code int, text string) {
	_ = f.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}

// WriteMsg implements sip.Connection. It never blocks, since sipgo calls it with the lock
// of a transaction held.
func (f *Flow) WriteMsg(m sip.Message) error { return f.enqueue(outgoingOf(encode(m))) }

// send sends a message that was scanned. It never blocks.
func (f *Flow) send(m *sipext.Message) error { return f.enqueue(outgoingOf(m.Bytes())) }

func outgoingOf(data []byte) outgoing {
	// RFC 7118 §4.2: a message with an octet that is not UTF-8 must be sent binary.
	if !utf8.Valid(data) {
		return outgoing{websocket.BinaryMessage, data}
	}
	return outgoing{websocket.TextMessage, data}
}

// enqueue hands o to the writer. A full queue ends the flow: its peer does not read, and
// SIP has nothing that may be left out.
func (f *Flow) enqueue(o outgoing) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed, f.ending != nil:
		return net.ErrClosed
	case len(f.queue) >= f.p.cfg.Limits.Queue:
		f.abortLocked(closedSlow)
		return errQueueFull
	}
	f.queue = append(f.queue, o)
	f.wakeLocked()
	return nil
}

func (f *Flow) wakeLocked() {
	if !f.writing {
		f.writing = true
		f.side.Go(f.writeLoop)
	}
}

// writeLoop is the only writer of messages. It returns when the queue is empty.
func (f *Flow) writeLoop() {
	for {
		f.mu.Lock()
		if len(f.queue) == 0 || f.closed {
			f.writing, f.queue = false, nil
			end := f.ending
			f.mu.Unlock()
			if end != nil {
				f.lastWord(end.code, end.text)
				f.endWithin(2 * time.Second) // unless the peer's close frame comes earlier
			}
			return
		}
		o := f.queue[0]
		f.queue = f.queue[1:]
		f.mu.Unlock()
		_ = f.ws.SetWriteDeadline(time.Now().Add(f.p.cfg.Limits.Write))
		if err := f.ws.WriteMessage(o.kind, o.data); err != nil {
			f.abort(closedWrite)
			return
		}
	}
}

// close sends what is queued, then a close frame, and lets the peer answer it.
func (f *Flow) close(code int, text, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.ending != nil {
		return
	}
	f.ending, f.reason = &closeFrame{code, text}, reason
	f.wakeLocked()
}

func (f *Flow) isEnding() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ending != nil || f.closed
}

// abort cuts the connection.
func (f *Flow) abort(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.abortLocked(reason)
}

func (f *Flow) abortLocked(reason string) {
	if f.closed {
		return
	}
	f.closed = true
	if f.reason == "" {
		f.reason = reason
	}
	_ = f.socket().Close()
	f.wakeReaderLocked() // which finds it closed
}

// socket is the connection under TLS. It is what abort closes: tls.Conn.Close sends a
// close_notify, and may wait for a peer that does not read.
func (f *Flow) socket() net.Conn {
	conn := f.ws.NetConn()
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	return conn
}

// finish runs once, when the reader has ended.
func (f *Flow) finish(reason string) {
	f.abort(reason)
	f.alarm.Stop()
	f.side.Wait()
	f.p.flows.remove(f.id)
	f.mu.Lock()
	reason = f.reason
	f.mu.Unlock()
	f.p.flowLost(f)
	f.p.dialogsLost(f, f.left)
	f.p.sources.leave(addressOf(f.remote))
	f.p.metrics.flows.Dec()
	f.p.metrics.closed.WithLabelValues(reason).Inc()
	f.p.log.Info("flow ended", "flow", f.id, "reason", reason, "remote", f.remote)
	close(f.done)
}

// LocalAddr implements sip.Connection.
func (f *Flow) LocalAddr() net.Addr { return f.ws.LocalAddr() }

// Close implements sip.Connection; a transaction does not end a flow.
func (f *Flow) Close() error { return nil }

// noRef is the part of sip.Connection that counts references. Our connections have owners.
type noRef struct{}

// Ref implements sip.Connection.
func (noRef) Ref(int) int { return 1 }

// TryClose implements sip.Connection.
func (noRef) TryClose() (int, error) { return 1, nil }
