package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"epcscf/relay"
	"epcscf/store/coturn"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

// pushKeyID stands in the Tids of approach 2 where there is no key of approach 1.
const pushKeyID turncred.KeyID = "push"

// turnSide is the relay and what makes credentials for it. Approach and keys may change
// while it runs (set). It is the edge's turncred.Provisioner and the relay's
// turncred.Authenticator.
type turnSide struct {
	relay *relay.Server // nil where the TURN server is not ours
	uris  []string

	realm  turncred.Realm
	codec  *turncred.TidCodec
	minter *turncred.Minter
	making turncred.MinterConfig // of minter
	table  *push.Table
	sink   push.Sink
	maxTTL time.Duration
	hash   sharedkey.Algorithm
	tokens *tokenSide  // nil: none are taken
	fleet  *push.Fleet // nil: no relay is in another process
	// coturns are those of the fleet that are no relays of ours.
	coturns []*coturn.Relay

	// listed are the relays of the file.
	listed []string
	// revoker is the relay, or all of them.
	revoker   turncred.Revoker
	keysLater bool // there may be no key yet: a store has them

	issuer atomic.Pointer[turncred.Provisioner]
	auth   atomic.Pointer[turncred.Authenticator]
	kids   atomic.Pointer[[]turncred.KeyID] // of approach 1
}

var (
	_ turncred.Provisioner   = (*turnSide)(nil)
	_ turncred.Authenticator = (*turnSide)(nil)
)

