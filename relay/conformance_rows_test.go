package relay

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// Rows that have no file of their own.

// RFC 8656 §7.2, step 2: the same transaction id is a retransmission, another one is 437.
func retransmittedAllocate(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	m := c.sign(c.request(stun.MethodAllocate, transportUDP))
	first, second := c.do(m), c.do(m)
	wantCode(t, second, 0)
	if a, b := c.relayed(first), c.relayed(second); a != b {
		t.Errorf("relayed %s, then %s", a, b)
	}
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeAllocMismatch)
}

func evenPort(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	if port := c.allocate(attr(stun.AttrEvenPort, 0)).Port(); port%2 != 0 {
		t.Errorf("EVEN-PORT gave %d", port)
	}
	rtp := w.client(t, UDP, w.credential(t, "alice", 1))
	port, token := rtp.pair()
	if next := w.client(t, UDP, w.credential(t, "alice", 1)).allocate(token).Port(); port%2 != 0 || next != port+1 {
		t.Errorf("EVEN-PORT with R gave %d and then %d", port, next)
	}
}

func dontFragmentIsTaken(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed, p := c.allocate(attr(stun.AttrDontFragment)), newPeer(t)
	wantCode(t, c.permit(p.addr), 0)
	m := build(stun.MethodSend, stun.ClassIndication, attr(stun.AttrDontFragment), attr(stun.AttrData, 'x'))
	m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, m.TransactionID))
	c.send(m.Raw)
	p.want(relayed, "x")
}

// A client asks for as many permissions as it likes, and does not get them.
func hundredsOfPermissions(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	const asked = 300
	granted := 0
	for i := range asked {
		if codeOf(c.permit(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 9))) == 0 {
			granted++
		}
	}
	if granted == asked {
		t.Errorf("%d permissions for one allocation", granted)
	}
}

// Two users of one server talk relay to relay.
func relayToRelay(t testing.TB, w *world) {
	t.Helper()
	a, b := w.client(t, UDP, w.credential(t, "alice", 1)), w.client(t, TCP, w.credential(t, "bob", 1))
	talk(t, a, b)
}

// talk has two clients, of one server or of two, talk relay to relay.
func talk(t testing.TB, a, b *rawClient) {
	t.Helper()
	ra, rb := a.allocate(), b.allocate()
	wantCode(t, a.bind(0x4000, rb), 0)
	wantCode(t, b.permit(ra), 0)
	a.sendChannel(0x4000, "hello")
	b.wantData(ra, "hello")
	b.sendTo(ra, "hello yourself")
	a.wantChannel(0x4000, "hello yourself")
}
