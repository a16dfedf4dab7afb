package relay

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// channelPacket is ChannelData with 172 bytes: G.711 of 20 ms in RTP.
func channelPacket() []byte {
	b := binary.BigEndian.AppendUint16(nil, 0x4000)
	b = binary.BigEndian.AppendUint16(b, 172)
	b = append(b, make([]byte, 172)...)
	return b[:len(b):len(b)]
}

func sendPacket(peer netip.AddrPort) []byte {
	m := build(stun.MethodSend, stun.ClassIndication)
	m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, peer, m.TransactionID))
	m.Add(stun.AttrData, make([]byte, 172))
	return m.Raw[:len(m.Raw):len(m.Raw)]
}

// directions are the four ways of a packet through the relay.
func directions(t testing.TB) map[string]func() {
	work, five, _ := fuzzRelay(t)
	a := work.s.flows.load(five)
	peer, client := netip.MustParseAddrPort("127.0.0.1:9"), &sink{}
	channel, send := channelPacket(), sendPacket(peer)
	stranger := netip.AddrPortFrom(peer.Addr(), 10) // permitted, without a channel
	buf := make([]byte, headroom+smallDatagram+1+tailroom)
	return map[string]func(){
		"ChannelData to peer":   func() { work.handle(channel, five, client) },
		"Send to peer":          func() { work.handle(send, five, client) },
		"ChannelData to client": func() { work.s.sendToClient(a, buf, 172, peer) },
		"Data to client":        func() { work.s.sendToClient(a, buf, 171, stranger) },
	}
}

func TestDataPathTakesNoMemory(t *testing.T) {
	for name, f := range directions(t) {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations a packet, want 0", name, n)
		}
	}
}

func BenchmarkDataPath(b *testing.B) {
	for name, f := range directions(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

// BenchmarkRelay sends ChannelData through real sockets, one packet at a time.
func BenchmarkRelay(b *testing.B) {
	w := newWorld(b, nil)
	c := w.client(b, UDP, w.credential(b, "alice", 1))
	c.allocate()
	p := newPeer(b)
	wantCode(b, c.bind(0x4000, p.addr), 0)
	packet, in := channelPacket(), make([]byte, largeDatagram)
	b.ReportAllocs()
	for b.Loop() {
		c.send(packet)
		if _, _, err := p.conn.ReadFromUDPAddrPort(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAllocate(b *testing.B) {
	work, five, c := fuzzRelay(b)
	work.s.cfg.MaxAllocationsPerSubject = 1 << 20
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		five.Client = netip.AddrPortFrom(loopback, uint16(5000+i%50000))
		c.nonce = string(work.s.nonces.appendTo(nil, five, work.s.cfg.Now()))
		for _, m := range []*stun.Message{
			c.sign(c.request(stun.MethodAllocate, transportUDP)), c.sign(c.request(stun.MethodRefresh, lifetime(0))),
		} {
			work.handle(m.Raw[:len(m.Raw):len(m.Raw)], five, &sink{})
		}
	}
}
