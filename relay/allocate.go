package relay

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/pion/stun/v3"
)

// Lifetimes of an allocation (RFC 8656 §3.2, §7.2).
const (
	defaultLifetime = 600 * time.Second
	maxLifetime     = 3600 * time.Second
)

// handleAllocate follows RFC 8656 §7.2; step 1, authentication, is behind us.
func (w *worker) handleAllocate(r *request) *refusal {
	// Step 2: "checks if the 5-tuple is currently in use". The same transaction id is a
	// retransmission: the first answer again, with the time that is left.
	if a := r.alloc; a != nil {
		if a.made == r.msg.TransactionID && a.who().sameUser(&r.holder) {
			w.writeAllocated(r, a)
			return nil
		}
		return refuse(stun.CodeAllocMismatch, "five-tuple has an allocation")
	}

	// Step 3: REQUESTED-TRANSPORT. Always 442 for TCP: we relay to no TCP peer.
	v, err := r.msg.Get(stun.AttrRequestedTransport)
	protocol, ok := firstByteOf(v)
	if err != nil || !ok {
		return refuse(stun.CodeBadRequest, "REQUESTED-TRANSPORT is missing or malformed")
	}
	if protocol != protocolUDP {
		return refuse(stun.CodeUnsupportedTransProto, "REQUESTED-TRANSPORT is not UDP")
	}

	// Step 4, DONT-FRAGMENT, is the sockets' to say: see allocate.
	// Steps 5 to 9: families and ports.
	want, no := w.checkRelayAddress(r)
	if no != nil {
		return no
	}
	want.whole = r.msg.Contains(stun.AttrDontFragment)
	lifetime, no := lifetimeWanted(r.msg)
	if no != nil {
		return no
	}

	// Step 10: the quota. Step 11, redirection, we do not make.
	if w.s.quotaReached(r.holder.owner()) {
		return refuse(stun.CodeAllocQuotaReached, "subject has its allocations")
	}

	a, no := w.allocate(r, lifetime, want)
	if no != nil {
		return no
	}
	w.writeAllocated(r, a)
	return nil
}

// wanted is which relayed addresses an Allocate asks for.
type wanted struct {
	family byte
	also   bool // IPv6 beside IPv4
	even   bool // port
	pair   bool // the next port reserved
	whole  bool // DF on datagrams that ask for it
	token  *reservationToken
}

// checkRelayAddress makes the checks of RFC 8656 §7.2, steps 5 to 9.
func (w *worker) checkRelayAddress(r *request) (want wanted, no *refusal) {
	family, hasFamily := r.msg.Attributes.Get(stun.AttrRequestedAddressFamily)
	additional, hasAdditional := r.msg.Attributes.Get(attrAdditionalAddressFamily)
	port, hasPort := r.msg.Attributes.Get(stun.AttrEvenPort)

	// Step 5. Whether the token is valid is seen when the port is taken.
	if v, has := r.msg.Attributes.Get(stun.AttrReservationToken); has {
		t, ok := reservationTokenOf(v.Value)
		if hasPort || hasFamily || hasAdditional {
			return want, refuse(stun.CodeBadRequest, "RESERVATION-TOKEN beside EVEN-PORT or a family")
		}
		if !ok {
			return want, refuse(stun.CodeBadRequest, "RESERVATION-TOKEN is malformed")
		}
		return wanted{token: &t}, nil
	}

	// Steps 6 and 7: without REQUESTED-ADDRESS-FAMILY the client wants IPv4.
	if hasFamily && hasAdditional {
		return want, refuse(stun.CodeBadRequest, "REQUESTED- and ADDITIONAL-ADDRESS-FAMILY")
	}
	want = wanted{family: familyIPv4, also: hasAdditional, even: hasPort}
	if hasFamily {
		var ok bool
		if want.family, ok = firstByteOf(family.Value); !ok {
			return want, refuse(stun.CodeBadRequest, "REQUESTED-ADDRESS-FAMILY is malformed")
		}
	}
	if !w.s.faces.of(want.family).relay.IsValid() {
		return want, refuse(stun.CodeAddrFamilyNotSupported, "no relay address of the family")
	}

	// Step 8: R asks for the next port too.
	if hasPort {
		reserve, ok := evenPortOf(port.Value)
		if !ok || reserve && hasAdditional {
			return want, refuse(stun.CodeBadRequest, "EVEN-PORT is malformed, or R beside ADDITIONAL-ADDRESS-FAMILY")
		}
		want.pair = reserve
	}

	// Step 9: a dual allocation. What cannot be had of IPv6 is for ADDRESS-ERROR-CODE.
	if hasAdditional {
		if f, ok := firstByteOf(additional.Value); !ok || f != familyIPv6 {
			return want, refuse(stun.CodeBadRequest, "ADDITIONAL-ADDRESS-FAMILY is not IPv6")
		}
	}
	return want, nil
}

