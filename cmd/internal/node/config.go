package node

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"epcscf/proxy"
	"epcscf/relay"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

// Config says what a node runs, and where. A demo makes one from its flags, serve from
// the operator's file.
type Config struct {
	Listen []Address // https: SIP over WebSocket, and the page where there is one
	Admin  Address   // metrics and health; loopback only
	Core   Address   // where the core reaches us, UDP and TCP
	// CoreTLS is where it reaches us over TLS, and how we reach it so; nil: nowhere.
	CoreTLS *CoreTLS

	// Certificate is shown at Listen.
	Certificate *Certificate
	// Balancers are the peers at Listen who must say, by the PROXY protocol, whom they
	// speak for. Nobody else may.
	Balancers []netip.Prefix

	// Proxy is the edge but for what the node adds: CoreAddr, Core.TLS, Core.TLSPort,
	// Provisioner, Logger, Metrics.
	Proxy proxy.Config
	// Page is served where no WebSocket is asked for; nil: nothing is.
	Page http.Handler

	WAF    *WAF    // nil: no authorization server
	Bearer *Bearer // nil: the edge takes no access tokens
	// Hearing is where WAFs in other processes tell the edge of revocations; nil: nowhere.
	Hearing *Hearing

	TURN  TURN
	Relay *Relay // nil: Fleet or a TURN server that is not ours serves
	Fleet *Fleet // nil: no relay of ours is in another process
	Ring  *Ring  // nil: keys and relays are those given here

	// Logger may be nil, for no log.
	Logger *slog.Logger
}

// Address is a socket's, with the flag or key that an error about it names.
type Address struct {
	netip.AddrPort
	From string
}

// CoreTLS is the core's side over TLS, in both directions: either end shows a certificate.
type CoreTLS struct {
	Listen      Address        // at Config.Core's address
	Certificate *Certificate   // ours
	Authorities *x509.CertPool // whose certificates the core's are
}

// TURN says how credentials are made.
type TURN struct {
	Approach   turncred.Approach
	Realm      turncred.Realm
	URIs       []string               // what WICs are given (RFC 7065); nil: what Relay listens on
	MaxTTL     time.Duration          // longest life of a credential
	Order      turncred.UsernameOrder // default turncred.Order3GPP
	Deployment turncred.Secret        // key of the Tids
	Keys       []turncred.Key         // of approach 1
	KeysLater  bool                   // Keys may be empty: a store has more
	Hash       sharedkey.Algorithm    // of approach 1; default sharedkey.HMACSHA1
	Tokens     Tokens                 // of RFC 7635
	// Sink takes what approach 2 pushes; nil: the table of Relay.
	Sink push.Sink
}

// Relay says where the TURN relay listens.
type Relay struct {
	UDP, TCP, TLS []Address
	// PublicName stands in the URIs in place of a listener's address, which a client
	// behind another network, or with a certificate to check, could not use.
	PublicName string
	// Certificate is shown at TLS.
	Certificate *Certificate
	// Revocations outlive a restart in a file; without one they end with the process.
	Revocations RevocationsFile
	// Settings are the relay's own but for what the node adds: Realm, Auth, Tokens,
	// Revocations, Logger, Metrics.
	Settings relay.Config
}

// RevocationsFile names a bolt file, with the flag or key that an error about it names.
type RevocationsFile struct{ File, From string }

// Bounds of TURN.MaxTTL: below, a browser would renew all the time; above, a stolen
// credential is worth stealing.
const (
	MinTTL = 5 * time.Second
	MaxTTL = 24 * time.Hour
)

// CheckTTL refuses a life of credentials outside the bounds.
func CheckTTL(d time.Duration) error {
	if d < MinTTL || d > MaxTTL {
		return fmt.Errorf("want %v to %v", MinTTL, MaxTTL)
	}
	return nil
}

// CheckAdmin refuses an admin address that others can reach.
func CheckAdmin(a netip.AddrPort) error {
	if !a.Addr().IsLoopback() {
		return fmt.Errorf("the admin listener has no authentication: give a loopback address, for example 127.0.0.1:%d", a.Port())
	}
	return nil
}

// CheckDomain refuses what is no hostname of RFC 3261 §25.1, as far as a header needs:
// letters, digits, hyphens and dots, no empty label.
func CheckDomain(s string) error {
	if !validDomain(s) {
		return fmt.Errorf("want a domain name such as ims.test")
	}
	return nil
}

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
