//go:build linux

package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
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

// sniffer sees the IP headers of loopback.
type sniffer struct {
	t  *testing.T
	fd int
}

func newSniffer(t *testing.T) *sniffer {
	t.Helper()
	const everyIPv4 = syscall.ETH_P_IP>>8 | syscall.ETH_P_IP<<8&0xFF00 // in network order
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, everyIPv4)
	if err != nil {
		t.Skipf("only root may look at packets: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: everyIPv4, Ifindex: lo.Index}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	return &sniffer{t, fd}
}

// next returns the payload of the next packet from one address to another, and its DF. What
// left in one piece, to be cut by the network card, is one packet here.
func (s *sniffer) next(from, to netip.AddrPort) (payload string, df bool) {
	s.t.Helper()
	b := make([]byte, largeDatagram)
	for {
		n, _, err := syscall.Recvfrom(s.fd, b, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			s.t.Fatalf("no packet from %s to %s: %v", from, to, err)
		}
		header := int(b[0]&0x0F) * 4
		if n < header+8 || b[9] != syscall.IPPROTO_UDP {
			continue
		}
		if binary.BigEndian.Uint16(b[header:]) == from.Port() && binary.BigEndian.Uint16(b[header+2:]) == to.Port() {
			return string(b[header+8 : n]), b[6]&0x40 != 0
		}
	}
}

// On the wire, past whatever carries the packets: datagrams with DONT-FRAGMENT, and no
// others, have DF, wherever they stand among them.
func TestDontFragmentOnTheWire(t *testing.T) {
	w := newWorld(t, nil)
	for _, transport := range []Transport{UDP, TLS} {
		wire := newSniffer(t)
		c := w.client(t, transport, w.credential(t, "alice", 1))
		relayed, p := c.allocate(attr(stun.AttrDontFragment)), newPeer(t)
		wantCode(t, c.bind(0x4000, p.addr), 0)
		const sent = 30
		for i := range sent {
			switch i % 3 {
			case 0:
				c.sendChannel(0x4000, "p")
			case 1:
				m := build(stun.MethodSend, stun.ClassIndication, attr(stun.AttrDontFragment), attr(stun.AttrData, 'w'))
				m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, m.TransactionID))
				c.send(m.Raw)
			case 2:
				c.sendTo(p.addr, "p")
			}
		}
		for seen, whole := 0, 0; seen < sent; {
			payload, df := wire.next(relayed, p.addr)
			if df && payload != "w" || !df && strings.Trim(payload, "p") != "" {
				t.Errorf("%s: %q with DF %t", transport, payload, df)
			}
			if seen += len(payload); df {
				whole++
			}
			if seen == sent && whole != sent/3 {
				t.Errorf("%s: %d packets of %d have DF, want %d", transport, whole, sent, sent/3)
			}
		}
	}
}
