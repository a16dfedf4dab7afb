//go:build linux

package relay

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/pion/stun/v3"
)

// spySocket notes for each datagram what the kernel would do with it.
type spySocket struct {
	*net.UDPConn
	level, option int
	mu            sync.Mutex // guards sent
	sent          []int      // the socket's option
}

func (s *spySocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	how := -1
	if e := raw.Control(func(fd uintptr) { how, err = syscall.GetsockoptInt(int(fd), s.level, s.option) }); e != nil || err != nil {
		return 0, e
	}
	s.mu.Lock()
	s.sent = append(s.sent, how)
	s.mu.Unlock()
	return s.UDPConn.WriteToUDPAddrPort(b, to)
}

func (s *spySocket) last() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[len(s.sent)-1]
}

// withSpy has a relay use one, of the family of its RelayIP.
func withSpy(spy *spySocket) func(*Config) {
	return func(c *Config) {
		spy.level, spy.option = syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER
		c.ListenPacket = func(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
			pc, err := listenUDP(ctx, addr)
			if err != nil {
				return nil, err
			}
			if addr.Addr().Is6() {
				spy.level, spy.option = syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER
			}
			spy.UDPConn = pc.(*net.UDPConn)
			return spy, nil
		}
	}
}

// RFC 8656 §7.2 step 4, §14, §15: DF for the datagram that asks for it, and for no other.
func TestDontFragment(t *testing.T) {
	for _, transport := range []Transport{UDP, TCP} {
		spy := &spySocket{}
		w := newWorld(t, withSpy(spy))
		c := w.client(t, transport, w.credential(t, "alice", 1))
		relayed, p := c.allocate(attr(stun.AttrDontFragment)), newPeer(t)
		wantCode(t, c.bind(0x4000, p.addr), 0)
		send := func(attrs ...stun.RawAttribute) {
			m := build(stun.MethodSend, stun.ClassIndication, attrs...)
			m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, m.TransactionID))
			m.Add(stun.AttrData, []byte("x"))
			c.send(m.Raw)
			p.want(relayed, "x")
		}
		for _, tt := range []struct {
			name string
			send func()
			want int
		}{
			{"Send", func() { send() }, syscall.IP_PMTUDISC_DONT},
			{"Send, DONT-FRAGMENT", func() { send(attr(stun.AttrDontFragment)) }, syscall.IP_PMTUDISC_PROBE},
			{"ChannelData after it", func() { c.sendChannel(0x4000, "x"); p.want(relayed, "x") }, syscall.IP_PMTUDISC_DONT},
		} {
			if tt.send(); spy.last() != tt.want {
				t.Errorf("%s, %s: IP_MTU_DISCOVER %d, want %d", transport, tt.name, spy.last(), tt.want)
			}
		}
	}
}

// RFC 8656 §13.2, §15: toward IPv6 the attribute counts on streams only.
func TestDontFragmentIPv6(t *testing.T) {
	ip := netip.IPv6Loopback()
	outside, err := net.ListenUDP("udp6", &net.UDPAddr{IP: ip.AsSlice()})
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer func() { _ = outside.Close() }()
	p := &peer{t, outside, addrPortOf(outside.LocalAddr())}
	for transport, want := range map[Transport]int{UDP: syscall.IPV6_PMTUDISC_WANT, TCP: syscall.IPV6_PMTUDISC_PROBE} {
		spy := &spySocket{}
		w := newWorld(t, func(c *Config) {
			c.RelayIP, c.AllowPeers = ip, []netip.Prefix{netip.PrefixFrom(ip, 128)}
			withSpy(spy)(c)
		})
		c := w.client(t, transport, w.credential(t, "alice", 1))
		relayed := c.allocate(attr(stun.AttrRequestedAddressFamily, familyIPv6, 0, 0, 0), attr(stun.AttrDontFragment))
		wantCode(t, c.permit(p.addr), 0)
		m := build(stun.MethodSend, stun.ClassIndication, attr(stun.AttrDontFragment), attr(stun.AttrData, 'x'))
		m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, m.TransactionID))
		c.send(m.Raw)
		p.want(relayed, "x")
		if spy.last() != want {
			t.Errorf("%s: IPV6_MTU_DISCOVER %d, want %d", transport, spy.last(), want)
		}
	}
}

// Where sockets cannot set DF, DONT-FRAGMENT is an unknown attribute (RFC 8656 §7.2, step 4,
// §11.2).
func TestDontFragmentWithoutDF(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.ListenPacket = func(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
			pc, err := listenUDP(ctx, addr)
			return plainPacketConn{pc}, err
		}
	})
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	res := c.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrDontFragment))
	wantCode(t, res, stun.CodeUnknownAttribute)
	if v, _ := res.Get(stun.AttrUnknownAttributes); string(v) != string(unknownValue([]stun.AttrType{stun.AttrDontFragment})) {
		t.Errorf("UNKNOWN-ATTRIBUTES %x", v)
	}
	c.allocate()
	p := newPeer(t)
	wantCode(t, c.permit(p.addr), 0)
	m := build(stun.MethodSend, stun.ClassIndication, attr(stun.AttrDontFragment), attr(stun.AttrData, 'x'))
	m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, m.TransactionID))
	c.send(m.Raw)
	c.wantSilence()
	p.wantNothing()
}

// plainPacketConn has no options to set.
type plainPacketConn struct{ net.PacketConn }
