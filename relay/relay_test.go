package relay

import (
	"strings"
	"testing"
)

func TestRelaysBothWays(t *testing.T) {
	for _, transport := range []Transport{UDP, TCP, TLS} {
		t.Run(transport.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			c := w.client(t, transport, w.credential(t, "alice@ims.test", 1))
			relayed := c.allocate()
			p := newPeer(t)

			wantCode(t, c.permit(p.addr), 0)
			c.sendTo(p.addr, "by Send")
			p.want(relayed, "by Send")
			p.send(relayed, "odd")
			c.wantData(p.addr, "odd")

			wantCode(t, c.bind(0x4000, p.addr), 0)
			c.sendChannel(0x4000, "by channel")
			p.want(relayed, "by channel")
			p.send(relayed, "x")
			c.wantChannel(0x4000, "x")
			c.sendChannel(0x4000, "")
			p.want(relayed, "")

			large := strings.Repeat("l", 60_000)
			c.sendChannel(0x4000, large)
			p.want(relayed, large)

			eventually(t, "all is counted", func() bool {
				list := w.Allocations()
				return len(list) == 1 && list[0].Relayed == relayed && list[0].PacketsToPeer == 4 && list[0].BytesToClient == 4
			})
		})
	}
}

// A datagram beyond a frame's size is lost once, and then there is room; a stranger's
// changes nothing.
func TestLargeDatagramsFromPeers(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, TCP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	p, large := newPeer(t), strings.Repeat("l", 60_000)
	for range 2 {
		p.send(relayed, large)
	}
	eventually(t, "the stranger's are dropped", func() bool { return w.dropped(dropOversize) == 2 })
	wantCode(t, c.bind(0x4000, p.addr), 0)
	p.send(relayed, large)
	eventually(t, "the first is dropped", func() bool { return w.dropped(dropOversize) == 3 })
	p.send(relayed, large)
	c.wantChannel(0x4000, large)
}
