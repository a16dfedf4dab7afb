package relay

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many datagrams a carrier holds at once.
	batch = 64
	// legBatch is how many of them one relayed socket may bring before the others had their
	// turn.
	legBatch = 16
	// slotLen is room for the longest datagram with what goes around it. It is no multiple
	// of a page, so that the slots do not all compete for the same lines of a cache; pages
	// that no datagram reached take no memory.
	slotLen = headroom + largeDatagram + 1 + tailroom + 2600
)

// inbox receives datagrams in batches, each into a slot of its own behind headroom.
type inbox struct {
	room  []byte
	msgs  [batch]mmsghdr
	iovs  [batch]unix.Iovec
	names [batch]sockaddr
}

func newInbox() *inbox {
	b := &inbox{room: make([]byte, batch*slotLen)}
	for i := range b.msgs {
		b.iovs[i].Base = &b.slot(i)[headroom]
		b.iovs[i].SetLen(largeDatagram)
		m := &b.msgs[i].Msghdr
		m.Name, m.Iov, m.Iovlen = (*byte)(unsafe.Pointer(&b.names[i])), &b.iovs[i], 1
	}
	return b
}

// slot is where datagram i stands, with its headroom and tailroom.
func (b *inbox) slot(i int) []byte { return b.room[i*slotLen : (i+1)*slotLen : (i+1)*slotLen] }

// receive reads what has come to d, at most limit datagrams, into slots from the first on,
// and returns how many.
func (b *inbox) receive(d *descriptor, first, limit int) (int, syscall.Errno) {
	msgs := b.msgs[first : first+limit]
	for i := range msgs {
		msgs[i].Namelen = sockaddrLen6 // the kernel writes what it used
	}
	if !d.acquire() {
		return 0, unix.EBADF
	}
	defer d.release()
	n, errno := receiveMessages(d.fd, msgs)
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// datagram returns the data of slot i, and who sent it.
func (b *inbox) datagram(i int) ([]byte, netip.AddrPort) {
	n := int(b.msgs[i].n)
	return b.slot(i)[headroom : headroom+n : headroom+n], b.names[i].get()
}
