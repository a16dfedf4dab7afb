package relay

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// A relay whose RelayIP is of IPv6 allocates IPv6, and that only (RFC 8656 §7.2, step 7).
func TestIPv6Relay(t *testing.T) {
	ip := netip.IPv6Loopback()
	outside, err := net.ListenUDP("udp6", &net.UDPAddr{IP: ip.AsSlice()})
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	p := &peer{t, outside, addrPortOf(outside.LocalAddr())}
	w := newWorld(t, func(c *Config) { c.RelayIP, c.AllowPeers = ip, []netip.Prefix{netip.PrefixFrom(ip, 128)} })

	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeAddrFamilyNotSupported)
	relayed := c.allocate(attr(stun.AttrRequestedAddressFamily, familyIPv6, 0, 0, 0))
	wantCode(t, c.permit(netip.MustParseAddrPort("127.0.0.1:9")), stun.CodePeerAddrFamilyMismatch)
	wantCode(t, c.permit(netip.MustParseAddrPort("[::ffff:10.0.0.1]:9")), stun.CodeForbidden)

	wantCode(t, c.permit(p.addr), 0)
	c.sendTo(p.addr, "hello")
	p.want(relayed, "hello")
	p.send(relayed, "back")
	c.wantData(p.addr, "back")

	// The longest datagram of IPv6 does not fit a Data indication; a second one meets room.
	for range 2 {
		p.send(relayed, string(make([]byte, 65527)))
	}
	eventually(t, "both are dropped", func() bool { return w.dropped(dropOversize) == 2 })
	wantCode(t, c.bind(0x4000, p.addr), 0)
	p.send(relayed, "by channel")
	c.wantChannel(0x4000, "by channel")
}
