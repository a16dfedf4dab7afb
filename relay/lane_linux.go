package relay

import (
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// adopt takes a leg's socket out of Go's poller, so that c can carry it. It is called before
// the leg's allocation lives, and start after.
func (c *carrier) adopt(a *allocation, l *leg) {
	if d := descriptorOf(l.sock, legBuffer); d != nil {
		l.sock = d
		l.lane = &lane{sock: d, a: a, l: l, queue: queue{-1, -1}}
		l.lane.c.Store(c)
	}
}

// start has the carrier read the lane. Only the carrier's own goroutine calls it.
func (l *lane) start() error {
	if !l.sock.acquire() {
		return net.ErrClosed
	}
	defer l.sock.release()
	c, fd := l.c.Load(), l.sock.fd
	lanes := *c.lanes.Load()
	if fd >= len(lanes) {
		grown := make([]atomic.Pointer[lane], 2*fd+1)
		for i := range lanes {
			grown[i].Store(lanes[i].Load())
		}
		lanes = grown
		c.lanes.Store(&lanes)
	}
	lanes[fd].Store(l)
	return c.watch(fd, unix.EPOLLET) // one look less at each datagram: it is read until nothing is left
}

// lane returns what has the descriptor fd, or nil.
func (c *carrier) lane(fd int) *lane {
	if lanes := *c.lanes.Load(); fd < len(lanes) {
		return lanes[fd].Load()
	}
	return nil
}

// close ends the lane. Its memory is free at once; its socket, when nobody uses it.
func (l *lane) close() {
	if lanes := *l.c.Load().lanes.Load(); l.sock.fd < len(lanes) {
		lanes[l.sock.fd].CompareAndSwap(l, nil)
	}
	_ = l.sock.Close()
}

// bequeath gives the lanes of c, which has ended, to another carrier of the same address:
// its clients' packets come there from now on. Without an heir their allocations end.
func (c *carrier) bequeath(heir *carrier) {
	lanes := *c.lanes.Load()
	for i := range lanes {
		l := lanes[i].Load()
		switch {
		case l == nil:
		case heir == nil:
			c.s.end(l.a, EndSocket)
		default:
			heir.mu.Lock()
			heir.legacy = append(heir.legacy, l)
			heir.mu.Unlock()
		}
	}
	if heir != nil {
		heir.rouse()
	}
}

// inherit takes over what others bequeathed.
func (c *carrier) inherit() {
	c.mu.Lock()
	legacy := c.legacy
	c.legacy = nil
	c.mu.Unlock()
	for _, l := range legacy {
		l.c.Store(c)
		l.queue.first = -1
		if l.start() != nil {
			c.s.end(l.a, EndSocket) // again, mostly
		}
	}
}
