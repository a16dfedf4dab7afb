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
	// slotLen is room for what fits an Ethernet frame and for what goes around it.
	// largeLen is room for the longest datagram: pages that none has reached take no memory.
	slotLen  = headroom + smallDatagram + tailroom + 61
	largeLen = headroom + largeDatagram + tailroom
)

// inbox receives datagrams in batches, each into a slot of its own behind headroom. The
// slots are close together, since each page and each line of a cache costs time.
type inbox struct {
	room  []byte // slots
	large []byte // where the rest goes of a datagram that is longer than its slot
	msgs  [batch]mmsghdr
	iovs  [batch][2]unix.Iovec
	names [batch]sockaddr

	controls [batch]control
}

func newInbox() *inbox {
	b := &inbox{room: make([]byte, batch*slotLen), large: make([]byte, batch*largeLen)}
	for i := range b.msgs {
		b.iovs[i][0].Base = &b.room[i*slotLen+headroom]
		b.iovs[i][0].SetLen(smallDatagram)
		b.iovs[i][1].Base = &b.large[i*largeLen+headroom+smallDatagram]
		b.iovs[i][1].SetLen(largeDatagram - smallDatagram)
		m := &b.msgs[i].Msghdr
		m.Name, m.Iov = (*byte)(unsafe.Pointer(&b.names[i])), &b.iovs[i][0]
		m.SetIovlen(len(b.iovs[i]))
	}
	return b
}

// slot is where datagram i stands, with its headroom and tailroom.
func (b *inbox) slot(i int) []byte {
	if b.msgs[i].n > smallDatagram {
		return b.large[i*largeLen : (i+1)*largeLen : (i+1)*largeLen]
	}
	return b.room[i*slotLen : (i+1)*slotLen : (i+1)*slotLen]
}

// receive reads what has come to d, at most limit datagrams, into slots from the first on,
// and returns how many.
func (b *inbox) receive(d *descriptor, first, limit int) (int, syscall.Errno) {
	msgs := b.msgs[first : first+limit]
	for i := range msgs {
		msgs[i].Namelen = sockaddrLen6 // the kernel writes what it used
		if d.any {
			b.controls[first+i].offer(&msgs[i].Msghdr)
		} else {
			msgs[i].Control, msgs[i].Controllen = nil, 0
		}
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
	if n > smallDatagram {
		copy(b.large[i*largeLen+headroom:], b.room[i*slotLen+headroom:][:smallDatagram])
	}
	return b.slot(i)[headroom : headroom+n : headroom+n], b.names[i].get()
}

// cameBy returns the address of ours to which slot i's datagram was sent, where the socket
// that received it is bound to every address.
func (b *inbox) cameBy(i int) netip.Addr { return b.controls[i].cameBy(&b.msgs[i].Msghdr) }
