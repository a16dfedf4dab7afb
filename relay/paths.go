package relay

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	permissionLife = 300 * time.Second // RFC 8656 §9: MUST be 300 seconds
	channelLife    = 600 * time.Second // RFC 8656 §12: 10 minutes unless refreshed
)

// expiry is an instant that the control path moves and the data path reads.
type expiry struct{ unixNano atomic.Int64 }

func (e *expiry) set(t time.Time)           { e.unixNano.Store(t.UnixNano()) }
func (e *expiry) time() time.Time           { return time.Unix(0, e.unixNano.Load()) }
func (e *expiry) liveAt(now time.Time) bool { return now.UnixNano() < e.unixNano.Load() }

// permission lets a peer's address send to the client (RFC 8656 §9).
type permission struct {
	ip      netip.Addr
	expires expiry
	verdict verdict // open or relayedOnly
}

// channel binds a number to a peer's transport address (RFC 8656 §12).
type channel struct {
	number  uint16
	peer    netip.AddrPort
	verdict verdict
	expires expiry
}

// pathSet is what the data path reads; a writer copies it. Most allocations have one or two
// of each, which are found sooner one by one than in a map.
type pathSet struct {
	permissions []*permission
	channels    []*channel
}

// paths are the permissions and channels of one allocation, at most max of each.
type paths struct {
	max int
	set atomic.Pointer[pathSet]
	mu  sync.Mutex // one writer at a time
}

func newPaths(limit int) *paths {
	p := &paths{max: limit}
	p.set.Store(&pathSet{})
	return p
}

// permits returns the permission for ip, or nil.
func (p *paths) permits(ip netip.Addr, now time.Time) *permission {
	for _, perm := range p.set.Load().permissions {
		if perm.ip == ip {
			return ifLive(perm, &perm.expires, now)
		}
	}
	return nil
}

// channel returns the binding of number, or nil.
func (p *paths) channel(number uint16, now time.Time) *channel {
	for _, c := range p.set.Load().channels {
		if c.number == number {
			return ifLive(c, &c.expires, now)
		}
	}
	return nil
}

// channelOf returns the binding of peer, or nil.
func (p *paths) channelOf(peer netip.AddrPort, now time.Time) *channel {
	for _, c := range p.set.Load().channels {
		if c.peer == peer {
			return ifLive(c, &c.expires, now)
		}
	}
	return nil
}

func ifLive[T any](v *T, until *expiry, now time.Time) *T {
	if until.liveAt(now) {
		return v
	}
	return nil
}

// permit installs or refreshes a permission for each address, or, where they are too
// many, for none, and reports false (RFC 8656 §10.2).
func (p *paths) permit(verdicts map[netip.Addr]verdict, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.set.Load().pruned(now)
	for ip, v := range verdicts {
		next.permit(ip, v, now)
	}
	if len(next.permissions) > p.max {
		return false
	}
	p.set.Store(next)
	return true
}

// bindResult says what became of a ChannelBind.
type bindResult uint8

const (
	bound     bindResult = iota
	bindTaken            // the number or the peer is bound otherwise
	bindFull             // too many channels or permissions
)

// bind installs or refreshes a channel and its permission (RFC 8656 §12.2).
func (p *paths) bind(number uint16, peer netip.AddrPort, v verdict, now time.Time) bindResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.set.Load().pruned(now)
	at := slices.IndexFunc(next.channels, func(c *channel) bool { return c.number == number || c.peer == peer })
	if at < 0 {
		at = len(next.channels)
		next.channels = append(next.channels, &channel{number: number, peer: peer, verdict: v})
	}
	c := next.channels[at]
	if c.number != number || c.peer != peer {
		return bindTaken
	}
	next.permit(peer.Addr(), v, now)
	if len(next.channels) > p.max || len(next.permissions) > p.max {
		return bindFull
	}
	c.expires.set(now.Add(channelLife))
	p.set.Store(next)
	return bound
}

// prune forgets what has expired.
func (p *paths) prune(now time.Time) {
	if !p.set.Load().stale(now) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set.Store(p.set.Load().pruned(now))
}

// forget removes what belongs to peers of one family.
func (p *paths) forget(family byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set.Store(p.set.Load().without(
		func(perm *permission) bool { return familyOf(perm.ip) == family },
		func(c *channel) bool { return familyOf(c.peer.Addr()) == family },
	))
}

// count returns how many permissions and channels live at now.
func (p *paths) count(now time.Time) (permissions, channels int) {
	live := p.set.Load().pruned(now)
	return len(live.permissions), len(live.channels)
}

// stale reports whether something in s has expired.
func (s *pathSet) stale(now time.Time) bool {
	return slices.ContainsFunc(s.permissions, func(p *permission) bool { return !p.expires.liveAt(now) }) ||
		slices.ContainsFunc(s.channels, func(c *channel) bool { return !c.expires.liveAt(now) })
}

// pruned copies what is live at now.
func (s *pathSet) pruned(now time.Time) *pathSet {
	return s.without(
		func(p *permission) bool { return !p.expires.liveAt(now) },
		func(c *channel) bool { return !c.expires.liveAt(now) },
	)
}

// without copies s, less what is named.
func (s *pathSet) without(permission func(*permission) bool, channel func(*channel) bool) *pathSet {
	return &pathSet{
		slices.DeleteFunc(slices.Clone(s.permissions), permission),
		slices.DeleteFunc(slices.Clone(s.channels), channel),
	}
}

// permit puts a fresh permission into a set that nobody reads yet. The old one is left as
// it is: a request that comes to nothing must not lengthen its life.
func (s *pathSet) permit(ip netip.Addr, v verdict, now time.Time) {
	perm := &permission{ip: ip, verdict: v}
	perm.expires.set(now.Add(permissionLife))
	if at := slices.IndexFunc(s.permissions, func(p *permission) bool { return p.ip == ip }); at >= 0 {
		s.permissions[at] = perm
		return
	}
	s.permissions = append(s.permissions, perm)
}
