package relay

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

func newTestPolicy(cfg Config) *peerPolicy {
	if !cfg.RelayIP.IsValid() {
		cfg.RelayIP = netip.MustParseAddr("198.51.100.7")
	}
	return newPeerPolicy(&cfg, slog.New(slog.DiscardHandler))
}

// edges returns the first, a middle and the last address of p.
func edges(p netip.Prefix) []netip.Addr {
	first := p.Masked().Addr()
	last, middle := first.AsSlice(), first.AsSlice()
	for bit := p.Bits(); bit < first.BitLen(); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
		if bit == p.Bits() || bit == first.BitLen()-1 {
			middle[bit/8] |= 0x80 >> (bit % 8)
		}
	}
	l, _ := netip.AddrFromSlice(last)
	m, _ := netip.AddrFromSlice(middle)
	return []netip.Addr{first, m, l}
}

func TestDeniedRanges(t *testing.T) {
	p := newTestPolicy(Config{RelayIP: netip.MustParseAddr("8.8.4.4")})
	for _, prefix := range slices.Concat(neverPeers, deniedPeers) {
		for _, ip := range edges(prefix) {
			if v := p.judge(ip); v != denied {
				t.Errorf("judge(%s) = %d, want denied as part of %s", ip, v, prefix)
			}
			if ip.Is4() {
				for name, hidden := range encodings(ip) {
					if v := p.judge(hidden); v != denied {
						t.Errorf("judge(%s), %s of %s = %d, want denied", hidden, name, ip, v)
					}
				}
			}
		}
	}
	for _, s := range []string{"1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "223.255.255.255", "2606:4700::1111"} {
		ip := netip.MustParseAddr(s)
		if v := p.judge(ip); v != open {
			t.Errorf("judge(%s) = %d, want open", ip, v)
		}
		if ip.Is4() {
			for name, hidden := range encodings(ip) {
				if v := p.judge(hidden); v != open && name != "Teredo" { // Teredo stands in 2001::/23
					t.Errorf("judge(%s), %s of %s = %d, want open", hidden, name, ip, v)
				}
			}
		}
	}
}

// encodings are the ways in which IPv6 hides ip.
func encodings(ip netip.Addr) map[string]netip.Addr {
	v4 := ip.As4()
	at := func(prefix string, pos int, b [4]byte) netip.Addr {
		a := netip.MustParseAddr(prefix).As16()
		copy(a[pos:], b[:])
		return netip.AddrFrom16(a)
	}
	inverted := [4]byte{^v4[0], ^v4[1], ^v4[2], ^v4[3]}
	all := map[string]netip.Addr{
		"mapped": netip.AddrFrom16(ip.As16()), "translated": at("::ffff:0:0:0", 12, v4),
		"NAT64": at("64:ff9b::", 12, v4), "6to4": at("2002::1", 2, v4), "Teredo": at("2001:0:101:101::", 12, inverted),
	}
	if n := binary.BigEndian.Uint32(v4[:]); n > 1 {
		all["compatible"] = at("::", 12, v4)
	}
	return all
}

func TestAllowPeersAndDenyPeers(t *testing.T) {
	p := newTestPolicy(Config{
		AllowPeers: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/16"), netip.MustParsePrefix("::ffff:192.168.0.0/112"), netip.MustParsePrefix("0.0.0.0/0")},
		DenyPeers:  []netip.AddrPort{netip.MustParseAddrPort("10.1.0.9:5060"), netip.MustParseAddrPort("10.1.0.10:0")},
	})
	for s, want := range map[string]verdict{
		"10.1.255.255": open, "::ffff:10.1.2.3": open, "192.168.3.4": open,
		"0.0.0.0": denied, "224.0.0.1": denied, "255.255.255.255": denied, // never, whatever is allowed
		"10.1.0.10": denied, "::1": denied,
	} {
		if v := p.judge(netip.MustParseAddr(s)); v != want {
			t.Errorf("judge(%s) = %d, want %d", s, v, want)
		}
	}
	if !p.barred(netip.MustParseAddrPort("10.1.0.9:5060")) || p.barred(netip.MustParseAddrPort("10.1.0.9:5061")) {
		t.Error("DenyPeers is for its port")
	}
}

// A listener on a wildcard address is one on every address of the host.
func TestWildcardListenerIsBarredEverywhere(t *testing.T) {
	p := newTestPolicy(Config{})
	p.deny(netip.MustParseAddrPort("0.0.0.0:3478"))
	for _, s := range []string{"127.0.0.1:3478", "127.9.9.9:3478", "[::1]:3478", "198.51.100.7:3478"} {
		if !p.barred(netip.MustParseAddrPort(s)) {
			t.Errorf("%s is not barred", s)
		}
	}
	for _, ip := range interfaceAddrs() {
		if !p.barred(netip.AddrPortFrom(ip, 3478)) {
			t.Errorf("%s is not barred", ip)
		}
	}
}

