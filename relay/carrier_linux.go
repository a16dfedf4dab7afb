package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// legBuffer is the receive and the send buffer of a relayed socket: a video's burst.
const legBuffer = 256 << 10

// carrier moves the packets of one listener and of all allocations that were made through
// it. It waits for all their sockets at once (epoll), outside Go's poller, and works in
// passes: what has come to the listener, then what has come to the relayed sockets, each in
// a batch. One goroutine at a time works for it, its own or another carrier's (crew_linux.go).
type carrier struct {
	s        *Server
	listener *descriptor
	server   netip.AddrPort // of the listener
	worker   *worker
	ep       int
	wake     *descriptor // an eventfd that ends a wait
	events   [batch]unix.EpollEvent

	in        *inbox
	unread    []*lane // that had more than legBatch
	toPeers   *outbox
	waiting   []*lane // lanes with packets in toPeers
	toClients *outbox
	clients   queue // in toClients

	// lanes are by descriptor. The carrier writes an entry, whoever ends the lane clears it.
	lanes atomic.Pointer[[]atomic.Pointer[lane]]
	// passes is odd while data may have been checked that has not left.
	passes atomic.Uint64
	closed atomic.Bool

	back chan error // ends the work of another for it; an error is its own end
	load int        // see weigh

	mu     sync.Mutex // guards legacy
	legacy []*lane    // of carriers that ended, not yet its own
}

// lane is a relayed socket in the hands of a carrier.
type lane struct {
	c     atomic.Pointer[carrier]
	sock  *descriptor
	a     *allocation
	l     *leg
	queue queue // in the carrier's toPeers
}

// newCarrier makes a carrier of pc, or returns nil where pc has no descriptor.
func newCarrier(s *Server, pc net.PacketConn) (c *carrier, err error) {
	d := descriptorOf(pc, socketBuffer)
	if d == nil {
		return nil, nil
	}
	c = &carrier{
		s: s, listener: d, server: d.local, worker: newWorker(s), ep: -1,
		in: newInbox(), toPeers: newOutbox(s.metrics), toClients: newOutbox(s.metrics), clients: queue{-1, -1},
		back: make(chan error, 1),
	}
	d.tellAny()
	c.lanes.Store(&[]atomic.Pointer[lane]{})
	c.worker.carrier = c
	if c.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		var fd int
		if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			c.wake = &descriptor{fd: fd}
			err = errors.Join(c.watch(d.fd, 0), c.watch(fd, 0))
		}
	}
	if err != nil {
		c.free()
		return nil, fmt.Errorf("relay: carry %s: %w", c.server, err)
	}
	return c, nil
}

func (c *carrier) watch(fd int, how uint32) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN | how, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(c.ep, unix.EPOLL_CTL_ADD, fd, &e))
}

// Close has run return.
func (c *carrier) Close() error {
	c.closed.Store(true)
	c.rouse()
	return nil
}

