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
		l.lane = &lane{c: c, sock: d, a: a, l: l, queue: queue{-1, -1}}
	}
}

// start has the carrier read the lane. Only the carrier's own goroutine calls it.
func (l *lane) start() error {
	if !l.sock.acquire() {
		return net.ErrClosed
	}
	defer l.sock.release()
	c, fd := l.c, l.sock.fd
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
	if lanes := *l.c.lanes.Load(); l.sock.fd < len(lanes) {
		lanes[l.sock.fd].CompareAndSwap(l, nil)
	}
	_ = l.sock.Close()
}
