package main

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	atOnce  = 32 // datagrams of a socket read by one system call
	roomFor = 2048
)

// mmsghdr is of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// poller reads many connected sockets, in batches.
type poller struct {
	ep      int
	answer  bool // sends back what comes
	events  [256]unix.EpollEvent
	msgs    [atOnce]mmsghdr
	iovs    [atOnce]unix.Iovec
	room    [atOnce][roomFor]byte
	control [atOnce][64]byte // for the kernel's time of arrival
	stamped bool
}

// newPoller watches sockets. Where stamped, the kernel notes when a datagram arrived.
func newPoller(fds []int, stamped bool) (*poller, error) {
	p := &poller{stamped: stamped}
	var err error
	if p.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for i := range p.msgs {
		p.iovs[i].Base = &p.room[i][0]
		p.msgs[i].hdr.Iov, p.msgs[i].hdr.Iovlen = &p.iovs[i], 1
	}
	for _, fd := range fds {
		if stamped {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		}
		if err == nil {
			err = unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
		if err != nil {
			p.close()
			return nil, os.NewSyscallError("watch a flow", err)
		}
	}
	return p, nil
}

func (p *poller) close() { _ = unix.Close(p.ep) }

// poll calls f with all that has arrived, and when; with wait -1 it waits for something.
func (p *poller) poll(wait int, f func(b []byte, at time.Duration)) error {
	for {
		n, err := unix.EpollWait(p.ep, p.events[:], wait)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range p.events[:n] {
			p.read(int(e.Fd), f)
		}
		if wait != 0 || n < len(p.events) {
			return nil
		}
	}
}

// read takes what one socket has.
func (p *poller) read(fd int, f func(b []byte, at time.Duration)) {
	for i := range p.msgs {
		p.iovs[i].SetLen(roomFor)
		p.msgs[i].len = 0
		if p.stamped {
			p.msgs[i].hdr.Control = &p.control[i][0]
			p.msgs[i].hdr.SetControllen(len(p.control[i]))
		}
	}
	n := p.call(unix.SYS_RECVMMSG, fd, atOnce)
	for i := range n {
		f(p.room[i][:p.msgs[i].len], p.arrived(i))
	}
	if !p.answer {
		return
	}
	for i := range n {
		p.iovs[i].SetLen(int(p.msgs[i].len))
	}
	for from := 0; from < n; {
		from += max(1, p.callFrom(unix.SYS_SENDMMSG, fd, from, n))
	}
}

func (p *poller) call(trap uintptr, fd, n int) int { return p.callFrom(trap, fd, 0, n) }

func (p *poller) callFrom(trap uintptr, fd, from, to int) int {
	n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&p.msgs[from])), uintptr(to-from), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// arrived is when datagram i did, as time since 1970.
func (p *poller) arrived(i int) time.Duration {
	const header = unix.SizeofCmsghdr
	c := p.control[i][:p.msgs[i].hdr.Controllen]
	if len(c) < header+16 {
		return time.Duration(time.Now().UnixNano())
	}
	ts := (*unix.Timespec)(unsafe.Pointer(&c[header]))
	return time.Duration(ts.Nano())
}
