package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// RFC 8656 §7.2, steps 5 to 9.
func TestAllocateFamiliesAndPorts(t *testing.T) {
	w := newWorld(t, nil)
	token := attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8)
	v4, v6 := attr(stun.AttrRequestedAddressFamily, familyIPv4, 0, 0, 0), attr(stun.AttrRequestedAddressFamily, familyIPv6, 0, 0, 0)
	also4, also6 := attr(attrAdditionalAddressFamily, familyIPv4, 0, 0, 0), attr(attrAdditionalAddressFamily, familyIPv6, 0, 0, 0)
	even, pair := attr(stun.AttrEvenPort, 0), attr(stun.AttrEvenPort, 0x80)
	for _, tt := range []struct {
		name  string
		attrs []stun.RawAttribute
		want  stun.ErrorCode
	}{
		{"unknown token", []stun.RawAttribute{token}, stun.CodeInsufficientCapacity},
		{"token and EVEN-PORT", []stun.RawAttribute{token, even}, stun.CodeBadRequest},
		{"token and family", []stun.RawAttribute{token, v4}, stun.CodeBadRequest},
		{"two families", []stun.RawAttribute{v4, also6}, stun.CodeBadRequest},
		{"IPv4", []stun.RawAttribute{v4}, 0},
		{"IPv6", []stun.RawAttribute{v6}, stun.CodeAddrFamilyNotSupported},
		{"family 3", []stun.RawAttribute{attr(stun.AttrRequestedAddressFamily, 3, 0, 0, 0)}, stun.CodeAddrFamilyNotSupported},
		{"family malformed", []stun.RawAttribute{attr(stun.AttrRequestedAddressFamily, 1)}, stun.CodeBadRequest},
		{"additional IPv4", []stun.RawAttribute{also4}, stun.CodeBadRequest},
		{"even", []stun.RawAttribute{even}, 0},
		{"pair", []stun.RawAttribute{pair}, 0},
		{"token malformed", []stun.RawAttribute{attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7)}, stun.CodeBadRequest},
		{"pair and additional", []stun.RawAttribute{pair, also6}, stun.CodeBadRequest},
		{"LIFETIME malformed", []stun.RawAttribute{attr(stun.AttrLifetime, 1)}, stun.CodeBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.client(t, UDP, w.credential(t, "alice", 1))
			c.challenge()
			res := c.signed(stun.MethodAllocate, append(tt.attrs, transportUDP)...)
			wantCode(t, res, tt.want)
			if tt.name == "even" && c.relayed(res).Port()%2 != 0 {
				t.Errorf("EVEN-PORT gave %s", c.relayed(res))
			}
		})
	}
	t.Run("dual allocation", func(t *testing.T) {
		c := w.client(t, UDP, w.credential(t, "alice", 1))
		c.challenge()
		res := c.signed(stun.MethodAllocate, transportUDP, also6)
		wantCode(t, res, 0)
		if v, _ := res.Get(attrAddressErrorCode); len(v) < 4 || v[0] != familyIPv6 || v[2] != 4 || v[3] != 40 {
			t.Errorf("ADDRESS-ERROR-CODE %x", v)
		}
	})
}

func TestRefreshOfTheOtherFamilyIs443(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	wantCode(t, c.signed(stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, familyIPv6, 0, 0, 0)), stun.CodePeerAddrFamilyMismatch)
	wantCode(t, c.permit(netip.MustParseAddrPort("[2606:4700::1]:5")), stun.CodePeerAddrFamilyMismatch)
	wantCode(t, c.bind(0x4000, netip.MustParseAddrPort("[::ffff:127.0.0.1]:5")), stun.CodePeerAddrFamilyMismatch)
}

func TestRefreshZeroDeletes(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(0)), 0)
	wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), stun.CodeAllocMismatch)
	pc, err := net.ListenPacket("udp4", relayed.String()) // the port is free again
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.Close()
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), 0)
}

