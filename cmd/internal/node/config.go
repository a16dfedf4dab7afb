package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"epcscf/proxy"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Config configures a demo node. Every field must be set but where it says otherwise.
type Config struct {
	Listen      netip.AddrPort // https: the page and SIP over WebSocket
	TURNListen  netip.AddrPort // TURN over UDP and TCP
	TURNSListen netip.AddrPort // TURN over TLS
	AdminListen netip.AddrPort // metrics and health; loopback only
	CoreListen  netip.AddrPort // where the core reaches us, UDP and TCP

	// Core is where requests go. Nil starts the miniature core.
	Core *proxy.NextHop

	Domain   string // home domain, and the realm of TURN
	Approach turncred.Approach
	TTL      time.Duration // longest life of a credential
	DataDir  string        // keys, certificates, passwords; made if it is missing

	// Sink takes what approach 2 pushes; nil is the relay's own table.
	Sink push.Sink
	// Logger may be nil, for no log.
	Logger *slog.Logger
}

// Bounds of Config.TTL: below, a browser would renew all the time; above, a stolen
// credential is worth stealing.
const (
	minTTL = 5 * time.Second
	maxTTL = 24 * time.Hour
)

// ConfigError says which flag is wrong and what would be right.
type ConfigError struct{ msg string }

// Error implements error.
func (e *ConfigError) Error() string { return e.msg }

func configErrorf(format string, args ...any) error {
	return &ConfigError{fmt.Sprintf(format, args...)}
}

// check returns a *ConfigError where a field is wrong.
func (c *Config) check() error {
	for _, a := range []struct {
		flag string
		addr netip.AddrPort
	}{
		{"--listen", c.Listen}, {"--turn-listen", c.TURNListen}, {"--turns-listen", c.TURNSListen},
		{"--admin-listen", c.AdminListen}, {"--core-listen", c.CoreListen},
	} {
		if !a.addr.IsValid() {
			return configErrorf("%s: no address", a.flag)
		}
		if a.addr.Addr().IsUnspecified() {
			return configErrorf("%s %s: an address that others can send to is needed, since it is written into URIs: give one of this host, for example 127.0.0.1:%d",
				a.flag, a.addr, a.addr.Port())
		}
	}
	if !c.AdminListen.Addr().IsLoopback() {
		return configErrorf("--admin-listen %s: the admin listener has no authentication: give a loopback address, for example 127.0.0.1:%d", c.AdminListen, c.AdminListen.Port())
	}
	if !validDomain(c.Domain) {
		return configErrorf("--domain %q: want a domain name such as ims.test", c.Domain)
	}
	if _, err := turncred.ParseApproach(string(c.Approach)); err != nil {
		return configErrorf("--turn-approach: %v", err)
	}
	if c.TTL < minTTL || c.TTL > maxTTL {
		return configErrorf("--ttl %v: want %v to %v", c.TTL, minTTL, maxTTL)
	}
	if c.DataDir == "" {
		return configErrorf("--data-dir: want a directory")
	}
	return nil
}

// validDomain reports whether s is a hostname of RFC 3261 §25.1, as far as a header
// needs: letters, digits, hyphens and dots, no empty label.
func validDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			label++
		case c == '-' && label > 0:
			label++
		case c == '.' && label > 0 && s[i-1] != '-':
			label = 0
		default:
			return false
		}
	}
	return label > 0 && s[len(s)-1] != '-'
}