// lifetimeWanted computes what RFC 8656 §7.2 and §8.2 grant: the client's wish, at most
// maxLifetime, at least defaultLifetime.
func lifetimeWanted(m *stun.Message) (time.Duration, *refusal) {
	v, err := m.Get(stun.AttrLifetime)
	if err != nil {
		return defaultLifetime, nil
	}
	asked, ok := lifetimeOf(v)
	if !ok {
		return 0, refuse(stun.CodeBadRequest, "LIFETIME is malformed")
	}
	return max(min(asked, maxLifetime), defaultLifetime), nil
}

// allocate opens the relayed sockets and makes the allocation live.
func (w *worker) allocate(r *request, lifetime time.Duration, want wanted) (*allocation, *refusal) {
	s := w.s
	legs, next, err := s.openLegs(want, r)
	if errors.Is(err, errReservation) {
		return nil, refuse(stun.CodeInsufficientCapacity, "unknown RESERVATION-TOKEN")
	}
	if err != nil {
		s.log.Warn("relay: no relayed socket", "err", err)
		return nil, refuse(stun.CodeInsufficientCapacity, "no relayed socket")
	}
	discard := func() {
		if next != nil {
			next.close()
		}
		for _, l := range legs {
			l.close()
		}
	}
	if want.whole && !slices.ContainsFunc(legs, func(l *leg) bool { return l.setsDF }) {
		discard()
		return nil, &refusal{code: stun.CodeUnknownAttribute, cause: "sockets without DF", unknown: []stun.AttrType{stun.AttrDontFragment}}
	}
	a := &allocation{
		five: r.five, client: r.conn.retain(), legs: legs,
		since: r.now, made: r.msg.TransactionID, owner: r.holder.owner(),
		paths: newPaths(s.cfg.MaxPermissions), limit: s.cfg.limit(r.now, &r.holder),
	}
	a.holder.Store(new(r.holder))
	a.deadline.set(s.deadline(&r.holder, earlier(r.now.Add(lifetime), a.limit), r.now))
	if w.carrier != nil {
		for _, l := range legs {
			w.carrier.adopt(a, l)
		}
	}
	if no := s.insert(a, next); no != nil {
		discard()
		return nil, no
	}
	a.client.trust(a)
	return a, nil
}

// writeAllocated writes the success response of RFC 8656 §7.2.
func (w *worker) writeAllocated(r *request, a *allocation) {
	r.alloc = a
	for _, l := range a.legs {
		w.addAddress(stun.AttrXORRelayedAddress, l.relayed)
	}
	w.out.Add(stun.AttrLifetime, lifetimeValue(a.deadline.time().Sub(r.now)))
	if a.reserve != nil {
		w.out.Add(stun.AttrReservationToken, a.reserve[:])
	}
	if r.msg.Contains(attrAdditionalAddressFamily) && len(a.legs) == 1 {
		code, phrase := stun.CodeAddrFamilyNotSupported, "Address Family not Supported"
		if w.s.faces.of(familyIPv6).relay.IsValid() {
			code, phrase = stun.CodeInsufficientCapacity, "Insufficient Capacity"
		}
		w.out.Add(attrAddressErrorCode, append([]byte{familyIPv6, 0, byte(code / 100), byte(code % 100)}, phrase...))
	}
	w.addAddress(stun.AttrXORMappedAddress, r.five.Client)
}

