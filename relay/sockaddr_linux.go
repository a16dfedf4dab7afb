package relay

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr is room for the address of either family as the kernel has it.
type sockaddr unix.RawSockaddrInet6

const (
	sockaddrLen4 = unix.SizeofSockaddrInet4
	sockaddrLen6 = unix.SizeofSockaddrInet6
)

// set writes a, for a socket of AF_INET6 where six, and returns the length.
func (s *sockaddr) set(a netip.AddrPort, six bool) uint32 {
	if !six {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(s))
		v4.Family, v4.Addr = unix.AF_INET, a.Addr().Unmap().As4()
		putPort(&v4.Port, a.Port())
		return sockaddrLen4
	}
	s.Family, s.Addr, s.Flowinfo, s.Scope_id = unix.AF_INET6, a.Addr().As16(), 0, 0
	putPort(&s.Port, a.Port())
	return sockaddrLen6
}

// get returns the address that the kernel wrote, an IPv4 one in its own form.
func (s *sockaddr) get() netip.AddrPort {
	switch s.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(s))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), portOf(&v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), portOf(&s.Port))
	}
	return netip.AddrPort{}
}

func putPort(at *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(at))[:], port)
}

func portOf(at *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(at))[:]) }

// mmsghdr is of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32 // bytes received or sent
	_ [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// The system calls that never wait go past Go's scheduler: it need not know of them.

func sendTo(fd int, b []byte, name *sockaddr, nameLen uint32) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(name)), uintptr(nameLen))
	return int(n), errno
}

func sendMessages(fd int, msgs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func receiveMessages(fd int, msgs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
