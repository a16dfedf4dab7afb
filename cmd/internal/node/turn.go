package node

import (
	"fmt"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/relay"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

// signingKID names the only key of a demo.
const signingKID turncred.KeyID = "demo1"

// turnSide is the relay and what makes credentials for it.
type turnSide struct {
	relay       *relay.Server
	provisioner turncred.Provisioner
	uris        []string
}

// newTURNSide wires both approaches into the relay, whichever the edge uses: a credential
// that was made before a switch stays good until it expires.
func newTURNSide(cfg Config, sec secrets, s *sockets, reg prometheus.Registerer) (*turnSide, error) {
	codec, err := turncred.NewTidCodec(sec.deployment)
	if err != nil {
		return nil, err
	}
	ring, err := turncred.NewKeyRing(turncred.Key{ID: signingKID, Secret: sec.km})
	if err != nil {
		return nil, err
	}
	realm := turncred.Realm(cfg.Domain)
	shared, err := sharedkey.NewAuthenticator(sharedkey.AuthenticatorConfig{Ring: ring, Codec: codec, Realm: realm, MaxTTL: cfg.TTL})
	if err != nil {
		return nil, err
	}
	table := push.NewTable(realm, nil)

	srv, err := relay.New(relay.Config{
		Realm: realm, Auth: turncred.Chain{table, shared}, RelayIP: addrPort(s.turnUDP.LocalAddr()).Addr(),
		AllowPeers: demoPeers(cfg), DenyPeers: ownPorts(s), Logger: cfg.Logger, Metrics: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	t := &turnSide{relay: srv, uris: turnURIs(s)}
	minter, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: realm, URIs: t.uris, MaxTTL: cfg.TTL, Revoker: srv})
	if err != nil {
		return nil, err
	}
	switch cfg.Approach {
	case turncred.ApproachPush:
		sink := cfg.Sink
		if sink == nil {
			sink = table
		}
		t.provisioner = push.NewIssuer(minter, signingKID, sink)
	case turncred.ApproachSharedKey:
		t.provisioner = sharedkey.NewIssuer(minter, ring, sharedkey.HMACSHA1)
	}
	return t, nil
}

// demoPeers opens loopback where the relay itself is on loopback, so that one machine is
// enough to try everything. On any other address it stays closed: there it would let
// whoever has a credential reach what this host keeps to itself.
func demoPeers(cfg Config) []netip.Prefix {
	if !cfg.TURNListen.Addr().IsLoopback() {
		return nil
	}
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// ownPorts are never peers, whatever is opened.
func ownPorts(s *sockets) []netip.AddrPort {
	ports := []netip.AddrPort{
		addrPort(s.https.Addr()), addrPort(s.turnUDP.LocalAddr()), addrPort(s.turnTLS.Addr()),
		addrPort(s.admin.Addr()), addrPort(s.coreUDP.LocalAddr()),
	}
	if s.miniUDP != nil {
		ports = append(ports, addrPort(s.miniUDP.LocalAddr()))
	}
	return ports
}

// turnURIs lists what the relay listens on (RFC 7065), the one that hides the user name first.
func turnURIs(s *sockets) []string {
	plain := addrPort(s.turnUDP.LocalAddr())
	return []string{
		fmt.Sprintf("turns:%s?transport=tcp", addrPort(s.turnTLS.Addr())),
		fmt.Sprintf("turn:%s?transport=udp", plain),
		fmt.Sprintf("turn:%s?transport=tcp", plain),
	}
}