// Two users of one relay talk relay to relay, though its address is in a denied range;
// other ports of that address stay closed, and a listener gets nothing.
func TestRelayToRelay(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AllowPeers = nil })
	a, b := w.client(t, UDP, w.credential(t, "alice", 1)), w.client(t, TCP, w.credential(t, "bob", 1))
	ra, rb := a.allocate(), b.allocate()

	wantCode(t, a.permit(ra), 0)
	a.sendTo(ra, "to myself")
	a.wantData(ra, "to myself")

	wantCode(t, a.bind(0x4001, rb), 0)
	a.sendChannel(0x4001, "too early")
	eventually(t, "drop for want of a permission", func() bool { return w.dropped(dropNoPermission) == 1 })
	wantCode(t, b.permit(ra), 0)
	a.sendChannel(0x4001, "hello")
	b.wantData(ra, "hello") // and not what came before the permission
	wantCode(t, b.bind(0x4002, ra), 0)
	b.sendChannel(0x4002, "hello yourself")
	a.wantChannel(0x4001, "hello yourself")

	stranger := newPeer(t)
	wantCode(t, a.bind(0x4003, stranger.addr), stun.CodeForbidden)
	wantCode(t, a.permit(stranger.addr), 0) // its address is rb's
	a.sendTo(stranger.addr, "x")
	stranger.send(ra, "y")
	a.wantSilence()
	stranger.wantNothing()
	wantCode(t, a.bind(0x4004, w.udp), stun.CodeForbidden)

	// When bob's allocation ends, its port is closed to alice.
	wantCode(t, b.signed(stun.MethodRefresh, lifetime(0)), 0)
	squatter := newPeerAt(t, rb)
	a.sendChannel(0x4001, "x")
	a.wantSilence()
	squatter.wantNothing()
}

// Users of two relays talk relay to relay, and neither reaches a listener of the other's
// that is listed.
func TestTwoRelays(t *testing.T) {
	one := newWorld(t, nil)
	other := newWorld(t, func(c *Config) { c.DenyPeers = []netip.AddrPort{one.udp, one.tcp} })
	a, b := one.client(t, UDP, one.credential(t, "alice", 1)), other.client(t, TLS, other.credential(t, "bob", 1))
	talk(t, a, b)
	wantCode(t, b.bind(0x4001, one.udp), stun.CodeForbidden)
	b.sendTo(one.udp, string(build(stun.MethodBinding, stun.ClassRequest).Raw))
	b.wantSilence()
}

// silentSocket counts what would have left.
type silentSocket struct {
	*memPacketConn
	sent *atomic.Int64
}

func (s silentSocket) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) {
	s.sent.Add(1)
	return len(b), nil
}

// No packet leaves for the first, a middle and the last address of each denied range, in
// whatever encoding: CreatePermission and ChannelBind are refused, and Send goes nowhere.
func noPacketLeaves(t *testing.T) {
	t.Helper()
	var sent atomic.Int64
	w := newWorld(t, func(c *Config) {
		c.AllowPeers, c.RelayIP, c.RelayIP6 = nil, netip.MustParseAddr("8.8.4.4"), netip.MustParseAddr("2606:4700::1")
		c.ListenPacket = func(_ context.Context, addr netip.AddrPort) (net.PacketConn, error) {
			return silentSocket{newMemPacketConn(addr), &sent}, nil
		}
	})
	c := w.client(t, UDP, provision(t, w.sharedKey, "alice", 1, time.Hour))
	c.challenge()
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP, attr(attrAdditionalAddressFamily, familyIPv6, 0, 0, 0)), 0)
	tried := 0
	deny := func(ip netip.Addr, what string) {
		tried++
		peer := netip.AddrPortFrom(ip, 80)
		if code := codeOf(c.permit(peer)); code != stun.CodeForbidden {
			t.Errorf("CreatePermission for %s, %s: %d, want 403", ip, what, code)
		}
		if code := codeOf(c.bind(0x4000, peer)); code != stun.CodeForbidden {
			t.Errorf("ChannelBind for %s, %s: %d, want 403", ip, what, code)
		}
		c.sendTo(peer, "x")
		c.sendChannel(0x4000, "x")
	}
	for _, prefix := range slices.Concat(neverPeers, deniedPeers) {
		for _, ip := range edges(prefix) {
			deny(ip, prefix.String())
			if ip.Is4() {
				for name, hidden := range encodings(ip) {
					deny(hidden, name+" of "+ip.String())
				}
			}
		}
	}
	c.wantSilence()
	if n := sent.Load(); n != 0 || tried < 300 {
		t.Errorf("%d packets left for %d denied peers", n, tried)
	}
	for _, ip := range []string{"9.9.9.9", "2606:4700::1111"} { // or nothing could have left
		wantCode(t, c.permit(netip.MustParseAddrPort(net.JoinHostPort(ip, "80"))), 0)
		c.sendTo(netip.MustParseAddrPort(net.JoinHostPort(ip, "80")), "x")
	}
	eventually(t, "two packets leave", func() bool { return sent.Load() == 2 })
}

// RFC 8656 §21.1.7: what comes from a relayed address of ours to a listener is dropped.
func TestNothingLoops(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	wantCode(t, c.permit(w.udp), 0) // 127.0.0.1 is open here; the port is not asked
	c.sendTo(w.udp, string(build(stun.MethodBinding, stun.ClassRequest).Raw))
	c.wantSilence()

	// Past the policy: as if the datagram had come all the same.
	out := &sink{}
	b := build(stun.MethodBinding, stun.ClassRequest).Raw
	newWorker(w.Server).handle(b[:len(b):len(b)], FiveTuple{UDP, relayed, w.udp}, out)
	if out.n != 0 {
		t.Error("a relayed address of ours got an answer from a listener")
	}
}

// sink is a clientConn that counts.
type sink struct{ n int }

func (s *sink) write([]byte) error { s.n++; return nil }
func (s *sink) retain() clientConn { return s }
func (s *sink) trust(*allocation)  {}
func (s *sink) release()           {}
