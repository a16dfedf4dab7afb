package proxy

import (
	"cmp"
	"fmt"
	"os"
	"syscall"
)

// poller tells which parked flows have something to read. It is an epoll of our own beside
// that of Go's runtime, which needs a goroutine for each socket that somebody waits for; one
// socket may be in both. The runtime waits for ours, as for any other file.
type poller struct {
	file  *os.File
	raw   syscall.RawConn // of file
	ready func(id uint64)
}

// newPoller makes a poller that calls ready, from run.
func newPoller(ready func(id uint64)) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else os.NewFile reads it by a thread
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poller{file: f, raw: raw, ready: ready}, nil
}

// arm lets run call ready(id) once when c has something to read or has ended, which may be
// now. It is for a flow's first wait; later ones say again. A number is never used twice, so
// a descriptor that is, after a close, wakes nobody in error; and a close takes the
// descriptor out (epoll(7)).
func (p *poller) arm(c syscall.Conn, id uint64, again bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	op := syscall.EPOLL_CTL_ADD
	if again {
		op = syscall.EPOLL_CTL_MOD
	}
	// The octets that epoll gives back hold the number.
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	var errEpoll, errCtl error
	errConn := raw.Control(func(fd uintptr) {
		// Neither descriptor can be closed and given to another file in here.
		errEpoll = p.raw.Control(func(epfd uintptr) {
			errCtl = syscall.EpollCtl(int(epfd), op, int(fd), &ev)
		})
	})
	return cmp.Or(errConn, errEpoll, errCtl)
}

// run calls ready until close.
func (p *poller) run() {
	events := make([]syscall.EpollEvent, 128)
	for {
		var n int
		var err error
		errRead := p.raw.Read(func(fd uintptr) bool {
			for {
				if n, err = syscall.EpollWait(int(fd), events, 0); err != syscall.EINTR {
					return n != 0 || err != nil
				}
			}
		})
		if errRead != nil || err != nil {
			return // closed; no other error is possible (epoll_wait(2))
		}
		for _, ev := range events[:n] {
			p.ready(uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32)
		}
	}
}

// close ends run. No flow is woken any more.
func (p *poller) close() { _ = p.file.Close() }
