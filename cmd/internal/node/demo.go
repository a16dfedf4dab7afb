package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"epcscf/proxy"
	"epcscf/relay"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/waf"
)

// Demo says what a demo runs. Every field must be set but where it says otherwise.
type Demo struct {
	Listen      netip.AddrPort // https: the page and SIP over WebSocket
	TURNListen  netip.AddrPort // TURN over UDP and TCP
	TURNSListen netip.AddrPort // TURN over TLS
	AdminListen netip.AddrPort // metrics and health; loopback only
	CoreListen  netip.AddrPort // where the core reaches us, UDP and TCP
	WAFListen   netip.AddrPort // https: the authorization server; the zero address: none

	// Core is where requests go. Nil starts the miniature core.
	Core *proxy.NextHop

	Domain   string // home domain, and the realm of TURN
	Approach turncred.Approach
	TTL      time.Duration // longest life of a credential
	// TokenLife is that of registration tokens; 0 is 10 min.
	TokenLife time.Duration
	DataDir   string // keys, certificates, passwords; made if it is missing

	// Sink takes what approach 2 pushes; nil is the relay's own table.
	Sink push.Sink
	// Logger may be nil, for no log.
	Logger *slog.Logger
}

// ConfigError says which flag is wrong and what would be right.
type ConfigError struct{ msg string }

// Error implements error.
func (e *ConfigError) Error() string { return e.msg }

func configErrorf(format string, args ...any) error {
	return &ConfigError{fmt.Sprintf(format, args...)}
}

// check returns a *ConfigError where a field is wrong.
func (d *Demo) check() error {
	for _, a := range []struct {
		flag string
		addr netip.AddrPort
	}{
		{"--listen", d.Listen}, {"--turn-listen", d.TURNListen}, {"--turns-listen", d.TURNSListen},
		{"--admin-listen", d.AdminListen}, {"--core-listen", d.CoreListen},
	} {
		if !a.addr.IsValid() {
			return configErrorf("%s: no address", a.flag)
		}
		if a.addr.Addr().IsUnspecified() {
			return configErrorf("%s %s: an address that others can send to is needed, since it is written into URIs: give one of this host, for example 127.0.0.1:%d",
				a.flag, a.addr, a.addr.Port())
		}
	}
	for _, a := range []struct {
		flag string
		addr netip.AddrPort
	}{{"--turn-listen", d.TURNListen}, {"--turns-listen", d.TURNSListen}} {
		// Browsers ask for relayed addresses of IPv4, and a demo's relay has one family.
		if !a.addr.Addr().Unmap().Is4() {
			return configErrorf("%s %s: the demo's relay gives IPv4 addresses: give one, for example 127.0.0.1:%d", a.flag, a.addr, a.addr.Port())
		}
	}
	if d.WAFListen.IsValid() && d.WAFListen.Addr().IsUnspecified() {
		return configErrorf("--waf-listen %s: an address that browsers can reach is needed, since it is written into tokens: give one of this host, for example 127.0.0.1:%d",
			d.WAFListen, d.WAFListen.Port())
	}
	if err := CheckAdmin(d.AdminListen); err != nil {
		return configErrorf("--admin-listen %s: %v", d.AdminListen, err)
	}
	if err := CheckDomain(d.Domain); err != nil {
		return configErrorf("--domain %q: %v", d.Domain, err)
	}
	if _, err := turncred.ParseApproach(string(d.Approach)); err != nil {
		return configErrorf("--turn-approach: %v", err)
	}
	if err := CheckTTL(d.TTL); err != nil {
		return configErrorf("--ttl %v: %v", d.TTL, err)
	}
	if d.TokenLife != 0 && d.TokenLife < waf.MinRegistrationLife {
		return configErrorf("--token-life %v: want %v or more", d.TokenLife, waf.MinRegistrationLife)
	}
	if d.DataDir == "" {
		return configErrorf("--data-dir: want a directory")
	}
	return nil
}

// node is what the demo asks of a node, as far as it is known before any port is.
func (d *Demo) node(sec secrets, pki *localPKI) Config {
	at := func(flag string, a netip.AddrPort) Address { return Address{AddrPort: a, From: flag} }
	plain := at("--turn-listen", d.TURNListen)
	return Config{
		Listen: []Address{at("--listen", d.Listen)}, Admin: at("--admin-listen", d.AdminListen), Core: at("--core-listen", d.CoreListen),
		Certificate: FixedCertificate(pki.Leaf),
		// AllowNoOrigin is for native clients: cmd/wic sends none.
		// RegEvent is for the miniature core, which has the package; another one may send the
		// SUBSCRIBE on to the user's devices.
		Proxy: proxy.Config{Domain: d.Domain, AllowNoOrigin: true, RegEvent: d.Core == nil},
		TURN: TURN{
			Approach: d.Approach, Realm: turncred.Realm(d.Domain), MaxTTL: d.TTL, Deployment: sec.deployment,
			Keys: []turncred.Key{{ID: demoKeyID, Secret: sec.km}}, Sink: d.Sink,
		},
		Relay: &Relay{
			UDP: []Address{plain}, TCP: []Address{plain}, TLS: []Address{at("--turns-listen", d.TURNSListen)},
			Certificate: FixedCertificate(pki.Leaf), Settings: relay.Config{AllowPeers: d.openPeers()},
			Revocations: RevocationsFile{File: filepath.Join(d.DataDir, "revocations.db"), From: "--data-dir"},
		},
		Logger: d.Logger,
	}
}

// demoKeyID names the only key of a demo.
const demoKeyID turncred.KeyID = "demo1"

// openPeers opens loopback where the relay itself is on loopback, so that one machine is
// enough to try everything. On any other address it stays closed: there it would let
// whoever has a credential reach what this host keeps to itself.
func (d *Demo) openPeers() []netip.Prefix {
	if !d.TURNListen.Addr().IsLoopback() {
		return nil
	}
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}
