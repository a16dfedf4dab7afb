package relay

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v3"
)

// memWorld is a relay on memory sockets, in a bubble with fake time.
func memWorld(t *testing.T, serve func(*Server, net.Listener) error) (*world, *memListener) {
	t.Helper()
	cfg := Config{Realm: testRealm, RelayIP: loopback, ListenPacket: listenMemory, Now: time.Now, MaxPendingStreams: 3}
	w := &world{}
	w.credentials(t, &cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Server = s
	ln := newMemListener()
	go func() {
		if err := serve(s, ln); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	return w, ln
}

// closedAfter waits until the relay closes conn and returns how long that took.
func closedAfter(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	_ = conn.SetReadDeadline(start.Add(24 * time.Hour))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the relay never closed the stream")
	}
	return time.Since(start)
}

func TestSilentStreamIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln := memWorld(t, (*Server).ServeTCP)
		defer func() { _ = w.Close() }()
		conn := ln.dial(1)
		if d := closedAfter(t, conn); d != firstAllocation {
			t.Errorf("closed after %v, want %v", d, firstAllocation)
		}

		// Messages that make no allocation win no time.
		conn = ln.dial(2)
		start := time.Now()
		c := newRawClient(t, conn, w.credential(t, "alice", 1))
		for range 9 {
			time.Sleep(time.Second)
			c.challenge()
		}
		closedAfter(t, conn)
		if d := time.Since(start); d != firstAllocation {
			t.Errorf("closed after %v, want %v", d, firstAllocation)
		}
		if n := w.pending.Load(); n != 0 {
			t.Errorf("%d streams pending after all ended", n)
		}
	})
}

// A stream lives as long as its allocation, and then as long as a new one may.
func TestStreamLivesWithItsAllocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln := memWorld(t, (*Server).ServeTCP)
		defer func() { _ = w.Close() }()
		conn := ln.dial(1)
		c := newRawClient(t, conn, provision(t, w.sharedKey, "alice", 1, time.Hour))
		c.allocate()
		time.Sleep(9 * time.Minute)
		wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), 0)
		time.Sleep(5 * time.Second)
		c.allocate()
		if n := w.pending.Load(); n != 0 {
			t.Errorf("%d streams pending, want 0: it has an allocation", n)
		}
		if d := closedAfter(t, conn); d < defaultLifetime+firstAllocation || d > defaultLifetime+firstAllocation+2*sweepEvery {
			t.Errorf("closed after %v, want %v", d, defaultLifetime+firstAllocation)
		}
	})
}

func TestPendingStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln := memWorld(t, (*Server).ServeTCP)
		defer func() { _ = w.Close() }()
		c := newRawClient(t, ln.dial(1), w.credential(t, "alice", 1))
		c.allocate() // does not count
		for port := uint16(2); port <= 4; port++ {
			ln.dial(port)
		}
		if d := closedAfter(t, ln.dial(5)); d != 0 || w.dropped(dropPending) != 1 {
			t.Errorf("the stream too many was closed after %v", d)
		}
	})
}

func TestTLSHandshakeDeadline(t *testing.T) {
	cert, _ := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		w, ln := memWorld(t, func(s *Server, ln net.Listener) error {
			return s.ServeTLS(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
		})
		defer func() { _ = w.Close() }()
		if d := closedAfter(t, ln.dial(1)); d != handshakeTimeout {
			t.Errorf("closed after %v, want %v", d, handshakeTimeout)
		}
	})
}

// A client that does not read is cut, and does not hold up others.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln := memWorld(t, (*Server).ServeTCP)
		defer func() { _ = w.Close() }()
		conn := ln.dial(1)
		if _, err := conn.Write(build(stun.MethodBinding, stun.ClassRequest).Raw); err != nil {
			t.Fatal(err)
		}
		time.Sleep(writeTimeout + time.Second)
		if d := closedAfter(t, conn); d != 0 {
			t.Errorf("still open %v after the write's deadline", d)
		}
	})
}

// Descriptors are freed at once, not when memory is collected.
func TestPlaintextOnTLSFreesDescriptors(t *testing.T) {
	w := newWorld(t, nil)
	before := descriptors(t)
	for range 100 {
		c, err := net.Dial("tcp4", w.tls.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	eventually(t, "descriptors are free", func() bool { return descriptors(t) <= before })
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(d)
}

func TestOldTLSIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp4", w.tls.String(), &tls.Config{RootCAs: w.roots, MinVersion: version, MaxVersion: version, NextProtos: []string{"stun.turn"}})
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

// The length 0xFFEC once wrapped in others, and spun for ever.
func TestLengthThatWrapsCostsNothing(t *testing.T) {
	w := newWorld(t, nil)
	b := build(stun.MethodBinding, stun.ClassRequest).Raw
	binary.BigEndian.PutUint16(b[2:], 0xFFEC)
	c := w.client(t, TCP, w.credential(t, "alice", 1))
	c.send(b)
	if _, err := io.Copy(io.Discard, c.conn); err != nil {
		t.Errorf("want the stream closed, got %v", err)
	}

	// With an allocation the length is believed, and memory follows what arrives.
	c = w.client(t, TCP, w.credential(t, "alice", 1))
	c.allocate()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send(b)
	w.client(t, TCP, w.credential(t, "bob", 1)).allocate()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<10 {
		t.Errorf("%d bytes allocated for a length", grown)
	}
}

// When the client's stream closes, its allocation ends.
func TestClosedStreamEndsItsAllocation(t *testing.T) {
	w := newWorld(t, nil)
	for _, transport := range []Transport{TCP, TLS} {
		c := w.client(t, transport, w.credential(t, "alice", 1))
		c.allocate()
		_ = c.conn.Close()
		eventually(t, "allocation ended", func() bool { return len(w.Allocations()) == 0 })
	}
}
