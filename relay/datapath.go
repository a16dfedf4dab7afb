package relay

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

const (
	// headroom is what a Data indication puts before the data: STUN header,
	// XOR-PEER-ADDRESS of IPv6, header of DATA.
	headroom = stunHeaderLen + 4 + 20 + 4
	// tailroom pads data to a multiple of four.
	tailroom = 3

	// A relayed socket begins with room for what fits an Ethernet frame, since most
	// allocations idle. A datagram that does not fit is lost and makes the room as large
	// as UDP goes.
	smallDatagram = 2048
	largeDatagram = 65535
)

// handleChannelData relays the data of a ChannelData message (RFC 8656 §12.6).
func (w *worker) handleChannelData(b []byte, five FiveTuple) {
	n := int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < channelHeaderLen+n {
		w.s.metrics.drop(dropMalformed)
		return
	}
	now := w.time()
	a := w.s.flows.load(five)
	if a == nil || !a.liveAt(now) {
		w.s.metrics.drop(dropNoAllocation)
		return
	}
	c := a.paths.channel(binary.BigEndian.Uint16(b), now)
	if c == nil {
		w.s.metrics.drop(dropNoChannel)
		return
	}
	w.sendToPeer(a, b[channelHeaderLen:channelHeaderLen+n], c.peer, c.verdict, now)
}

// sendToPeer sends data to peer from a's relayed address, or has w's carrier do so.
func (w *worker) sendToPeer(a *allocation, data []byte, peer netip.AddrPort, v verdict, now time.Time) {
	s := w.s
	if !s.admits(v, peer) {
		s.metrics.drop(dropDeniedPeer)
		return
	}
	if !s.affords(a, len(data), now) {
		s.metrics.drop(dropByteQuota)
		return
	}
	l := a.leg(peer.Addr())
	if l == nil { // it ended in between
		s.metrics.drop(dropNoAllocation)
		return
	}
	to := s.faces.inward(peer)
	if w.carrier != nil && w.carrier.post(a, l, data, to) {
		return
	}
	if _, err := l.sock.WriteToUDPAddrPort(data, to); err != nil {
		s.metrics.drop(dropWrite)
		return
	}
	a.toPeer.count(len(data))
}

// admits reports whether datagrams may pass to and from peer, whose address has verdict v.
// It is asked for each one: relayed addresses of ours come and go.
func (s *Server) admits(v verdict, peer netip.AddrPort) bool {
	switch v {
	case open:
		return !s.policy.barred(peer)
	case relayedOnly:
		return s.relayed.load(peer) != nil
	}
	return false
}

// relayLoop is the only reader of a leg's socket that no carrier has. It returns when the
// leg has ended.
func (s *Server) relayLoop(a *allocation, l *leg) {
	defer s.wg.Done()
	buf := make([]byte, headroom+smallDatagram+1+tailroom)
	for {
		room := buf[headroom : len(buf)-tailroom]
		n, from, err := l.sock.ReadFromUDPAddrPort(room)
		switch {
		case err != nil && (errors.Is(err, net.ErrClosed) || a.ended.Load() || l.ended.Load()):
			return
		case err != nil:
			s.log.Warn("relay: relayed socket failed", "relayed", l.relayed, "err", err)
			s.end(a, EndSocket)
			return
		case n == len(room): // the byte too many says that it was cut
			s.metrics.drop(dropOversize)
			if a.paths.permits(s.faces.outward(unmapped(from)).Addr(), s.cfg.Now()) != nil { // no stranger makes it grow
				buf = make([]byte, headroom+largeDatagram+1+tailroom)
			}
			continue
		}
		s.sendToClient(a, buf, n, unmapped(from))
	}
}

// sendToClient relays a datagram of n bytes, which stands in buf behind headroom, to a's
// client.
func (s *Server) sendToClient(a *allocation, buf []byte, n int, from netip.AddrPort) {
	message := s.messageToClient(a, buf, n, from, s.cfg.Now())
	if message == nil {
		return
	}
	if a.client.write(message) != nil {
		s.metrics.drop(dropWrite)
		return
	}
	a.toClient.count(n)
}

// messageToClient makes the message that takes a peer's datagram to a's client (RFC 8656
// §11.3, §12.7), or returns nil where that must not pass. It writes the header in front of
// the data, in place.
func (s *Server) messageToClient(a *allocation, buf []byte, n int, from netip.AddrPort, now time.Time) []byte {
	if !a.liveAt(now) {
		s.metrics.drop(dropNoAllocation)
		return nil
	}
	peer := s.faces.outward(from)
	perm := a.paths.permits(peer.Addr(), now)
	if perm == nil {
		s.metrics.drop(dropNoPermission)
		return nil
	}
	if !s.admits(perm.verdict, peer) {
		s.metrics.drop(dropDeniedPeer)
		return nil
	}
	if !s.affords(a, n, now) {
		s.metrics.drop(dropByteQuota)
		return nil
	}
	if c := a.paths.channelOf(peer, now); c != nil {
		return channelData(buf, n, c.number, a.five.Transport != UDP)
	}
	message := dataMessage(buf, n, peer)
	if message == nil {
		s.metrics.drop(dropOversize)
	}
	return message
}

// channelData puts the header of RFC 8656 §12.4 before the data; on streams the message is
// padded to a multiple of four (§12.5).
func channelData(buf []byte, n int, number uint16, pad bool) []byte {
	m := buf[headroom-channelHeaderLen : headroom+n]
	binary.BigEndian.PutUint16(m, number)
	binary.BigEndian.PutUint16(m[2:], uint16(n))
	if pad {
		m = padded(m)
	}
	return m
}

// maxSTUNLength is the largest value of a STUN message's length field.
const maxSTUNLength = 65532

// dataMessage puts a Data indication around the data (RFC 8656 §11.3), or returns nil where
// the whole is longer than STUN can say: a datagram of IPv6 at its longest.
func dataMessage(buf []byte, n int, peer netip.AddrPort) []byte {
	addressLen := 8
	if peer.Addr().Is6() {
		addressLen = 20
	}
	start := headroom - (stunHeaderLen + 4 + addressLen + 4)
	m := padded(buf[start : headroom+n])
	if len(m)-stunHeaderLen > maxSTUNLength {
		return nil
	}

	// "MUST be uniformly and randomly chosen" (RFC 8489 §5). ChaCha8 without a lock will do:
	// no answer to an indication could be forged, since there is none.
	var id [stun.TransactionIDSize]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64())  //nolint:gosec // see above
	binary.BigEndian.PutUint32(id[8:], rand.Uint32()) //nolint:gosec // see above

	binary.BigEndian.PutUint16(m, dataIndication.Value())
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-stunHeaderLen))
	binary.BigEndian.PutUint32(m[4:], magicCookie)
	copy(m[8:], id[:])
	at := m[stunHeaderLen:]
	binary.BigEndian.PutUint16(at, stun.AttrXORPeerAddress.Value())
	binary.BigEndian.PutUint16(at[2:], uint16(addressLen))
	appendXORAddress(at[4:4], peer, id)
	at = at[4+addressLen:]
	binary.BigEndian.PutUint16(at, stun.AttrData.Value())
	binary.BigEndian.PutUint16(at[2:], uint16(n))
	return m
}

// padded extends m, which has tailroom, with zeros to a multiple of four.
func padded(m []byte) []byte {
	n := len(m)
	m = m[:(n+3)&^3]
	clear(m[n:])
	return m
}
