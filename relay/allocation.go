package relay

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// clientConn is the way to the client of a five-tuple. Its methods are safe for
// concurrent use.
type clientConn interface {
	// write sends one STUN message or ChannelData message, padded by the caller.
	write(b []byte) error
	// retain returns a clientConn that outlives the request it came with.
	retain() clientConn
	// trust says that an allocation was made over it, release that this one ended.
	trust(a *allocation)
	release()
}

// allocation is what a client has made on its five-tuple (RFC 8656 §6).
type allocation struct {
	five    FiveTuple
	client  clientConn
	legs    []*leg            // one or two, fixed
	reserve *reservationToken // of the next port (RFC 8656 §7.2), or nil
	since   time.Time
	made    [stun.TransactionIDSize]byte // transaction that made it, to know a retransmission
	owner   turncred.Subject             // whom the quota counts it for
	budget  *allowance                   // of the owner's bytes; nil: no limit

	// holder is whose it is: another credential of the same user once a token was renewed.
	// The server's lock guards writing it.
	holder atomic.Pointer[holder]

	paths    *paths
	deadline expiry // ends unless refreshed
	ended    atomic.Bool
	limit    time.Time // deadline never passes it; the server's lock guards it

	peers            peerLog
	toPeer, toClient trafficCounter
}

// who returns whose a is.
func (a *allocation) who() *holder { return a.holder.Load() }

// liveAt reports whether a may relay at now.
func (a *allocation) liveAt(now time.Time) bool { return !a.ended.Load() && a.deadline.liveAt(now) }

// traffic counts relayed payload in one direction.
type traffic struct{ Packets, Bytes uint64 }

func (t *traffic) add(o traffic) {
	t.Packets += o.Packets
	t.Bytes += o.Bytes
}

// trafficCounter is traffic that several may count.
type trafficCounter struct{ packets, bytes atomic.Uint64 }

func (c *trafficCounter) count(n int) {
	c.packets.Add(1)
	c.bytes.Add(uint64(n))
}

func (c *trafficCounter) load() traffic { return traffic{c.packets.Load(), c.bytes.Load()} }

// AllocationInfo is what an operator may see of a live allocation.
type AllocationInfo struct {
	FiveTuple FiveTuple
	Relayed   netip.AddrPort // as the client knows it
	Relayed6  netip.AddrPort // the IPv6 one of a dual allocation, else invalid
	Tid       turncred.Tid
	Subject   turncred.Subject
	Binding   turncred.Binding
	Since     time.Time
	Expires   time.Time // unless refreshed

	// Peers are those that it has had a permission for, MaxPermissions of them at most.
	Peers                          []netip.Addr
	Permissions, Channels          int
	PacketsToPeer, BytesToPeer     uint64
	PacketsToClient, BytesToClient uint64
}

func (a *allocation) info(now time.Time) AllocationInfo {
	h := a.who()
	perms, channels := a.paths.count(now)
	out, in := a.toPeer.load(), a.toClient.load()
	i := AllocationInfo{
		FiveTuple: a.five, Relayed: a.first().relayed,
		Tid: h.tid, Subject: h.identity.Subject, Binding: h.identity.Binding,
		Since: a.since, Expires: a.deadline.time(),
		Peers: a.peers.list(), Permissions: perms, Channels: channels,
		PacketsToPeer: out.Packets, BytesToPeer: out.Bytes,
		PacketsToClient: in.Packets, BytesToClient: in.Bytes,
	}
	if len(a.legs) > 1 {
		i.Relayed6 = a.legs[1].relayed
	}
	return i
}
