package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
)

const (
	opText, opContinuation, opPing, opPong = websocket.TextMessage, 0, websocket.PingMessage, websocket.PongMessage
	final                                  = 0x80
)

// frame is a frame of a client (RFC 6455 §5.2), masked with zeros.
func frame(first byte, payload string) []byte {
	f := []byte{first}
	if n := len(payload); n < 126 {
		f = append(f, 0x80|byte(n))
	} else {
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}

// segments is the TCP connection of a WIC. It can hold back what TLS writes, for the test to
// send it in pieces.
type segments struct {
	net.Conn
	mu   sync.Mutex // guards what follows
	hold bool
	held []byte
}

func (s *segments) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold {
		s.held = append(s.held, p...)
		return len(p), nil
	}
	return s.Conn.Write(p)
}

// records holds back what write writes, and returns it.
func (s *segments) records(write func()) []byte {
	s.mu.Lock()
	s.hold = true
	s.mu.Unlock()
	write()
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.held
	s.hold, s.held = false, nil
	return held
}

// pieceWIC is a WIC that cuts its messages as it likes.
type pieceWIC struct {
	*wic
	tcp  *segments
	flow *Flow // the edge's end
}

func (r *rig) dialPieces(user string) *pieceWIC {
	r.t.Helper()
	w := &pieceWIC{}
	d := dialer()
	d.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		w.tcp = &segments{Conn: c}
		return w.tcp, err
	}
	w.wic = r.dialBy(user, d)
	eventually(r.t, "the flow", func() bool {
		all := r.proxy.flows.all()
		for _, f := range all {
			if f.remote == w.tcp.LocalAddr().String() {
				w.flow = f
			}
		}
		return w.flow != nil
	})
	return w
}

// write writes into one record.
func (w *pieceWIC) write(octets ...[]byte) {
	w.t.Helper()
	var all []byte
	for _, o := range octets {
		all = append(all, o...)
	}
	if _, err := w.ws.NetConn().Write(all); err != nil {
		w.t.Fatal(err)
	}
}

// writeTCP writes into one segment.
func (w *pieceWIC) writeTCP(octets []byte) {
	w.t.Helper()
	if _, err := w.tcp.Conn.Write(octets); err != nil {
		w.t.Fatal(err)
	}
}

func (w *pieceWIC) isParked() bool {
	w.flow.mu.Lock()
	defer w.flow.mu.Unlock()
	return w.flow.parked
}

// park lets the flow be parked: after a pong at once, when the reader has begun to wait.
func (w *pieceWIC) park() {
	w.t.Helper()
	if runtime.GOOS != "linux" {
		w.t.Skip("flows are parked on Linux only")
	}
	w.write(frame(final|opPong, ""))
	eventually(w.t, "the flow parked", w.isParked)
}

func (w *pieceWIC) options() string { return w.request("OPTIONS", "sip:"+testDomain) }

// await receives from c.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not in %v: %s", patience, what)
	}
	return v
}

// answered waits for n answers to OPTIONS.
func (w *pieceWIC) answered(n int) {
	w.t.Helper()
	for range n {
		if res := w.response(sip.OPTIONS); res.StatusCode != 200 {
			w.t.Errorf("OPTIONS got %d, want 200", res.StatusCode)
		}
	}
}

