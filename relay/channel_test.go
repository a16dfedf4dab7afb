package relay

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// RFC 8656 §12.2.
func TestChannelBind(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.StrictChannels = true })
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	one, two := netip.MustParseAddrPort("127.0.0.1:7001"), netip.MustParseAddrPort("127.0.0.1:7002")
	for _, tt := range []struct {
		name   string
		number uint16
		peer   netip.AddrPort
		want   stun.ErrorCode
	}{
		{"below the range", 0x3FFF, one, stun.CodeBadRequest},
		{"above the range", 0x5000, one, stun.CodeBadRequest},
		{"first", 0x4000, one, 0},
		{"again", 0x4000, one, 0},
		{"number bound to another peer", 0x4000, two, stun.CodeBadRequest},
		{"peer bound to another number", 0x4001, one, stun.CodeBadRequest},
		{"last of the range", 0x4FFF, two, 0},
		{"crosswise", 0x4FFF, one, stun.CodeBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, c.bind(tt.number, tt.peer), tt.want) })
	}
	wantCode(t, c.signed(stun.MethodChannelBind, channelNumber(0x4002)), stun.CodeBadRequest)
	wantCode(t, c.do(c.peerRequest(stun.MethodChannelBind, []netip.AddrPort{one})), stun.CodeBadRequest)
	wantCode(t, c.signed(stun.MethodChannelBind, channelNumber(0x4002), attr(stun.AttrXORPeerAddress, 0, 1, 2)), stun.CodeBadRequest)
	wantCode(t, c.signed(stun.MethodCreatePermission), stun.CodeBadRequest)
	wantCode(t, c.signed(stun.MethodCreatePermission, attr(stun.AttrXORPeerAddress, 0, 9, 2, 2, 1, 1, 1, 1)), stun.CodeBadRequest)
}

// RFC 5766 §11: clients of its time choose from a wider range.
func TestOldChannelNumbers(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, TCP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	for _, number := range []uint16{0x4000, 0x5000, 0x7FFF} {
		p := newPeer(t)
		wantCode(t, c.bind(number, p.addr), 0)
		c.sendChannel(number, "hello")
		p.want(relayed, "hello")
		p.send(relayed, "back")
		c.wantChannel(number, "back")
	}
	wantCode(t, c.bind(0x3FFF, newPeer(t).addr), stun.CodeBadRequest)
	wantCode(t, c.bind(0x8000, newPeer(t).addr), stun.CodeBadRequest)
}

// RFC 8656 §12.6, §11.2: data in a wrong form goes nowhere.
func TestWrongDataIsDropped(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	p := newPeer(t)
	wantCode(t, c.bind(0x4000, p.addr), 0)
	send := func(attrs ...stun.RawAttribute) {
		m := build(stun.MethodSend, stun.ClassIndication)
		m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, m.TransactionID))
		for _, a := range attrs {
			m.Add(a.Type, a.Value)
		}
		c.send(m.Raw)
	}
	c.send([]byte{0x40, 0, 0, 5, 'a', 'b', 'c', 'd'}) // shorter than it says
	c.sendChannel(0x4001, "unbound")
	send() // no DATA
	send(attr(stun.AttrData, 'x'), attr(0x7777))
	c.send(build(stun.MethodSend, stun.ClassIndication, attr(stun.AttrData, 'x')).Raw)
	c.wantSilence()
	p.wantNothing()
	send(attr(stun.AttrData)) // zero bytes are allowed
	c.wantSilence()
	p.want(relayed, "")
}
