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

// One relay of both families: a client has either, or both in a dual allocation, of which
// each half can end by itself (RFC 8656 §8.1).
func TestDualAllocation(t *testing.T) {
	outside, err := net.ListenUDP("udp6", &net.UDPAddr{IP: netip.IPv6Loopback().AsSlice()})
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	p4, p6 := newPeer(t), &peer{t, outside, addrPortOf(outside.LocalAddr())}
	w := newWorld(t, func(c *Config) {
		c.RelayIP6, c.AllowPeers = netip.IPv6Loopback(), append(c.AllowPeers, netip.PrefixFrom(netip.IPv6Loopback(), 128))
	})
	v6 := attr(stun.AttrRequestedAddressFamily, familyIPv6, 0, 0, 0)
	for _, attrs := range [][]stun.RawAttribute{nil, {v6}} {
		c := w.client(t, UDP, w.credential(t, "alice", 1))
		relayed := c.allocate(attrs...)
		if relayed.Addr().Is6() != (attrs != nil) {
			t.Errorf("%v: relayed %s", attrs, relayed)
		}
		wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), 0)
	}

	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	res := c.signed(stun.MethodAllocate, transportUDP, attr(attrAdditionalAddressFamily, familyIPv6, 0, 0, 0))
	wantCode(t, res, 0)
	var relayed []netip.AddrPort
	for _, a := range res.Attributes {
		if a.Type == stun.AttrXORRelayedAddress {
			at, _ := parseXORAddress(a.Value, res.TransactionID)
			relayed = append(relayed, at)
		}
	}
	if len(relayed) != 2 || !relayed[0].Addr().Is4() || !relayed[1].Addr().Is6() || res.Contains(attrAddressErrorCode) {
		t.Fatalf("relayed %v, want one of each family", relayed)
	}
	wantCode(t, c.permit(p4.addr, p6.addr), 0)
	wantCode(t, c.bind(0x4006, p6.addr), 0)
	c.sendTo(p4.addr, "four")
	p4.want(relayed[0], "four")
	c.sendChannel(0x4006, "six")
	p6.want(relayed[1], "six")
	p4.send(relayed[0], "from four")
	c.wantData(p4.addr, "from four")
	p6.send(relayed[1], "from six")
	c.wantChannel(0x4006, "from six")

	wantLifetime(t, c.signed(stun.MethodRefresh, v6, lifetime(0)), 0)
	if i := w.Allocations()[0]; i.Permissions != 1 || i.Channels != 0 || i.Relayed != relayed[0] || i.Relayed6 != relayed[1] {
		t.Errorf("after the end of IPv6: %+v", i)
	}
	wantCode(t, c.signed(stun.MethodRefresh, v6), stun.CodePeerAddrFamilyMismatch)
	wantCode(t, c.permit(p6.addr), stun.CodePeerAddrFamilyMismatch)
	c.sendChannel(0x4006, "late")
	c.wantSilence()
	p6.wantNothing()
	c.sendTo(p4.addr, "still here")
	p4.want(relayed[0], "still here")
	pc, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(relayed[1])) // the port is free again
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.Close()

	wantCode(t, c.signed(stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, familyIPv4, 0, 0, 0), lifetime(0)), 0)
	if live := len(w.Allocations()); live != 0 {
		t.Errorf("%d allocations live without an address", live)
	}
	if _, err := New(Config{Realm: testRealm, RelayIP: netip.IPv6Loopback(), RelayIP6: netip.IPv6Loopback(), Auth: unknownUsers{}}); err == nil {
		t.Error("RelayIP6 beside a RelayIP of IPv6 was taken")
	}
}
