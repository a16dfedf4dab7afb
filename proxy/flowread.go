package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"epcscf/internal/tlsbuf"
)

// linger is how long a reader waits for the next message before it parks the flow. What
// follows a message follows soon: the second REGISTER of a challenge, the ACK of a call.
const linger = time.Second

// longAgo as a deadline lets a read return what is buffered, and wait for nothing.
var longAgo = time.Unix(1, 0)

// run starts reading. Close waits for the flow, which may be parked, until finish.
func (f *Flow) run() {
	f.p.work.Add(1) // within a goroutine of p.start, so Close cannot have ceased to wait
	f.p.read(f)
}

// serve reads until nothing has come for a while, and then parks the flow, or until the
// connection ends.
func (f *Flow) serve() {
	for wait := linger; ; {
		err := f.await(wait)
		switch {
		case err == nil:
			wait, err = f.next()
		case isTimeout(err) && !f.isLate():
			if f.park() {
				return
			}
			err = nil
		}
		if err != nil {
			f.finish(f.readFailure(err))
			f.p.work.Done()
			return
		}
	}
}

// await waits for the first octet of a frame. It times out at the end of an idle flow's
// time, and where the flow can be parked, after wait. What TLS has of a record that is not
// whole stays there: a timeout is not the end of a tls.Conn.
func (f *Flow) await(wait time.Duration) error {
	if f.br.Buffered() > 0 {
		return nil
	}
	f.reading = false
	f.mu.Lock()
	by := f.idleUntilLocked()
	if !f.alone && wait == 0 {
		by = longAgo
	} else if soon := time.Now().Add(wait); !f.alone && soon.Before(by) {
		by = soon
	}
	_ = f.ws.SetReadDeadline(by) // with the lock, so that endWithin's stands after it
	f.mu.Unlock()
	_, err := f.br.Peek(1)
	return err
}

// next reads a frame of control or a message, and says how long to wait for more.
func (f *Flow) next() (wait time.Duration, err error) {
	f.reading = true
	f.mu.Lock()
	// Before the first REGISTER the time for that goes on.
	by := f.idleUntilLocked()
	if f.sawRegister.Load() && f.ending == nil {
		by = time.Now().Add(f.p.cfg.Limits.Read)
	}
	_ = f.ws.SetReadDeadline(by)
	f.mu.Unlock()

	control, err := f.readControl()
	if err != nil {
		return 0, err
	}
	if !control {
		wait, err = linger, f.readMessage()
	}
	if err == nil {
		f.extend()
	}
	return wait, err
}

// readControl takes a ping or a pong that comes next and reports whether there was one. Only
// a message is left to gorilla's NextReader, which after a pong would wait for it. So are
// frames that are not as they must be, for it to refuse them, and those within a message.
func (f *Flow) readControl() (bool, error) {
	const (
		final  = 0x80
		masked = 0x80
	)
	head, err := f.br.Peek(2) // RFC 6455 §5.2
	if err != nil {
		return false, err
	}
	n := int(head[1] &^ masked)
	ping := head[0] == final|websocket.PingMessage
	if !ping && head[0] != final|websocket.PongMessage || head[1]&masked == 0 || n > 125 { // §5.5: 125 at most
		return false, nil
	}
	frame, err := f.br.Peek(6 + n)
	if err != nil {
		return false, err
	}
	key, text := frame[2:6], bytes.Clone(frame[6:])
	for i := range text {
		text[i] ^= key[i%4]
	}
	if _, err := f.br.Discard(len(frame)); err != nil || !ping {
		return true, err
	}
	return true, f.ws.PingHandler()(string(text))
}

var readBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readMessage reads a message and hands it on, unless the flow is ending.
func (f *Flow) readMessage() error {
	kind, r, err := f.ws.NextReader()
	if err != nil {
		return err
	}
	buf := readBuffers.Get().(*bytes.Buffer)
	defer readBuffers.Put(buf)
	buf.Reset()
	if _, err := io.Copy(buf, r); err != nil {
		return err
	}
	if !f.isEnding() {
		f.message(kind, buf.Bytes())
	}
	return nil
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

func (f *Flow) readFailure(err error) string {
	switch timeout := isTimeout(err); {
	case errors.Is(err, websocket.ErrReadLimit): // gorilla has sent 1009
		return closedOversize
	case timeout && !f.sawRegister.Load():
		f.lastWord(websocket.ClosePolicyViolation, "no REGISTER in time")
		return closedUnregister
	case timeout && f.reading:
		return closedSlowWrite
	case timeout:
		return closedIdle
	}
	f.left = !f.isEnding() && websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived)
	return closedByPeer
}

// idleUntilLocked is when a flow ends that nothing more is heard of.
func (f *Flow) idleUntilLocked() time.Time {
	switch l := &f.p.cfg.Limits; {
	case !f.endBy.IsZero():
		return f.endBy
	case !f.sawRegister.Load():
		return f.heard.Add(l.Register)
	default:
		// Two pings may get lost in a mobile network's hand-over.
		return f.heard.Add(5 * l.Ping / 2)
	}
}

// isLate reports whether an idle flow's time is up.
func (f *Flow) isLate() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed || !time.Now().Before(f.idleUntilLocked())
}

// extend gives an idle flow its whole time again, but not before the first REGISTER: until
// then a peer has a fixed time, whatever it sends.
func (f *Flow) extend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sawRegister.Load() && f.ending == nil {
		f.heard = time.Now()
	}
}

// endWithin ends the flow after d, unless its peer does so earlier.
func (f *Flow) endWithin(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.endBy = time.Now().Add(d)
	_ = f.ws.SetReadDeadline(f.endBy)
	f.setAlarmLocked()
}

// park leaves the flow to the poller and the alarm; the reader must return. It reports
// false where the flow has ended, or where nobody but the reader can wait.
func (f *Flow) park() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	if c, ok := f.ws.NetConn().(*tls.Conn); ok {
		tlsbuf.Free(c)
	}
	conn, ok := f.socket().(syscall.Conn)
	if !ok || f.p.poller == nil || f.p.poller.arm(conn, f.id, f.polled) != nil {
		f.alone = true
		return false
	}
	f.parked, f.polled = true, true
	if f.idleUntilLocked().Before(f.nextPing) {
		f.setAlarmLocked()
	}
	return true
}

// wakeReader starts the reader of a parked flow.
func (f *Flow) wakeReader() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeReaderLocked()
}

func (f *Flow) wakeReaderLocked() {
	if f.parked {
		f.parked = false
		f.p.read(f)
	}
}

// begin counts a side goroutine in, unless the flow has ended.
func (f *Flow) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.side.Add(1)
	return true
}

// ring is the alarm: it sends the ping that is due, and wakes the reader of a parked flow
// whose time is up.
func (f *Flow) ring() {
	if !f.begin() {
		return
	}
	defer f.side.Done()
	f.mu.Lock()
	now, ping := time.Now(), false
	if f.parked && !now.Before(f.idleUntilLocked()) {
		f.wakeReaderLocked()
	} else if ping = f.ending == nil && !now.Before(f.nextPing); !now.Before(f.nextPing) {
		f.nextPing = now.Add(f.p.cfg.Limits.Ping)
	}
	f.mu.Unlock()
	// Pings keep NATs and balancers from forgetting the connection; page script cannot send
	// them (RFC 7118 §6). WriteControl may be called beside the writer.
	if ping {
		if err := f.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(f.p.cfg.Limits.Write)); err != nil {
			f.abort(closedWrite)
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setAlarmLocked()
}

// setAlarmLocked lets the alarm ring at the next ping, or when a parked flow's time is up.
func (f *Flow) setAlarmLocked() {
	next := f.nextPing
	if end := f.idleUntilLocked(); f.parked && end.Before(next) {
		next = end
	}
	f.alarm.Reset(time.Until(next))
}
