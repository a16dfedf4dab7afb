package proxy

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// wakes are what a poller has said.
type wakes struct {
	mu  sync.Mutex // guards ids
	ids []uint64
}

func (w *wakes) ready(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = append(w.ids, id)
}

func (w *wakes) are(want ...uint64) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.ids, want)
	}
}

func startPoller(t *testing.T) (*poller, *wakes) {
	t.Helper()
	w := &wakes{}
	p, err := newPoller(w.ready)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { p.run(); close(done) }()
	t.Cleanup(func() { p.close(); <-done })
	return p, w
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T, l net.Listener) (ours, theirs *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func descriptor(t *testing.T, c syscall.Conn) (n uintptr) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n = fd })
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPoller(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p, w := startPoller(t)
	arm := func(c *net.TCPConn, id uint64, again bool) {
		t.Helper()
		if err := p.arm(c, id, again); err != nil {
			t.Fatal(err)
		}
	}
	write := func(c *net.TCPConn, octets string) {
		t.Helper()
		if _, err := c.Write([]byte(octets)); err != nil {
			t.Fatal(err)
		}
	}
	const big = 1<<40 + 7 // past what a descriptor's 32 bits hold

	ours, theirs := tcpPair(t, l)
	arm(ours, big, false)
	write(theirs, "x")
	eventually(t, "woken", w.are(big))
	write(theirs, "y") // not armed: nobody is told
	arm(ours, big, true)
	eventually(t, "woken for what was there before", w.are(big, big))

	// The next connection gets the descriptor of one that has closed.
	fd := descriptor(t, ours)
	arm(ours, big, true) // an event that nobody may take for the new connection's
	_ = ours.Close()
	if err := p.arm(ours, big, true); err == nil {
		t.Error("a closed connection is armed")
	}
	again, peer := tcpPair(t, l)
	for descriptor(t, again) != fd && descriptor(t, peer) != fd {
		again, peer = tcpPair(t, l) // until it has
	}
	if descriptor(t, peer) == fd {
		again, peer = peer, again
	}
	arm(again, 3, false)
	_ = peer.Close()
	eventually(t, "the end of the new one, and nothing of the old", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.ids) > 2 && w.ids[len(w.ids)-1] == 3 && !slices.Contains(w.ids[3:], big)
	})

	p.close()
	if err := p.arm(again, 3, true); err == nil {
		t.Error("a closed poller is armed")
	}
}

// TestPollerWakesMany: more than one look at epoll gives.
func TestPollerWakesMany(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p, w := startPoller(t)
	const n = 300
	for id := range uint64(n) {
		ours, theirs := tcpPair(t, l)
		if _, err := theirs.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := p.arm(ours, id, false); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "each woken once", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		ids := slices.Sorted(slices.Values(w.ids))
		return len(ids) == n && len(slices.Compact(ids)) == n
	})
}
