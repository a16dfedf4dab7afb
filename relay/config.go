package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/turncred"
)

// AfterExpiry says how long a live allocation outlives its credential. A browser learns
// nothing of a refusal in mid-call, so being strict kills calls in silence.
type AfterExpiry string

// The policies after a credential's Texp. MaxAge bounds each of them.
const (
	// ExpiryUntilRevoked lets a live allocation go on until it is revoked. It wants an
	// edge that revokes.
	ExpiryUntilRevoked AfterExpiry = "until-revoked"
	// ExpiryGrace ends it Grace after Texp.
	ExpiryGrace AfterExpiry = "grace"
	// ExpiryStrict ends it at Texp.
	ExpiryStrict AfterExpiry = "strict"
)

// ParseAfterExpiry returns the policy that s names; "" is ExpiryUntilRevoked.
func ParseAfterExpiry(s string) (AfterExpiry, error) {
	switch a := AfterExpiry(s); a {
	case "":
		return ExpiryUntilRevoked, nil
	case ExpiryUntilRevoked, ExpiryGrace, ExpiryStrict:
		return a, nil
	}
	return "", fmt.Errorf("unknown expiry policy %q: use %q, %q or %q", s, ExpiryUntilRevoked, ExpiryGrace, ExpiryStrict)
}

// Config configures a Server. Realm, Auth and RelayIP must be set.
type Config struct {
	// Realm is the REALM of every challenge, and the only one that requests may name.
	Realm turncred.Realm
	// Auth knows the credentials. It is asked for the first request of an allocation;
	// a live allocation keeps its own key.
	Auth turncred.Authenticator
	// Tokens, where set, takes access tokens (RFC 7635) and has challenges say so. Tokens
	// in a USERNAME are for Auth.
	Tokens turncred.TokenAuthenticator
	// NonceKey makes nonces. Relays that share it take each other's; random when empty.
	NonceKey turncred.Secret
	// Software is the SOFTWARE attribute of answers (RFC 8489 §14.14); none when empty.
	Software string

	// RelayIP is the address on which relayed sockets are bound. Its family is the one
	// that this relay allocates.
	RelayIP netip.Addr
	// ExternalIP is given out in place of RelayIP, where a NAT maps one to the other 1:1.
	ExternalIP netip.Addr
	// RelayIP6, where set beside a RelayIP of IPv4, is where relayed sockets of IPv6 are
	// bound, for clients that ask for that family or for both.
	RelayIP6 netip.Addr
	// MinPort and MaxPort bound relayed ports; default 49152 to 65535 (RFC 8656 §7.2).
	MinPort, MaxPort uint16

	// AllowPeers opens ranges that are denied by default. Each is logged at start.
	AllowPeers []netip.Prefix
	// DenyPeers are never peers, whatever AllowPeers says: the admin listener, the core,
	// the database. Port 0 means every port. The relay's own listeners need not be named.
	DenyPeers []netip.AddrPort

	AfterExpiry AfterExpiry   // default ExpiryUntilRevoked
	Grace       time.Duration // default 10 min
	MaxAge      time.Duration // longest life of an allocation; default 24 h
	// RemoteEdges says that edges are other processes, which may be out of reach. 60 s after
	// the last EdgeContact of any edge ExpiryUntilRevoked becomes ExpiryGrace, since nobody
	// could revoke. By default the edge is in this process, and always in contact.
	RemoteEdges bool
	// Revocations, where set, keeps revocations over a restart; New loads them.
	Revocations RevocationLog

	// MaxAllocationsPerSubject counts all of a user's credentials together; default 32:
	// browsers open URIs x interfaces x media lines, 6 to 12 a user.
	MaxAllocationsPerSubject int
	// BytesPerSecond bounds what all of a user's allocations relay together, in both
	// directions, with a second's worth at once. Beyond it packets are dropped. Default 0:
	// no limit; else 65536 or more.
	BytesPerSecond int
	// MaxPermissions bounds the permissions, and likewise the channels, of one
	// allocation; default 64.
	MaxPermissions int
	// StrictChannels refuses channel numbers above 0x4FFF, as RFC 8656 §12.2 says. By
	// default those up to 0x7FFF are taken too: RFC 5766 §11 allowed them, and clients of
	// its time, coturn's among them, choose from the whole range. RFC 8656 gave them up for
	// sockets that carry more than TURN, which ours do not.
	StrictChannels bool
	// MaxPendingStreams bounds the TCP and TLS connections that have made no allocation
	// yet; each lives 10 s at most. Default 4096.
	MaxPendingStreams int

	// ChallengeRate bounds the unauthenticated answers on UDP, Binding among them, to this
	// many a second for each IPv4 address or IPv6 /64, and four seconds' worth at once;
	// default 500. TCP and TLS have no such limit: nobody forges their source.
	ChallengeRate int

	// ListenPacket opens relayed sockets; default a UDP socket. A *net.UDPConn is taken over on
	// Linux, as by ServeUDP. An error that is syscall.EADDRINUSE means: try another port.
	ListenPacket func(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error)

	// Events, where set, hears of each allocation, in one goroutine and one event at a time.
	// It may take its time: nothing in the relay waits for it but Close. Who takes so long
	// that thousands wait loses some, which a metric counts.
	Events func(Event)
	// Logger gets at most ten lines a second, whatever arrives. Default: none.
	Logger *slog.Logger
	// Metrics registers the relay's metrics; nil registers none.
	Metrics prometheus.Registerer
	// Now is the time for nonces, lifetimes and expiry; default time.Now.
	Now func() time.Time
}