func (w *worker) addAddress(t stun.AttrType, a netip.AddrPort) {
	var b [20]byte
	w.out.Add(t, appendXORAddress(b[:0], a, w.out.TransactionID))
}

var errNoPort = errors.New("every relayed port is in use")

// maxPortTries bounds the system calls of one Allocate where others hold our ports.
const maxPortTries = 64

// openLegs opens what an Allocate wants, and the next port where that is to be reserved. Of
// a dual allocation the IPv4 half must be had.
func (s *Server) openLegs(want wanted, r *request) (legs []*leg, next *leg, err error) {
	var l *leg
	switch {
	case want.token != nil:
		l, err = s.takeReserved(*want.token, r.now)
	case want.pair:
		l, next, err = s.openPair(want.family)
	default:
		l, err = s.openLeg(want.family, want.even)
	}
	if err != nil {
		return nil, nil, err
	}
	legs = []*leg{l}
	if want.also && s.faces.of(familyIPv6).relay.IsValid() {
		if l, err = s.openLeg(familyIPv6, want.even); err != nil {
			s.log.Warn("relay: no relayed socket of IPv6", "err", err)
		} else {
			legs = append(legs, l)
		}
	}
	return legs, next, nil
}

// openLeg opens a leg on a port of our range.
func (s *Server) openLeg(family byte, even bool) (*leg, error) {
	sock, bound, err := s.openRelay(s.faces.of(family).relay, even)
	if err != nil {
		return nil, err
	}
	return s.newLeg(sock, bound), nil
}

// openLegAt opens a leg on a given port.
func (s *Server) openLegAt(at netip.AddrPort) (*leg, error) {
	pc, err := s.cfg.ListenPacket(s.ctx, at)
	if err != nil {
		return nil, err
	}
	return s.newLeg(socketOf(pc), boundTo(pc, at)), nil
}

func (s *Server) newLeg(sock socket, bound netip.AddrPort) *leg {
	l := &leg{sock: sock, bound: bound, relayed: bound}
	if ip := s.faces.of(l.family()).external; ip.IsValid() {
		l.relayed = netip.AddrPortFrom(ip, bound.Port())
	}
	l.setsDF = l.setWhole(false) == nil // Linux sets DF by itself
	return l
}

// openRelay binds a socket to a port at random, so that a relayed address cannot be guessed
// (RFC 8656 §7.2, RFC 6056 §3.3.1), and tries the following ones while it is taken. A port
// that is nobody's peer, such as that of a TCP listener of ours, is none to give out.
func (s *Server) openRelay(ip netip.Addr, even bool) (socket, netip.AddrPort, error) {
	size := int(s.cfg.MaxPort) - int(s.cfg.MinPort) + 1
	var random [4]byte
	_, _ = rand.Read(random[:]) // crypto/rand does not fail
	start, tries := int(binary.BigEndian.Uint32(random[:]))%size, 0
	for i := range size {
		port := s.cfg.MinPort + uint16((start+i)%size)
		addr := netip.AddrPortFrom(ip, port)
		if even && port%2 != 0 || s.relayed.load(addr) != nil || s.policy.barred(addr) {
			continue
		}
		pc, err := s.cfg.ListenPacket(s.ctx, addr)
		if err == nil {
			return socketOf(pc), boundTo(pc, addr), nil
		}
		if tries++; !errors.Is(err, syscall.EADDRINUSE) || tries == maxPortTries {
			return nil, netip.AddrPort{}, err
		}
	}
	return nil, netip.AddrPort{}, errNoPort
}

// boundTo returns where pc is bound: its own word counts before what it was asked for.
func boundTo(pc net.PacketConn, asked netip.AddrPort) netip.AddrPort {
	if bound := addrPortOf(pc.LocalAddr()); bound.IsValid() && !bound.Addr().IsUnspecified() {
		return bound
	}
	return asked
}
