package relay

import (
	"errors"
	"net/netip"
	"syscall"
	"time"
)

// errWhole says that a socket cannot forbid fragments.
var errWhole = errors.New("relay: socket cannot set DF")

// rawSocket is a socket whose options can be set. *net.UDPConn is one.
type rawSocket interface {
	SyscallConn() (syscall.RawConn, error)
}

// setWhole says of what l sends from now on that nobody on the way may fragment it, or that
// everybody may. "In all other cases", without DONT-FRAGMENT, a server like ours, which does
// not see the DF bit of what it receives, sends with 0 (RFC 8656 §14, §15).
func (l *leg) setWhole(whole bool) error {
	s, ok := l.sock.(rawSocket)
	if !ok {
		return errWhole
	}
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if e := c.Control(func(fd uintptr) { err = setDontFragment(fd, l.family(), whole) }); e != nil {
		return e
	}
	return err
}

// heedsWhole reports whether DONT-FRAGMENT counts on the way from a's client to l's peers:
// from IPv4 to IPv4, and from streams. Other ways follow their packets (RFC 8656 §13).
func (l *leg) heedsWhole(a *allocation) bool {
	return a.five.Transport != UDP || l.family() == familyIPv4 && a.five.Client.Addr().Is4()
}

// sendWhole is sendToPeer for a Send indication with DONT-FRAGMENT. What is too large for
// the way is lost. The option is the socket's, not the datagram's, so it is set and taken
// back; a five-tuple has one reader, so nothing else is sent meanwhile.
func (w *worker) sendWhole(a *allocation, data []byte, peer netip.AddrPort, v verdict, now time.Time) {
	l := a.leg(peer.Addr())
	if l == nil || !l.heedsWhole(a) {
		w.sendToPeer(a, data, peer, v, now)
		return
	}
	w.flush()
	if !l.setsDF || l.setWhole(true) != nil {
		w.s.metrics.drop(dropUnsupported)
		return
	}
	w.sendToPeer(a, data, peer, v, now)
	w.flush()
	_ = l.setWhole(false) // as newLeg could
}