// minBytesPerSecond lets every datagram pass that a rested user sends.
const minBytesPerSecond = 1 << 16

// check refuses what cannot work and fills in the defaults.
func (c *Config) check() error {
	switch {
	case c.Realm == "":
		return errors.New("relay: Realm is not set")
	case c.Auth == nil:
		return errors.New("relay: Auth is not set")
	case !c.RelayIP.IsValid() || c.RelayIP.IsUnspecified() || c.RelayIP.IsMulticast():
		return fmt.Errorf("relay: RelayIP is %q, want the address of one of this host's interfaces", c.RelayIP)
	case len(c.Software) > maxSoftwareLen:
		return fmt.Errorf("relay: Software has %d bytes, want %d or fewer (RFC 8489 §14.14)", len(c.Software), maxSoftwareLen)
	}
	names := len(c.Realm)
	if c.Tokens != nil {
		names += len(c.Tokens.ServerName())
	}
	if names > maxNames {
		return fmt.Errorf("relay: Realm and the tokens' server name have %d bytes, want %d or fewer: a challenge must not have over %d times its request's", names, maxNames, maxAmplification)
	}
	if err := c.checkFaces(); err != nil {
		return err
	}
	if c.MinPort == 0 && c.MaxPort == 0 {
		c.MinPort, c.MaxPort = 49152, 65535
	}
	if c.MinPort < 1024 || c.MaxPort < c.MinPort {
		return fmt.Errorf("relay: ports %d to %d: want a range above 1023 (RFC 8656 §7.2)", c.MinPort, c.MaxPort)
	}
	var err error
	if c.AfterExpiry, err = ParseAfterExpiry(string(c.AfterExpiry)); err != nil {
		return fmt.Errorf("relay: AfterExpiry: %w", err)
	}
	return c.checkLimits()
}

// checkFaces brings the relay's addresses into one form.
func (c *Config) checkFaces() error {
	c.RelayIP = c.RelayIP.Unmap().WithZone("")
	if c.ExternalIP.IsValid() {
		c.ExternalIP = c.ExternalIP.Unmap().WithZone("")
		if c.ExternalIP.Is4() != c.RelayIP.Is4() {
			return fmt.Errorf("relay: ExternalIP %s and RelayIP %s are of different families", c.ExternalIP, c.RelayIP)
		}
	}
	if ip := c.RelayIP6; ip.IsValid() {
		c.RelayIP6 = ip.Unmap().WithZone("")
		if c.RelayIP6.Is4() || c.RelayIP6.IsUnspecified() || c.RelayIP6.IsMulticast() || !c.RelayIP.Is4() {
			return fmt.Errorf("relay: RelayIP6 is %s beside RelayIP %s, want an interface's address of IPv6 beside one of IPv4", ip, c.RelayIP)
		}
	}
	return nil
}

// faces returns the relay's addresses by family.
func (c *Config) faces() *faces {
	var f faces
	f[familyOf(c.RelayIP)-familyIPv4] = face{c.RelayIP, c.ExternalIP}
	if c.RelayIP6.IsValid() {
		f[1] = face{relay: c.RelayIP6}
	}
	return &f
}

func (c *Config) checkLimits() error {
	if c.BytesPerSecond != 0 && c.BytesPerSecond < minBytesPerSecond {
		return fmt.Errorf("relay: BytesPerSecond is %d, want 0 for no limit, or %d or more: the largest datagram must fit into a second", c.BytesPerSecond, minBytesPerSecond)
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{{"Grace", &c.Grace, 10 * time.Minute}, {"MaxAge", &c.MaxAge, 24 * time.Hour}} {
		if *d.v < 0 {
			return fmt.Errorf("relay: %s is %v, want more than 0", d.name, *d.v)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	for _, n := range []struct {
		name string
		v    *int
		def  int
	}{
		{"MaxAllocationsPerSubject", &c.MaxAllocationsPerSubject, 32},
		{"MaxPermissions", &c.MaxPermissions, 64},
		{"MaxPendingStreams", &c.MaxPendingStreams, 4096},
		{"ChallengeRate", &c.ChallengeRate, 500},
	} {
		if *n.v < 0 {
			return fmt.Errorf("relay: %s is %d, want more than 0", n.name, *n.v)
		}
		if *n.v == 0 {
			*n.v = n.def
		}
	}
	if c.ListenPacket == nil {
		c.ListenPacket = listenUDP
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// limit returns when an allocation of h made at since must end at the latest. Who brought
// an ACCESS-TOKEN can bring the next one, so there the policy is strict (RFC 7635 §9).
func (c *Config) limit(since time.Time, h *holder) time.Time {
	end := since.Add(c.MaxAge)
	switch {
	case h.byToken, c.AfterExpiry == ExpiryStrict:
		return earlier(end, h.texp)
	case c.AfterExpiry == ExpiryGrace:
		return earlier(end, h.texp.Add(c.Grace))
	}
	return end
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
