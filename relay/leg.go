package relay

import (
	"net/netip"
	"sync/atomic"
)

// face is how the relay looks to peers of one address family.
type face struct {
	relay    netip.Addr // where relayed sockets are bound; invalid: the family is not served
	external netip.Addr // given out in its place, where valid
}

// faces are those of IPv4 and IPv6.
type faces [2]face

// of returns the face of a family number, which need not be one.
func (f *faces) of(family byte) face {
	switch family {
	case familyIPv4:
		return f[0]
	case familyIPv6:
		return f[1]
	}
	return face{}
}

// own returns all addresses of the relay's.
func (f *faces) own() []netip.Addr {
	var all []netip.Addr
	for _, x := range f {
		for _, ip := range []netip.Addr{x.relay, x.external} {
			if ip.IsValid() {
				all = append(all, ip)
			}
		}
	}
	return all
}

// inward turns the address that we give out for a relayed socket into the one where it is
// bound, so that two users behind our 1:1 NAT need no hairpin; outward is its inverse.
func (f *faces) inward(peer netip.AddrPort) netip.AddrPort {
	if x := f.of(familyOf(peer.Addr())); x.external.IsValid() && peer.Addr() == x.external {
		return netip.AddrPortFrom(x.relay, peer.Port())
	}
	return peer
}

func (f *faces) outward(peer netip.AddrPort) netip.AddrPort {
	if x := f.of(familyOf(peer.Addr())); x.external.IsValid() && peer.Addr() == x.relay {
		return netip.AddrPortFrom(x.external, peer.Port())
	}
	return peer
}

// leg is one relayed transport address of an allocation. A dual allocation has two, of IPv4
// and of IPv6 (RFC 8656 §7.2, step 9).
type leg struct {
	sock    socket
	bound   netip.AddrPort // of sock
	relayed netip.AddrPort // as the client knows it: bound, or with the external address
	ended   atomic.Bool    // before its allocation (RFC 8656 §8.1)
	setsDF  bool           // sock can be told to
	lane    *lane          // of the carrier that has sock, or nil
}

// close closes the socket. It may be called twice.
func (l *leg) close() {
	if l.lane != nil {
		l.lane.close()
		return
	}
	_ = l.sock.Close()
}

func (l *leg) family() byte { return familyOf(l.relayed.Addr()) }

// leg returns a's relayed address for peers of ip's family, or nil.
func (a *allocation) leg(ip netip.Addr) *leg { return a.legOf(familyOf(ip)) }

func (a *allocation) legOf(family byte) *leg {
	for _, l := range a.legs {
		if l.family() == family && !l.ended.Load() {
			return l
		}
	}
	return nil
}

// first returns the leg that names a in logs.
func (a *allocation) first() *leg { return a.legs[0] }
