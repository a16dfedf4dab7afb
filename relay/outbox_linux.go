package relay

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments is how many datagrams the kernel splits from one (UDP_MAX_SEGMENTS was 64
	// before Linux 6.9), and maxSegmented how many bytes they may have together.
	maxSegments  = 64
	maxSegmented = 65000
)

// packet is a datagram that waits to be sent. Its memory is the inbox's.
type packet struct {
	data  []byte
	to    netip.AddrPort
	from  netip.Addr      // of ours, where the socket has none
	count *trafficCounter // counts it, once it has left
	bytes int             // of payload
	next  int             // of the same socket, or -1
}

// outbox gathers packets by socket and sends each socket's with one system call. Those of
// equal length that follow each other to one address leave as one datagram, which the
// kernel splits as late as it can (UDP_SEGMENT): it then passes its own layers once.
type outbox struct {
	metrics *metrics
	packets [batch]packet
	used    int

	msgs      [batch]mmsghdr
	envelopes [batch]envelope
	iovs      [batch]unix.Iovec
	firsts    [batch]int // packet that begins each of msgs
}

// envelope is what stands around the data of a message.
type envelope struct {
	name    sockaddr
	control control
}

// address makes m a message from d with the data in iovs, which are all as long as p or, the
// last, shorter.
func (e *envelope) address(m *unix.Msghdr, d *descriptor, p *packet, iovs []unix.Iovec) {
	m.Name, m.Namelen = (*byte)(unsafe.Pointer(&e.name)), e.name.set(p.to, d.six)
	m.Iov = &iovs[0]
	m.SetIovlen(len(iovs))
	e.control.reset()
	if len(iovs) > 1 {
		e.control.split(len(p.data))
	}
	if p.from.IsValid() {
		e.control.leaveBy(p.from, d.six)
	}
	e.control.attach(m)
}

// sendFrom sends a packet that says by which address it leaves.
func sendFrom(d *descriptor, p *packet, e *envelope) syscall.Errno {
	var iovs [1]unix.Iovec
	iovs[0].Base = unsafe.SliceData(p.data)
	iovs[0].SetLen(len(p.data))
	var m [1]mmsghdr
	e.address(&m[0].Msghdr, d, p, iovs[:])
	_, errno := sendMessages(d.fd, m[:])
	return errno
}

func newOutbox(m *metrics) *outbox { return &outbox{metrics: m} }

// queue is the packets of one socket that wait in an outbox.
type queue struct{ first, last int }

// add puts a packet at the end of q. There must be room.
func (b *outbox) add(q *queue, p packet) {
	at := b.used
	b.used++
	p.next = -1
	b.packets[at] = p
	if q.first < 0 {
		q.first = at
	} else {
		b.packets[q.last].next = at
	}
	q.last = at
}

// send sends what waits in q by d, and empties q. The packets' room is free when reset is
// called.
func (b *outbox) send(d *descriptor, q *queue) {
	first := q.first
	q.first = -1
	if first < 0 {
		return
	}
	if !d.acquire() { // its allocation has ended
		b.lost(first, -1, dropNoAllocation)
		return
	}
	defer d.release()
	if p := &b.packets[first]; p.next < 0 {
		b.sendOne(d, p)
		return
	}
	b.sendAll(d, first)
}

// sendOne sends a packet by itself. What the kernel has to say of an earlier one (ICMP, where
// the socket wants to know) it says once, in place of sending.
func (b *outbox) sendOne(d *descriptor, p *packet) {
	errno := b.transmit(d, p)
	if errno == unix.ECONNREFUSED || errno == unix.EHOSTUNREACH || errno == unix.ENETUNREACH {
		errno = b.transmit(d, p)
	}
	if errno != 0 {
		b.metrics.drop(dropWrite)
		return
	}
	p.count.count(p.bytes)
}

// transmit sends a packet by itself, by the cheapest system call.
func (b *outbox) transmit(d *descriptor, p *packet) syscall.Errno {
	e := &b.envelopes[0]
	if !p.from.IsValid() {
		_, errno := sendTo(d.fd, p.data, &e.name, e.name.set(p.to, d.six))
		return errno
	}
	return sendFrom(d, p, e)
}

// sendAll sends the chain of packets that begins with first.
func (b *outbox) sendAll(d *descriptor, first int) {
	for first >= 0 {
		n := b.compose(d, first)
		sent, errno := sendMessages(d.fd, b.msgs[:n])
		if errno != 0 {
			sent = 0
		}
		for i := range sent {
			first = b.left(b.firsts[i], b.iovsOf(i))
		}
		if errno != 0 { // of the first message, which says nothing of the others
			first = b.refused(d, first, b.iovsOf(0), errno)
		}
	}
}

// compose makes messages of the chain that begins with first, and returns how many.
func (b *outbox) compose(d *descriptor, first int) (n int) {
	split := !d.plain.Load()
	iov := 0
	for i := first; i >= 0; n++ {
		p := &b.packets[i]
		size, total, from := len(p.data), 0, iov
		b.firsts[n] = i
		for {
			q := &b.packets[i]
			b.iovs[iov].Base = unsafe.SliceData(q.data)
			b.iovs[iov].SetLen(len(q.data))
			iov++
			total += len(q.data)
			last := len(q.data) < size // a shorter one ends the datagram
			if i = q.next; i < 0 || last || !split || size == 0 {
				break
			}
			next := &b.packets[i]
			if len(next.data) > size || len(next.data) == 0 || next.to != p.to || next.from != p.from || total+len(next.data) > maxSegmented || iov-from == maxSegments {
				break
			}
		}
		b.envelopes[n].address(&b.msgs[n].Msghdr, d, p, b.iovs[from:iov])
	}
	return n
}

func (b *outbox) iovsOf(i int) int { return int(b.msgs[i].Iovlen) }

// left counts k packets of a chain as sent, and returns the one behind them.
func (b *outbox) left(first, k int) (behind int) {
	for range k {
		p := &b.packets[first]
		p.count.count(p.bytes)
		first = p.next
	}
	return first
}

// lost counts k packets of a chain as dropped, and returns the one behind them.
func (b *outbox) lost(first, k int, why dropReason) (behind int) {
	for ; k != 0 && first >= 0; k-- {
		b.metrics.drop(why)
		first = b.packets[first].next
	}
	return first
}

// refused deals with a message of k packets that the kernel did not take, and returns the
// packet behind them. What it would not split goes one by one.
func (b *outbox) refused(d *descriptor, first, k int, errno syscall.Errno) (behind int) {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.EOPNOTSUPP: // of the splitting, maybe
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH: // of an earlier one, maybe
	default:
		return b.lost(first, k, dropWrite)
	}
	if errno == unix.EIO { // the way out has no checksum offload, and will have none
		d.plain.Store(true)
	}
	for range k {
		b.sendOne(d, &b.packets[first])
		first = b.packets[first].next
	}
	return first
}

// reset forgets all packets. Their queues are empty.
func (b *outbox) reset() { b.used = 0 }