// A subject's credentials count together.
func TestQuota(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxAllocationsPerSubject = 2 })
	w.client(t, UDP, w.credential(t, "alice", 1)).allocate()
	c := w.client(t, UDP, w.credential(t, "alice", 2))
	c.allocate()
	third := w.client(t, UDP, w.credential(t, "alice", 3))
	third.challenge()
	wantCode(t, third.signed(stun.MethodAllocate, transportUDP), stun.CodeAllocQuotaReached)
	w.client(t, UDP, w.credential(t, "bob", 1)).allocate()
	wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), 0)
	wantCode(t, third.signed(stun.MethodAllocate, transportUDP), 0)
}

func TestNoPortIs508(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.MinPort, c.MaxPort = 40000, 40009
		c.ListenPacket = func(context.Context, netip.AddrPort) (net.PacketConn, error) { return nil, syscall.EADDRINUSE }
	})
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeInsufficientCapacity)
}

// A port that nobody may send to is not given out, also where its UDP half is free.
func TestBarredPortsAreNotGivenOut(t *testing.T) {
	free := func(ports ...uint16) *rawClient {
		w := newWorld(t, func(c *Config) {
			c.MinPort, c.MaxPort, c.ListenPacket = 40000, 40009, listenMemory
			for port := c.MinPort; port <= c.MaxPort; port++ {
				if !slices.Contains(ports, port) {
					c.DenyPeers = append(c.DenyPeers, netip.AddrPortFrom(loopback, port))
				}
			}
		})
		return w.client(t, UDP, w.credential(t, "alice", 1))
	}
	if port := free(40005).allocate().Port(); port != 40005 {
		t.Errorf("port %d, want 40005", port)
	}
	if port, _ := free(40006, 40007).pair(); port != 40006 {
		t.Errorf("pair at %d, want 40006", port)
	}
	c := free()
	c.challenge()
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeInsufficientCapacity)
}

// A NAT 1:1: the external address is given out, and takes two users to each other.
func TestExternalAddress(t *testing.T) {
	external := netip.MustParseAddr("203.0.114.9")
	w := newWorld(t, func(c *Config) { c.ExternalIP = external; c.AllowPeers = nil })
	a, b := w.client(t, UDP, w.credential(t, "alice", 1)), w.client(t, UDP, w.credential(t, "bob", 1))
	ra, rb := a.allocate(), b.allocate()
	if ra.Addr() != external {
		t.Fatalf("relayed %s, want one of %s", ra, external)
	}
	wantCode(t, a.permit(rb), 0)
	wantCode(t, b.permit(ra), 0)
	a.sendTo(rb, "hello")
	b.wantData(ra, "hello")
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Realm: testRealm, RelayIP: loopback, Auth: unknownUsers{}}
	for name, edit := range map[string]func(*Config){
		"Realm":       func(c *Config) { c.Realm = "" },
		"Auth":        func(c *Config) { c.Auth = nil },
		"RelayIP":     func(c *Config) { c.RelayIP = netip.Addr{} },
		"RelayIP any": func(c *Config) { c.RelayIP = netip.IPv4Unspecified() },
		"ExternalIP":  func(c *Config) { c.ExternalIP = netip.IPv6Loopback() },
		"ports":       func(c *Config) { c.MinPort, c.MaxPort = 2000, 1999 },
		"low ports":   func(c *Config) { c.MinPort, c.MaxPort = 80, 1999 },
		"AfterExpiry": func(c *Config) { c.AfterExpiry = "never" },
		"Grace":       func(c *Config) { c.Grace = -1 },
		"quota":       func(c *Config) { c.MaxAllocationsPerSubject = -1 },
	} {
		cfg := good
		edit(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
	s, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if errors.Join(s.Close(), s.Close()) != nil {
		t.Error("Close of a server that never served")
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeUDP(pc); err != nil {
		t.Errorf("ServeUDP after Close: %v", err)
	}
	if _, err := pc.WriteTo(nil, pc.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("socket handed in after Close is open: %v", err)
	}
}

// unknownUsers is an Authenticator that knows nobody.
type unknownUsers struct{}

func (unknownUsers) Authenticate(string, time.Time) (turncred.Proof, error) {
	return turncred.Proof{}, turncred.ErrUnknownUser
}
