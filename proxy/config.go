package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/sipext"
	"epcscf/turncred"
)

// Offer says when a 200 to REGISTER carries a credential.
type Offer string

// RouteMismatch says what becomes of a request whose Route is not the one it must have: the
// Service-Route of the registration, or the route set of the dialog.
type RouteMismatch string

const (
	// RouteReplace puts the right one in its place, as for a client that leaves it out
	// (JsSIP and SIP.js ignore Service-Route).
	RouteReplace RouteMismatch = "replace"
	// RouteReject answers 400.
	RouteReject RouteMismatch = "reject"
)

const (
	// OfferOnRequest gives one to a WIC that asks, by header or option tag.
	OfferOnRequest Offer = "on-request"
	// OfferAlways gives one to every registered WIC.
	OfferAlways Offer = "always"
)

// Config configures a Proxy. Domain, CoreAddr, NextHops and Origins (or AllowNoOrigin) must
// be set; the zero value of everything else is the safe one.
type Config struct {
	// Domain is the home domain, such as ims.test.
	Domain string
	// VisitedNetwork is the P-Visited-Network-ID; default Domain.
	VisitedNetwork string
	// CoreAddr is where the core reaches us; it stands in Via, Path and Record-Route.
	CoreAddr netip.AddrPort
	// CoreHost stands there in place of CoreAddr's IP address, where the core resolves it.
	CoreHost string
	// NextHops are the core, I-CSCFs or outbound proxies before them: all of one mind, tried
	// in this order. To share load between them, name them by one SIP domain with SRV records.
	NextHops []NextHop
	// Core says how to reach them and what to do when one fails.
	Core Core

	// Origins lists the web origins whose pages may connect, exactly as browsers send
	// them: https://host or https://host:port.
	Origins []string
	// AllowNoOrigin admits clients that send no Origin, as native ones do. A browser
	// always sends one.
	AllowNoOrigin bool

	// Provisioner makes the credentials; nil: every answer is unavailable;reason=disabled.
	Provisioner turncred.Provisioner
	// AllowUnauthorized gives a credential also to a registration that the core took
	// without an Authorization. It opens the relay to whomever the core lets in by
	// address alone.
	AllowUnauthorized bool
	// AccessNetwork is what P-Access-Network-Info says of a WIC's access where its REGISTER
	// has no Authorization (TS 33.203 P.3). An access-class may be any token (RFC 7315 §5.4):
	// all that the edge knows is that the WIC came over the internet, so the default is
	// "Internet".
	AccessNetwork string
	// Offer is OfferOnRequest by default.
	Offer Offer
	// RouteMismatch is RouteReplace by default.
	RouteMismatch RouteMismatch
	// EmergencyRoute is where calls to urn:service:sos go, from WICs that have not registered
	// too; nil: nowhere, see emergency.go.
	EmergencyRoute *NextHop
	// RegEvent subscribes to the registration state of every registered user (RFC 3680), so
	// that the core can end a registration. Off by default: a core without the package may
	// send the SUBSCRIBE on to the user's devices.
	RegEvent bool
	// FlowGrace is how long a lost flow's calls go on and its credentials stay good for new
	// allocations, so that a client may reconnect (RFC 5626 §4.5 retries after 30 to 60 s);
	// default 120 s.
	FlowGrace time.Duration
	// FlowKey seals flow tokens; 32 bytes or more. The default is random: after a restart
	// the tokens of before are then refused with 403 as forged, not with 430 as gone.
	FlowKey turncred.Secret

	// Bearer takes access tokens in place of Digest (TS 33.203 X.3, X.4); nil: Bearer
	// credentials are removed, and count for nothing.
	Bearer *Bearer

	Limits Limits

	Logger  *slog.Logger          // default: discards
	Metrics prometheus.Registerer // nil: none are registered
	Now     func() time.Time      // default time.Now
}