// rouse ends the wait of whoever works for c.
func (c *carrier) rouse() {
	if c.wake.acquire() {
		defer c.wake.release()
		_, _ = unix.Write(c.wake.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it counts up, and is never full
	}
}

// free closes what the carrier has. Nothing runs in it any more.
func (c *carrier) free() {
	_ = c.listener.Close()
	if c.wake != nil {
		_ = c.wake.Close()
	}
	if c.ep >= 0 {
		_ = unix.Close(c.ep)
	}
}

// pass takes what has come and sends it on.
func (c *carrier) pass(events []unix.EpollEvent) (moved int, err error) {
	c.passes.Add(1)
	defer c.passes.Add(1)
	c.worker.now = c.s.cfg.Now()
	for i := range events {
		switch int(events[i].Fd) {
		case c.wake.fd:
			var count [8]byte
			_, _ = unix.Read(c.wake.fd, count[:]) // back to zero
			c.inherit()
		case c.listener.fd:
			if moved, err = c.fromClients(); err != nil {
				return moved, err
			}
		}
	}
	used, behind := 0, len(c.unread)
	read := func(l *lane) {
		n := c.fromPeers(l, used)
		moved += n
		if n == legBatch { // there may be more, of which epoll will not tell again
			c.unread = append(c.unread, l)
		}
		if used += n; used > batch-legBatch {
			c.flushClients()
			used = 0
		}
	}
	for _, l := range c.unread[:behind] {
		read(l)
	}
	c.unread = slices.Delete(c.unread, 0, behind)
	for i := range events {
		if l := c.lane(int(events[i].Fd)); l != nil {
			read(l)
		}
	}
	c.flushClients()
	return moved, nil
}

// settle waits until the pass that is under way has ended: what it had checked has left.
func (c *carrier) settle() {
	for at := c.passes.Load(); at%2 != 0 && c.passes.Load() == at; {
		time.Sleep(rest / 10)
	}
}

// fromClients takes one batch from the listener, so that the others have their turn.
func (c *carrier) fromClients() (int, error) {
	n, errno := c.in.receive(c.listener, 0, batch)
	if errno != 0 && !passing(errno) {
		return 0, fmt.Errorf("relay: read from %s: %w", c.server, errno)
	}
	for i := range n {
		b, from := c.in.datagram(i)
		five := FiveTuple{UDP, from, c.server}
		c.worker.udp = udpClient{sock: c.listener, addr: from}
		if c.listener.any {
			if ip := c.in.cameBy(i); ip.IsValid() && !ip.IsUnspecified() { // else it came before the kernel was asked
				five.Server = netip.AddrPortFrom(ip, c.server.Port())
				c.worker.udp.local = ip
			}
		}
		if !isRequest(b) {
			c.worker.handle(b, five, &c.worker.udp)
			continue
		}
		// A request may end what the data before it needs, and take its time: nobody shall
		// wait for it who waits for data to have left.
		c.flushPeers()
		c.passes.Add(1)
		c.worker.handle(b, five, &c.worker.udp)
		c.passes.Add(1)
	}
	c.flushPeers()
	return n, nil
}

// isRequest reports whether b looks like a STUN request (RFC 8489 §5).
func isRequest(b []byte) bool { return len(b) > 1 && b[0] < 4 && b[0]&1 == 0 && b[1]&0x10 == 0 }

// passing reports whether an error of receiving is over with the call.
func passing(err error) bool {
	for _, e := range []error{unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fromPeers takes a batch from one relayed socket into the slots from first on.
func (c *carrier) fromPeers(l *lane, first int) int {
	n, errno := c.in.receive(l.sock, first, legBatch)
	if errno != 0 && !passing(errno) && !l.a.ended.Load() && !l.l.ended.Load() {
		c.s.log.Warn("relay: relayed socket failed", "relayed", l.l.relayed, "err", errno)
		c.s.end(l.a, EndSocket)
	}
	for i := first; i < first+n; i++ {
		b, from := c.in.datagram(i)
		if m := c.s.messageToClient(l.a, c.in.slot(i), len(b), from, c.worker.now); m != nil {
			p := packet{data: m, to: l.a.five.Client, count: &l.a.toClient, bytes: len(b)}
			if c.listener.any {
				p.from = l.a.five.Server.Addr()
			}
			c.toClients.add(&c.clients, p)
		}
	}
	return n
}

// post takes a packet for a peer, where this carrier has the socket, and reports whether.
func (c *carrier) post(a *allocation, l *leg, data []byte, to netip.AddrPort) bool {
	if l.lane == nil || l.lane.c.Load() != c {
		return false
	}
	if l.lane.queue.first < 0 {
		c.waiting = append(c.waiting, l.lane)
	}
	c.toPeers.add(&l.lane.queue, packet{data: data, to: to, count: &a.toPeer, bytes: len(data)})
	return true
}

func (c *carrier) flushPeers() {
	for i, l := range c.waiting {
		c.toPeers.send(l.sock, &l.queue)
		c.waiting[i] = nil
	}
	c.waiting = c.waiting[:0]
	c.toPeers.reset()
}

func (c *carrier) flushClients() {
	c.toClients.send(c.listener, &c.clients)
	c.toClients.reset()
}