// registeredPieces is a registered flow that nobody reads.
func registeredPieces(t *testing.T, change func(*Config)) (*rig, *pieceWIC) {
	t.Helper()
	core, addr := startStub(t)
	r := newRig(t, addr, change)
	w := r.dialPieces("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	core.accept(r.edge)
	w.response(sip.REGISTER)
	w.park()
	return r, w
}

// TestParkedFlowReads: whatever way a message is cut, a parked flow reads it, all of it, and
// is parked again.
func TestParkedFlowReads(t *testing.T) {
	_, w := registeredPieces(t, func(c *Config) { c.Limits.Rate = -1 })
	for _, tt := range []struct {
		name    string
		send    func()
		answers int
	}{
		{"a message", func() { w.send(w.options()) }, 1},
		{"several frames in a record", func() {
			w.write(frame(final|opText, w.options()), frame(final|opText, w.options()), frame(final|opText, w.options()))
		}, 3},
		{"several records in a segment", func() {
			w.writeTCP(w.tcp.records(func() { w.send(w.options()); w.send(w.options()); w.send(w.options()) }))
		}, 3},
		{"a record and a half, then the rest", func() {
			all := w.tcp.records(func() { w.send(w.options()); w.send(w.options()) })
			w.writeTCP(all[:3*len(all)/4])
			w.answered(1)
			w.writeTCP(all[3*len(all)/4:])
		}, 1},
		{"a frame over several records", func() {
			f := frame(final|opText, w.options())
			w.write(f[:1])
			w.write(f[1:3])
			w.write(f[3:100])
			w.write(f[100:])
		}, 1},
		{"a message over several frames with control between", func() {
			o := w.options()
			w.write(frame(opText, o[:50]), frame(final|opPing, "ping"))
			w.write(frame(opContinuation, o[50:60]), frame(final|opPong, "pong"), frame(final|opContinuation, o[60:]))
		}, 1},
		{"control, then a message in the same record", func() {
			w.write(frame(final|opPong, ""), frame(final|opPing, strings.Repeat("p", 125)), frame(final|opText, w.options()))
		}, 1},
		{"an octet at a time", func() {
			for _, o := range w.tcp.records(func() { w.send(w.options()) }) {
				w.writeTCP([]byte{o})
			}
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			tt.send()
			w.answered(tt.answers)
			w.park()
		})
	}
	t.Run("half a record", func(t *testing.T) {
		w.t = t
		record := w.tcp.records(func() { w.send(w.options()) })
		w.writeTCP(record[:len(record)/2])
		eventually(t, "the reader woken", func() bool { return !w.isParked() })
		eventually(t, "the flow parked, with half a record", w.isParked)
		w.writeTCP(record[len(record)/2:])
		w.answered(1)
		w.park()
	})
	t.Run("as much as the read buffer holds", func(t *testing.T) {
		w.t = t
		for n := range 40 { // 10 octets each: past 288, to the octet with the long one
			for len(w.frames) > 0 {
				<-w.frames
			}
			frames := frame(final|opText, "\r\n\r\n")
			w.write(bytes.Repeat(frames, n+1), frame(final|opPing, strings.Repeat("p", n%11)))
			for range n + 1 {
				if got := await(t, "an answer", w.frames); got != -2 {
					t.Fatalf("%d keep-alives: got frame %d, want one CRLF", n+1, got)
				}
			}
			eventually(t, "parked again", w.isParked)
		}
	})
}

// TestPingToParkedFlow: a WIC's ping is answered, by no message.
func TestPingToParkedFlow(t *testing.T) {
	_, w := registeredPieces(t, nil)
	w.write(frame(final|opPing, "are you there"))
	if got := await(t, "a pong", w.pongs); got != "are you there" {
		t.Errorf("pong %q, want what the ping said", got)
	}
	eventually(t, "the flow parked", w.isParked)
}

// TestParkedFlowEnds: by its peer, for silence, for want of a REGISTER, with the edge.
func TestParkedFlowEnds(t *testing.T) {
	closed := func(t *testing.T, r *rig, reason string) {
		t.Helper()
		eventually(t, "the flow ended for "+reason, func() bool {
			return r.metric("epcscf_flows_closed_total", "reason="+reason) == 1 && r.metric("epcscf_flows") == 0
		})
	}
	t.Run("peer closes", func(t *testing.T) {
		r, w := registeredPieces(t, nil)
		_ = w.tcp.Close()
		closed(t, r, closedByPeer)
	})
	t.Run("peer resets", func(t *testing.T) {
		r, w := registeredPieces(t, nil)
		_ = w.tcp.Conn.(*net.TCPConn).SetLinger(0)
		_ = w.tcp.Close()
		closed(t, r, closedByPeer)
	})
	t.Run("peer says goodbye", func(t *testing.T) {
		r, w := registeredPieces(t, nil)
		if err := w.ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "")); err != nil {
			t.Fatal(err)
		}
		if got := w.closeCode(); got != websocket.CloseGoingAway {
			t.Errorf("close %d, want 1001", got)
		}
		closed(t, r, closedByPeer)
	})
	t.Run("silence", func(t *testing.T) {
		r, w := registeredPieces(t, nil)
		w.flow.mu.Lock()
		w.flow.heard = time.Now().Add(-time.Hour)
		w.flow.setAlarmLocked()
		w.flow.mu.Unlock()
		closed(t, r, closedIdle)
	})
	t.Run("no REGISTER", func(t *testing.T) {
		_, addr := startStub(t)
		r := newRig(t, addr, func(c *Config) { c.Limits.Register = 100 * time.Millisecond })
		w := r.dialPieces("alice")
		w.write(frame(final|opPong, "")) // may be parked, and buys no time
		if got := w.closeCode(); got != websocket.ClosePolicyViolation {
			t.Errorf("close %d, want 1008", got)
		}
		closed(t, r, closedUnregister)
	})
	t.Run("shutdown", func(t *testing.T) {
		r, w := registeredPieces(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := r.proxy.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if got := w.closeCode(); got != websocket.CloseGoingAway {
			t.Errorf("close %d, want 1001", got)
		}
		closed(t, r, closedShutdown)
	})
	t.Run("shutdown, and the peer does not answer", func(t *testing.T) {
		r, w := registeredPieces(t, nil)
		w.tcp.records(func() {
			go func() { _ = r.proxy.Shutdown(context.Background()) }()
			closed(t, r, closedShutdown)
		})
	})
}