// Limits bound what peers can make grow. Zero means the default.
type Limits struct {
	MessageSize int64 // bytes of a SIP message from a WIC; default 64 KiB
	Headers     int   // header rows of a message; default 128
	Line        int   // bytes of one header field; default 8 KiB

	Flows           int // live flows; default 20,000
	FlowsPerAddress int // of one IPv4 address or IPv6 /64; default 200, negative: no limit
	Queue           int // messages that wait for a slow WIC before its flow is closed; default 64
	Transactions    int // unanswered requests of one flow; default 64
	Bindings        int // registrations of one flow; default 8
	Dialogs         int // dialogs of one flow; default 64
	Rate            int // requests a second of one flow; default 50, negative: no limit
	Burst           int // requests of one flow at once; default 100

	Register time.Duration // from the upgrade to the first REGISTER; default 30 s
	Ping     time.Duration // between WebSocket pings; default 25 s, below the 30 s of common NATs and balancers
	Write    time.Duration // for one message to a WIC; default 10 s
	Read     time.Duration // for one message of a WIC, from its first octet; default 10 s
	Answer   time.Duration // for a WIC to answer a request; default 128 s, 64 times TS 24.229's T1 of 2 s
	TimerC   time.Duration // RFC 3261 §16.6 step 11: above 3 minutes; default 185 s
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (l *Limits) setDefaults() {
	setDefault(&l.MessageSize, 64<<10)
	setDefault(&l.Headers, 128)
	setDefault(&l.Line, 8<<10)
	setDefault(&l.Flows, 20_000)
	setDefault(&l.Queue, 64)
	setDefault(&l.Transactions, 64)
	setDefault(&l.Bindings, 8)
	setDefault(&l.FlowsPerAddress, 200)
	setDefault(&l.Dialogs, 64)
	setDefault(&l.Rate, 50)
	setDefault(&l.Burst, 100)
	setDefault(&l.Read, 10*time.Second)
	setDefault(&l.Answer, 128*time.Second)
	setDefault(&l.Register, 30*time.Second)
	setDefault(&l.Ping, 25*time.Second)
	setDefault(&l.Write, 10*time.Second)
	setDefault(&l.TimerC, 185*time.Second)
}

func (l Limits) scan() sipext.Limits { return sipext.Limits{Headers: l.Headers, Line: l.Line} }

// check fills in the defaults; its error names the field.
func (c *Config) check() error {
	switch {
	case c.Domain == "" || !isHost(c.Domain):
		return fmt.Errorf("Domain is %q: want the home domain, such as ims.test", c.Domain)
	case !c.CoreAddr.IsValid() || c.CoreAddr.Addr().IsUnspecified() && c.CoreHost == "":
		return fmt.Errorf("CoreAddr is %v: want the IP address and port at which the core reaches this edge", c.CoreAddr)
	case c.CoreAddr.Port() == 0:
		return errors.New("CoreAddr has port 0: it stands in Via and Path, so it must be the real one")
	case c.CoreHost != "" && !isHost(c.CoreHost):
		return fmt.Errorf("CoreHost is %q: want a host name", c.CoreHost)
	case len(c.NextHops) == 0:
		return errors.New("NextHops is empty: where is the core?")
	case len(c.Origins) == 0 && !c.AllowNoOrigin:
		return errors.New("Origins is empty and AllowNoOrigin is off: nobody could connect")
	case c.Offer != "" && c.Offer != OfferOnRequest && c.Offer != OfferAlways:
		return fmt.Errorf("Offer is %q: use %q or %q", c.Offer, OfferOnRequest, OfferAlways)
	case c.AccessNetwork != "" && !isAccessNetwork(c.AccessNetwork):
		return fmt.Errorf("AccessNetwork is %q: want an access type or class of RFC 7315 §5.4, such as IEEE-802.11", c.AccessNetwork)
	case c.RouteMismatch != "" && c.RouteMismatch != RouteReplace && c.RouteMismatch != RouteReject:
		return fmt.Errorf("RouteMismatch is %q: use %q or %q", c.RouteMismatch, RouteReplace, RouteReject)
	case c.FlowKey.Len() != 0 && c.FlowKey.Len() < turncred.MinSecretLen:
		return fmt.Errorf("FlowKey has %d bytes, want %d or more", c.FlowKey.Len(), turncred.MinSecretLen)
	}
	for _, o := range c.Origins {
		if err := checkOrigin(o); err != nil {
			return err
		}
	}
	if err := errors.Join(c.checkCore(), c.Bearer.check()); err != nil {
		return err
	}
	setDefault(&c.RouteMismatch, RouteReplace)
	setDefault(&c.VisitedNetwork, c.Domain)
	setDefault(&c.Offer, OfferOnRequest)
	setDefault(&c.AccessNetwork, "Internet")
	setDefault(&c.FlowGrace, 120*time.Second)
	c.Limits.setDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

func checkOrigin(o string) error {
	u, err := url.Parse(o)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != o {
		return fmt.Errorf("origin %q: want https://host or https://host:port, without a path, as browsers send it", o)
	}
	return nil
}

func isHost(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == ""
}

// isAccessNetwork reports whether s is an access-type or access-class, with access-info that
// is not ours to add (RFC 7315 §5.4).
func isAccessNetwork(s string) bool {
	a, err := sipext.ParseAddress("x:" + s)
	network, _, _ := strings.Cut(s, ";")
	_, np := a.Params.Get("network-provided")
	return err == nil && sipext.IsToken(network) && !np && !strings.Contains(s, ",")
}
