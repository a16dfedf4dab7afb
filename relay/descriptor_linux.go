package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// descriptor is a UDP socket outside Go's poller, which would wake a thread for each
// datagram. Its methods are safe for concurrent use: the number is not closed, and so not
// given to another socket, while a system call uses it.
type descriptor struct {
	fd    int
	local netip.AddrPort
	six   bool         // of AF_INET6, which may be a dual-stack socket
	any   bool         // bound to every address: the kernel says by which one a datagram came
	state atomic.Int64 // users, two each; 1 more: closed
	// plain is set when the way out of the socket cannot split a datagram into segments.
	plain atomic.Bool
}

const (
	descriptorUser   = 2
	descriptorClosed = 1
)

// descriptorOf takes pc's socket out of Go's poller and closes pc. It returns nil where pc
// has none: the caller goes on with pc.
func descriptorOf(pc any, buffer int) *descriptor {
	conn, ok := pc.(*net.UDPConn)
	if !ok || conn.RemoteAddr() != nil {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	d := &descriptor{fd: -1, local: addrPortOf(conn.LocalAddr())}
	err = raw.Control(func(fd uintptr) {
		if d.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return
		}
		domain, domainErr := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		d.six = domainErr == nil && domain == unix.AF_INET6
		for _, opt := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			_ = unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, opt, buffer) // a smaller buffer still works
		}
	})
	if err != nil || d.fd < 0 {
		return nil
	}
	_ = conn.Close() // which takes it out of the poller; the socket lives on in d
	return d
}

// tellAny has the kernel say by which of our addresses a datagram came, where d is bound to
// all: answers leave by the same.
func (d *descriptor) tellAny() {
	if !d.local.Addr().IsUnspecified() {
		return
	}
	level, opt := unix.SOL_IP, unix.IP_PKTINFO
	if d.six {
		level, opt = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
	}
	d.any = unix.SetsockoptInt(d.fd, level, opt, 1) == nil
}

// acquire reports whether d is open, and keeps it so until release.
func (d *descriptor) acquire() bool {
	if d.state.Add(descriptorUser)&descriptorClosed == 0 {
		return true
	}
	d.release()
	return false
}

func (d *descriptor) release() {
	if d.state.Add(-descriptorUser) == descriptorClosed && d.state.CompareAndSwap(descriptorClosed, descriptorClosed|1<<62) {
		_ = unix.Close(d.fd)
	}
}

// Close implements socket. The last user closes the number.
func (d *descriptor) Close() error {
	if d.state.Or(descriptorClosed)&descriptorClosed != 0 {
		return net.ErrClosed
	}
	if d.state.CompareAndSwap(descriptorClosed, descriptorClosed|1<<62) {
		return unix.Close(d.fd)
	}
	return nil
}

// LocalAddr implements socket.
func (d *descriptor) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(d.local) }

// SyscallConn implements rawSocket, for options.
func (d *descriptor) SyscallConn() (syscall.RawConn, error) { return rawDescriptor{d}, nil }

// rawDescriptor is a syscall.RawConn for options only.
type rawDescriptor struct{ d *descriptor }

// Control implements syscall.RawConn.
func (r rawDescriptor) Control(f func(fd uintptr)) error {
	if !r.d.acquire() {
		return net.ErrClosed
	}
	defer r.d.release()
	f(uintptr(r.d.fd))
	return nil
}

// Read implements syscall.RawConn.
func (rawDescriptor) Read(func(uintptr) bool) error { return errors.ErrUnsupported }

// Write implements syscall.RawConn.
func (rawDescriptor) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// ReadFromUDPAddrPort implements socket. A carrier reads descriptors, nobody else.
func (d *descriptor) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	return 0, netip.AddrPort{}, errors.ErrUnsupported
}

// writeFrom is WriteToUDPAddrPort with a source.
func (d *descriptor) writeFrom(b []byte, from netip.Addr, to netip.AddrPort) error {
	p := packet{data: b, to: to, from: from}
	if !d.acquire() {
		return net.ErrClosed
	}
	defer d.release()
	if errno := sendFrom(d, &p, &envelope{}); errno != 0 {
		return fmt.Errorf("send to %s: %w", to, errno)
	}
	return nil
}

// WriteToUDPAddrPort implements socket. It does not wait for room in the socket's buffer.
func (d *descriptor) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if !d.acquire() {
		return 0, net.ErrClosed
	}
	defer d.release()
	var name sockaddr
	n, errno := sendTo(d.fd, b, &name, name.set(to, d.six))
	if errno != 0 {
		return 0, fmt.Errorf("send to %s: %w", to, errno)
	}
	return n, nil
}

var _ socket = (*descriptor)(nil)