// TestParkedFlowIsWrittenTo: what the core sends goes out without a reader.
func TestParkedFlowIsWrittenTo(t *testing.T) {
	core, addr := startStub(t)
	r := newRig(t, addr, nil)
	w := r.dialPieces("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	path := elements(core.accept(r.edge), "Path")[0]
	w.response(sip.REGISTER)
	w.park()
	core.send(r.edge, core.ask("MESSAGE", w.contact(), "Route: "+path))
	w.respond(w.incoming(sip.MESSAGE), 200, "OK")
	if res := finalAt(core); res.StatusCode != 200 {
		t.Errorf("MESSAGE got %d, want 200", res.StatusCode)
	}
}

// TestDescriptorsComeAgain: a new flow has the descriptor of one that has ended, and each
// hears what is its own.
func TestDescriptorsComeAgain(t *testing.T) {
	r, w := registeredPieces(t, nil)
	for range 20 {
		_ = w.tcp.Close()
		gone := w.flow
		await(t, "the end of the flow", gone.done)
		w = r.dialPieces("alice")
		w.park()
		gone.wakeReader() // a late word for it
		w.send(w.options())
		if res := w.response(sip.OPTIONS); res.StatusCode != 403 { // not registered on this flow
			t.Fatalf("OPTIONS got %d, want 403", res.StatusCode)
		}
	}
}

// TestFlowWithoutPoller: where there is none, each flow keeps its reader.
func TestFlowWithoutPoller(t *testing.T) {
	core, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Limits.Ping = 100 * time.Millisecond })
	r.proxy.polling.Do(func() {})
	w := r.dialPieces("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	core.accept(r.edge)
	w.response(sip.REGISTER)
	for range 4 { // longer than the idle limit
		await(t, "a ping", w.pings)
	}
	if w.isParked() {
		t.Error("parked without a poller")
	}
	w.send(w.options())
	w.answered(1)
	w.tcp.records(func() { // no pong leaves
		eventually(t, "the flow ended", func() bool { return r.metric("epcscf_flows_closed_total", "reason="+closedIdle) == 1 })
	})
}

// TestIdleFlowsHaveNoGoroutine counts them.
func TestIdleFlowsHaveNoGoroutine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("flows are parked on Linux only")
	}
	_, addr := startStub(t)
	r := newRig(t, addr, nil)
	const n = 20
	for i := range n {
		r.dialPieces(fmt.Sprint("u", i)).park()
	}
	eventually(t, "no goroutine at any flow", func() bool { return strings.Count(stacks(), "(*Flow)") == 0 })
}

// memConn is a connection whose octets are there from the start.
type memConn struct {
	net.Conn
	in, out []byte
	piece   int // octets that a read gives at most
}

func (c *memConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, net.ErrClosed
	}
	n := copy(p[:min(len(p), c.piece)], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *memConn) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	return len(p), nil
}

