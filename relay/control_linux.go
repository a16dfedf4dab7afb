package relay

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control is room for the control messages of one datagram (cmsg(3)): how the kernel is to
// split it, and by which address of ours it comes or goes.
type control struct {
	room [8]uint64
	used int
}

func (c *control) reset() { c.used = 0 }

// add begins a control message of n bytes and returns them.
func (c *control) add(level, kind int32, n int) unsafe.Pointer {
	at := unsafe.Add(unsafe.Pointer(&c.room), c.used)
	h := (*unix.Cmsghdr)(at)
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	c.used += unix.CmsgSpace(n)
	return unsafe.Add(at, unix.CmsgLen(0))
}

// split has the kernel send segments of size bytes.
func (c *control) split(size int) {
	*(*uint16)(c.add(unix.SOL_UDP, unix.UDP_SEGMENT, 2)) = uint16(size)
}

// leaveBy sets the source of a datagram on a socket that is bound to none.
func (c *control) leaveBy(ip netip.Addr, six bool) {
	if six {
		*(*unix.Inet6Pktinfo)(c.add(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)) = unix.Inet6Pktinfo{Addr: ip.As16()}
		return
	}
	*(*unix.Inet4Pktinfo)(c.add(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)) = unix.Inet4Pktinfo{Spec_dst: ip.Unmap().As4()}
}

// attach gives m what has been added.
func (c *control) attach(m *unix.Msghdr) {
	m.Control = nil
	if c.used > 0 {
		m.Control = (*byte)(unsafe.Pointer(&c.room))
	}
	m.SetControllen(c.used)
}

// offer lets the kernel write.
func (c *control) offer(m *unix.Msghdr) {
	m.Control = (*byte)(unsafe.Pointer(&c.room))
	m.SetControllen(int(unsafe.Sizeof(c.room)))
}

// cameBy returns our address of which the kernel wrote, invalid where it did not.
func (c *control) cameBy(m *unix.Msghdr) netip.Addr {
	h, data := (*unix.Cmsghdr)(unsafe.Pointer(&c.room)), unsafe.Add(unsafe.Pointer(&c.room), unix.CmsgLen(0))
	switch {
	case int(m.Controllen) >= unix.CmsgLen(unix.SizeofInet4Pktinfo) && h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO:
		return netip.AddrFrom4((*unix.Inet4Pktinfo)(data).Spec_dst)
	case int(m.Controllen) >= unix.CmsgLen(unix.SizeofInet6Pktinfo) && h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO:
		return netip.AddrFrom16((*unix.Inet6Pktinfo)(data).Addr).Unmap()
	}
	return netip.Addr{}
}
