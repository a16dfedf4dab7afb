package relay

import (
	"maps"
	"net/netip"
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

// pathSet is what the data path reads; a writer copies it.
type pathSet struct {
	permissions map[netip.Addr]*permission
	numbers     map[uint16]*channel
	peers       map[netip.AddrPort]*channel
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
	if perm := p.set.Load().permissions[ip]; perm != nil && perm.expires.liveAt(now) {
		return perm
	}
	return nil
}

// channel returns the binding of number, or nil.
func (p *paths) channel(number uint16, now time.Time) *channel {
	if c := p.set.Load().numbers[number]; c != nil && c.expires.liveAt(now) {
		return c
	}
	return nil
}

// channelOf returns the binding of peer, or nil.
func (p *paths) channelOf(peer netip.AddrPort, now time.Time) *channel {
	if c := p.set.Load().peers[peer]; c != nil && c.expires.liveAt(now) {
		return c
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
	c := next.numbers[number]
	if c != next.peers[peer] {
		return bindTaken
	}
	if c == nil {
		c = &channel{number: number, peer: peer, verdict: v}
		next.numbers[number], next.peers[peer] = c, c
	}
	next.permit(peer.Addr(), v, now)
	if len(next.numbers) > p.max || len(next.permissions) > p.max {
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
	old := p.set.Load()
	next := &pathSet{maps.Clone(old.permissions), maps.Clone(old.numbers), maps.Clone(old.peers)}
	maps.DeleteFunc(next.permissions, func(ip netip.Addr, _ *permission) bool { return familyOf(ip) == family })
	maps.DeleteFunc(next.numbers, func(_ uint16, c *channel) bool { return familyOf(c.peer.Addr()) == family })
	maps.DeleteFunc(next.peers, func(peer netip.AddrPort, _ *channel) bool { return familyOf(peer.Addr()) == family })
	p.set.Store(next)
}

// count returns how many permissions and channels live at now.
func (p *paths) count(now time.Time) (permissions, channels int) {
	live := p.set.Load().pruned(now)
	return len(live.permissions), len(live.numbers)
}

// stale reports whether something in s has expired.
func (s *pathSet) stale(now time.Time) bool {
	for _, p := range s.permissions {
		if !p.expires.liveAt(now) {
			return true
		}
	}
	for _, c := range s.numbers {
		if !c.expires.liveAt(now) {
			return true
		}
	}
	return false
}

// pruned copies what is live at now.
func (s *pathSet) pruned(now time.Time) *pathSet {
	next := &pathSet{maps.Clone(s.permissions), maps.Clone(s.numbers), maps.Clone(s.peers)}
	if next.permissions == nil {
		next = &pathSet{map[netip.Addr]*permission{}, map[uint16]*channel{}, map[netip.AddrPort]*channel{}}
	}
	maps.DeleteFunc(next.permissions, func(_ netip.Addr, p *permission) bool { return !p.expires.liveAt(now) })
	maps.DeleteFunc(next.numbers, func(_ uint16, c *channel) bool { return !c.expires.liveAt(now) })
	maps.DeleteFunc(next.peers, func(_ netip.AddrPort, c *channel) bool { return !c.expires.liveAt(now) })
	return next
}

// permit puts a fresh permission into a set that nobody reads yet. The old one is left as
// it is: a request that comes to nothing must not lengthen its life.
func (s *pathSet) permit(ip netip.Addr, v verdict, now time.Time) {
	perm := &permission{verdict: v}
	perm.expires.set(now.Add(permissionLife))
	s.permissions[ip] = perm
}