func (*memConn) SetDeadline(time.Time) error      { return nil }
func (*memConn) SetReadDeadline(time.Time) error  { return nil }
func (*memConn) SetWriteDeadline(time.Time) error { return nil }
func (*memConn) Close() error                     { return nil }

// memHijack is a ResponseWriter that can be hijacked.
type memHijack struct {
	http.ResponseWriter
	conn net.Conn
}

func (h memHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// upgraded returns a WebSocket over octets; with ours, from our small buffer.
func upgraded(t *testing.T, in []byte, piece int, ours bool) (*websocket.Conn, *bufio.Reader, *memConn) {
	t.Helper()
	req := httptest.NewRequest("GET", "https://edge/", nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		req.Header.Set(name, value)
	}
	conn := &memConn{piece: piece}
	var w http.ResponseWriter = memHijack{httptest.NewRecorder(), conn}
	h := &hijacker{ResponseWriter: w}
	if ours {
		w = h
	}
	u := newUpgrader()
	ws, err := u.Upgrade(w, req, nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 10)
	conn.in, conn.out = in, nil
	return ws, h.br, conn
}

// FuzzFrames: taking pings and pongs ourselves changes nothing of what gorilla would have
// read and answered, however the octets come.
func FuzzFrames(f *testing.F) {
	text := frame(final|opText, "OPTIONS")
	for _, seed := range [][]byte{
		text, append(frame(final|opPong, ""), text...), append(frame(final|opPing, "are you there"), text...),
		append(frame(opText, "OPT"), append(frame(final|opPing, "x"), frame(final|opContinuation, "IONS")...)...),
		frame(opPing, "not final"), frame(final|opPing, strings.Repeat("long", 40)), {final | opPing, 0}, {final | opPing | 0x40, 0x80, 0, 0, 0, 0},
		frame(final|websocket.CloseMessage, "\x03\xe8bye"), append(frame(final|opPong, strings.Repeat("p", 125)), frame(final|opText, strings.Repeat("t", 400))...),
	} {
		f.Add(seed, uint8(0))
		f.Add(seed, uint8(1))
		f.Add(seed, uint8(3))
	}
	f.Fuzz(func(t *testing.T, octets []byte, piece uint8) {
		ws, _, conn := upgraded(t, octets, 1<<20, false)
		want, wantErr := readAll(ws.ReadMessage)
		ours, br, ourConn := upgraded(t, octets, int(piece)+1, true)
		flow := &Flow{ws: ours, br: br}
		got, gotErr := readAll(func() (int, []byte, error) {
			for {
				if control, err := flow.readControl(); err != nil || !control {
					if err != nil {
						return 0, nil, err
					}
					return ours.ReadMessage()
				}
			}
		})
		if !slices.Equal(got, want) || !bytes.Equal(ourConn.out, conn.out) || websocket.IsCloseError(gotErr, websocket.CloseNormalClosure) != websocket.IsCloseError(wantErr, websocket.CloseNormalClosure) {
			t.Errorf("read %q, answered %q, ended %v; gorilla alone: %q, %q, %v", got, ourConn.out, gotErr, want, conn.out, wantErr)
		}
	})
}

// readAll returns what read returns until it fails.
func readAll(read func() (int, []byte, error)) (all []string, err error) {
	for {
		kind, data, err := read()
		if err != nil {
			return all, err
		}
		all = append(all, fmt.Sprint(kind, " ", string(data)))
	}
}

// TestReadersAreUsedAgain: more flows than readers that wait are woken, parked and woken
// again, and few readers are left.
func TestReadersAreUsedAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("flows are parked on Linux only")
	}
	_, addr := startStub(t)
	r := newRig(t, addr, nil)
	all := make([]*pieceWIC, idleReaders+10)
	for i := range all {
		all[i] = r.dialPieces(fmt.Sprint("u", i))
	}
	for range 3 {
		for _, w := range all {
			w.write(frame(final|opText, "\r\n\r\n"))
		}
		for _, w := range all {
			await(t, "an answer", w.frames)
		}
		for _, w := range all {
			w.park()
		}
	}
	eventually(t, "no more readers than may wait", func() bool {
		n := strings.Count(stacks(), "(*Proxy).readOn(")
		return n <= idleReaders && n == int(r.proxy.readers.idle.Load())
	})
}

// stacks are those of all goroutines.
func stacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}