// newTURNSide wires both approaches into the relay, whichever the edge uses: a credential
// that was made before a switch stays good until it expires.
func newTURNSide(cfg Config, at Addresses, j *journal, reg prometheus.Registerer) (*turnSide, error) {
	t, err := newTURNBase(cfg.TURN)
	if err != nil {
		return nil, err
	}
	var revoker turncred.Revoker
	switch {
	case cfg.Relay != nil:
		if t.relay, err = newRelay(cfg.Relay, cfg.TURN.Realm, ownPorts(cfg, at), cfg.Logger, at, t, reg); err != nil {
			return nil, err
		}
		revoker = t.relay
		if len(t.uris) == 0 {
			t.uris = turnURIs(cfg.Relay.PublicName, at)
		}
	case cfg.Fleet != nil:
		if err = t.wireFleet(cfg, j, reg); err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.sink, revoker = t.fleet, t.fleet
	default:
		revoker = newUnheard(reg)
		cfg.Logger.Warn("the TURN server is not ours: a revocation reaches nobody, a credential is good until it expires", "uris", t.uris)
	}
	t.revoker = revoker
	t.making = turncred.MinterConfig{
		Codec: t.codec, Realm: t.realm, URIs: t.uris, MaxTTL: cfg.TURN.MaxTTL, Order: cfg.TURN.Order, Revoker: revoker,
		Placed: t.fleet != nil,
	}
	if t.minter, err = turncred.NewMinter(t.making); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if err := t.set(cfg.TURN.Approach, cfg.TURN.Keys); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// newTURNBase is what edge and relay have in common.
func newTURNBase(cfg TURN) (*turnSide, error) {
	codec, err := turncred.NewTidCodec(cfg.Deployment)
	if err != nil {
		return nil, fmt.Errorf("deployment secret: %w", err)
	}
	t := &turnSide{
		realm: cfg.Realm, codec: codec, uris: cfg.URIs, maxTTL: cfg.MaxTTL, hash: cfg.Hash,
		table: push.NewTable(cfg.Realm, nil), sink: cfg.Sink, keysLater: cfg.KeysLater,
	}
	if t.sink == nil {
		t.sink = t.table
	}
	t.tokens, err = newTokenSide(cfg)
	return t, err
}

// newRelaySide is the relay of a process of its own: it takes what edges elsewhere make.
func newRelaySide(cfg RelayConfig, log *slog.Logger, at Addresses, reg prometheus.Registerer) (*turnSide, error) {
	t, err := newTURNBase(cfg.TURN)
	if err != nil {
		return nil, err
	}
	if t.relay, err = newRelay(cfg.Relay, cfg.TURN.Realm, []netip.AddrPort{at.Admin}, log, at, t, reg); err != nil {
		return nil, err
	}
	t.revoker = t.relay
	if err := t.setAuth(cfg.TURN.Keys); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func newRelay(cfg *Relay, realm turncred.Realm, own []netip.AddrPort, log *slog.Logger, at Addresses, t *turnSide, reg prometheus.Registerer) (*relay.Server, error) {
	set := cfg.Settings
	set.Realm, set.Auth, set.Logger, set.Metrics = realm, t, log, reg
	if t.tokens != nil {
		set.Tokens = t.tokens
	}
	if !set.RelayIP.IsValid() {
		for _, a := range append(at.TURNUDP, append(at.TURNTCP, at.TURNTLS...)...) {
			set.RelayIP = a.Addr()
			break
		}
	}
	set.DenyPeers = append(own, set.DenyPeers...)
	srv, err := relay.New(set)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return srv, nil
}

// setAll takes what of next may change while it runs; where an error is returned, nothing
// has changed.
func (t *turnSide) setAll(next TURN) error {
	if t.tokens == nil {
		return t.set(next.Approach, next.Keys)
	}
	return t.tokens.use(next.Tokens.Keys, func() error { return t.set(next.Approach, next.Keys) })
}

// set takes the approach and the keys of approach 1 from now on. Where the TURN side is a
// relay by itself there is no approach to take.
func (t *turnSide) set(approach turncred.Approach, keys []turncred.Key) error {
	if t.minter == nil {
		return t.setAuth(keys)
	}
	ring, err := turncred.NewKeyRing(keys...)
	if err != nil {
		return err
	}
	var issuer turncred.Provisioner
	switch approach {
	case turncred.ApproachPush:
		if t.relay == nil && t.fleet == nil {
			return errors.New("approach push gives credentials to our relay, which is off")
		}
		kid := pushKeyID
		if len(keys) > 0 {
			kid = keys[0].ID
		}
		issuer = push.NewIssuer(t.minter, kid, t.sink)
	case turncred.ApproachSharedKey:
		if len(keys) == 0 && !t.keysLater {
			return errors.New("approach shared-key wants a key")
		}
		issuer = sharedkey.NewIssuer(t.minter, ring, t.hash)
		if t.fleet != nil {
			issuer = chosen{issuer, t.fleet}
		}
	default:
		_, err := turncred.ParseApproach(string(approach))
		return err
	}
	if err := t.setAuth(keys); err != nil {
		return err
	}
	t.issuer.Store(&issuer)
	return nil
}

// setAuth takes the keys of approach 1 from now on, for what the relay is shown.
func (t *turnSide) setAuth(keys []turncred.Key) error {
	ring, err := turncred.NewKeyRing(keys...)
	if err != nil {
		return err
	}
	shared, err := sharedkey.NewAuthenticator(sharedkey.AuthenticatorConfig{Ring: ring, Codec: t.codec, Realm: t.realm, MaxTTL: t.maxTTL, Algorithm: t.hash})
	if err != nil {
		return err
	}
	chain := turncred.Chain{t.table, shared}
	if t.tokens != nil {
		chain = append(chain, t.tokens)
	}
	auth := turncred.Authenticator(chain)
	kids := make([]turncred.KeyID, len(keys))
	for i, k := range keys {
		kids[i] = k.ID
	}
	for _, c := range t.coturns {
		if err := c.SetKeys(keys); err != nil {
			return err
		}
	}
	t.auth.Store(&auth)
	t.kids.Store(&kids)
	return nil
}

// keyIDs are the keys of approach 1 and of tokens that are known.
func (t *turnSide) keyIDs() []turncred.KeyID {
	ids := *t.kids.Load()
	if t.tokens != nil {
		ids = slices.Concat(ids, *t.tokens.kids.Load())
	}
	return ids
}

// has reports whether every relay that gets users has a key, and whether any has.
func (t *turnSide) has(kid turncred.KeyID) (every, some bool) {
	if t.fleet == nil {
		return true, true
	}
	return t.fleet.Has(kid)
}

// chosen is a Provisioner of approach 1 before several relays: the credential is good at
// each, and the WIC is told of those that it should use.
type chosen struct {
	turncred.Provisioner
	fleet *push.Fleet
}

// Provision implements turncred.Provisioner.
func (c chosen) Provision(ctx context.Context, r turncred.Request) (turncred.Credential, error) {
	cred, err := c.Provisioner.Provision(ctx, r)
	if err != nil {
		return cred, err
	}
	if cred.URIs = c.fleet.URIs(cred.Identity.Subject, cred.Tid.KeyID()); len(cred.URIs) == 0 {
		return turncred.Credential{}, &turncred.UnavailableError{
			Reason: turncred.ReasonRelayUnreachable, RetryAfter: 30 * time.Second,
			Err: fmt.Errorf("no relay has the key %s and takes new users", cred.Tid.KeyID()),
		}
	}
	return cred, nil
}

// Immediate implements turncred.Immediate: the choice waits for nobody.
func (c chosen) Immediate() bool { return true }

// Immediate implements turncred.Immediate, as the approach in use does.
func (t *turnSide) Immediate() bool {
	i, ok := (*t.issuer.Load()).(turncred.Immediate)
	return ok && i.Immediate()
}

// Provision implements turncred.Provisioner.
func (t *turnSide) Provision(ctx context.Context, r turncred.Request) (turncred.Credential, error) {
	return (*t.issuer.Load()).Provision(ctx, r)
}

// Revoke implements turncred.Provisioner; it takes back what either approach made.
func (t *turnSide) Revoke(ctx context.Context, s turncred.Scope) error {
	return t.minter.Revoke(ctx, s)
}

// Authenticate implements turncred.Authenticator.
func (t *turnSide) Authenticate(username string, now time.Time) (turncred.Proof, error) {
	return (*t.auth.Load()).Authenticate(username, now)
}

// serve starts the relay on its sockets.
func (t *turnSide) serve(g *errgroup.Group, s *sockets, cfg *Relay) {
	for _, pc := range s.turnUDP {
		g.Go(func() error { return t.relay.ServeUDP(pc) })
	}
	for _, ln := range s.turnTCP {
		g.Go(func() error { return t.relay.ServeTCP(ln) })
	}
	for _, ln := range s.turnTLS {
		g.Go(func() error { return t.relay.ServeTLS(ln, turnTLS(cfg.Certificate)) })
	}
}

func (t *turnSide) close() error {
	if t == nil {
		return nil
	}
	for _, c := range t.coturns {
		c.Close()
	}
	if t.relay == nil {
		return nil
	}
	return t.relay.Close()
}

// ownPorts are never peers, whatever is opened. The relay knows its own listeners.
func ownPorts(cfg Config, at Addresses) []netip.AddrPort {
	ports := append(append([]netip.AddrPort{at.Admin, at.Core}, at.Web...), at.WAF...)
	if cfg.Hearing != nil {
		ports = append(ports, cfg.Hearing.Listen.AddrPort)
	}
	if cfg.WAF != nil && cfg.WAF.Interface != nil {
		ports = append(ports, cfg.WAF.Interface.Listen.AddrPort)
	}
	if cfg.CoreTLS != nil {
		ports = append(ports, cfg.CoreTLS.Listen.AddrPort)
	}
	for _, hop := range cfg.Proxy.NextHops {
		if core, err := netip.ParseAddrPort(hop.Addr); err == nil {
			ports = append(ports, core)
		}
	}
	return ports
}

// turnURIs lists what the relay listens on (RFC 7065), the one that hides the user name
// first. A name stands for every address of its kind, but the port is the listener's.
func turnURIs(name string, at Addresses) (uris []string) {
	seen := map[string]bool{}
	for _, kind := range []struct {
		at     []netip.AddrPort
		format string
	}{
		{at.TURNTLS, "turns:%s?transport=tcp"}, {at.TURNUDP, "turn:%s?transport=udp"}, {at.TURNTCP, "turn:%s?transport=tcp"},
	} {
		for _, a := range kind.at {
			host := a.String()
			if name != "" {
				host = net.JoinHostPort(name, strconv.Itoa(int(a.Port())))
			}
			if uri := fmt.Sprintf(kind.format, host); !seen[uri] {
				seen[uri], uris = true, append(uris, uri)
			}
		}
	}
	return uris
}

// unheard is the Revoker before a TURN server that knows no revocation, as coturn.
type unheard struct{ count prometheus.Counter }

func newUnheard(reg prometheus.Registerer) unheard {
	u := unheard{prometheus.NewCounter(prometheus.CounterOpts{
		Name: "epcscf_turn_revocations_unheard_total", Help: "Revocations that the TURN server, which is not ours, was not told.",
	})}
	reg.MustRegister(u.count)
	return u
}

// Revoke implements turncred.Revoker.
func (u unheard) Revoke(context.Context, turncred.Revocation) error {
	u.count.Inc()
	return nil
}
