package relay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

const (
	stunHeaderLen    = 20
	channelHeaderLen = 4
	fingerprintLen   = 8 // FINGERPRINT with its header

	attributeHeaderLen = 4
)

// worker handles what one socket or stream receives, one message after the other, and owns
// the memory for that.
type worker struct {
	s   *Server
	in  *stun.Message
	out *stun.Message
	udp udpClient // of the datagram at hand

	carrier *carrier  // whose it is, or nil
	now     time.Time // of the carrier's pass
}

// time is when the message at hand is handled.
func (w *worker) time() time.Time {
	if w.carrier != nil {
		return w.now
	}
	return w.s.cfg.Now()
}

// flush sends what waits in the carrier for peers.
func (w *worker) flush() {
	if w.carrier != nil {
		w.carrier.flushPeers()
	}
}

// newWorker returns a worker. Strict decoding drops what follows MESSAGE-INTEGRITY, but for
// MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5).
func newWorker(s *Server) *worker {
	return &worker{s: s, in: stun.NewWithOptions(stun.WithStrict(true)), out: stun.New()}
}

// handle takes one message from a client. It keeps nothing of b, and cap(b) must be len(b):
// pion/stun uses the room behind a message as scratch.
func (w *worker) handle(b []byte, five FiveTuple, conn clientConn) {
	switch {
	case len(b) < channelHeaderLen:
		w.s.metrics.drop(dropMalformed)
	case b[0] < 4: // RFC 8656 §12, table 3: STUN
		w.handleSTUN(b, five, conn)
	case isChannel(b[0]):
		w.handleChannelData(b, five)
	default:
		w.s.metrics.drop(dropMalformed)
	}
}

// handleSTUN sorts a STUN message by class and method (RFC 8489 §6.3). What is wrong in
// form is dropped in silence.
func (w *worker) handleSTUN(b []byte, five FiveTuple, conn clientConn) {
	if len(b) < stunHeaderLen || int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeaderLen {
		w.s.metrics.drop(dropMalformed)
		return
	}
	m := w.in
	m.Raw = b
	if m.Decode() != nil {
		w.s.metrics.drop(dropMalformed)
		return
	}
	defer w.forget()
	if !fingerprintHolds(m) {
		w.s.metrics.drop(dropFingerprint)
		return
	}
	if five.Transport == UDP && w.s.relayed.load(five.Client) != nil {
		w.s.metrics.drop(dropLoop) // RFC 8656 §21.1.7
		return
	}
	switch {
	case m.Type == sendIndication:
		w.handleSend(m, five)
	case m.Type.Class == stun.ClassRequest && methodNames[m.Type.Method] != "":
		w.handleRequest(m, five, conn)
	case m.Type == bindingIndication: // a keep-alive (RFC 8489 §6.3.2)
	default:
		w.s.metrics.drop(dropUnsupported)
	}
}

// maxKeptAttributes is how many attributes' room a worker keeps between messages; one
// datagram can hold 16,000.
const maxKeptAttributes = 64

// forget drops the references to the message's memory.
func (w *worker) forget() {
	w.in.Raw = nil
	if cap(w.in.Attributes) > maxKeptAttributes {
		w.in.Attributes = nil
	}
}

// fingerprintHolds reports whether FINGERPRINT, where there is one, is the last attribute
// and right (RFC 8489 §14.7).
func fingerprintHolds(m *stun.Message) bool {
	if !m.Contains(stun.AttrFingerprint) {
		return true
	}
	last := m.Raw[len(m.Raw)-fingerprintLen:]
	return binary.BigEndian.Uint16(last) == stun.AttrFingerprint.Value() &&
		binary.BigEndian.Uint16(last[2:]) == fingerprintLen-4 &&
		binary.BigEndian.Uint32(last[4:]) == stun.FingerprintValue(m.Raw[:len(m.Raw)-fingerprintLen])
}

// udpClient is the clientConn of a UDP five-tuple.
type udpClient struct {
	sock  socket
	addr  netip.AddrPort
	local netip.Addr // by which the client reached us, where sock is bound to every address
}

// sourceSocket is a socket that can be told by which address a datagram leaves.
type sourceSocket interface {
	writeFrom(b []byte, from netip.Addr, to netip.AddrPort) error
}

func (c *udpClient) write(b []byte) error {
	if s, ok := c.sock.(sourceSocket); ok && c.local.IsValid() {
		return s.writeFrom(b, c.local, c.addr)
	}
	_, err := c.sock.WriteToUDPAddrPort(b, c.addr)
	return err
}

func (c *udpClient) retain() clientConn {
	kept := *c
	return &kept
}

func (c *udpClient) trust(*allocation) {}
func (c *udpClient) release()          {}
