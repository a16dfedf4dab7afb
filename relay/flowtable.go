package relay

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// Transport is how a client reaches the relay.
type Transport uint8

// The transports of RFC 8656 §3.1, less DTLS.
const (
	UDP Transport = iota + 1
	TCP
	TLS
)

// String returns "udp", "tcp" or "tls".
func (t Transport) String() string {
	switch t {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case TLS:
		return "tls"
	}
	return "unknown"
}

// FiveTuple identifies an allocation (RFC 8656 §6).
type FiveTuple struct {
	Transport      Transport
	Client, Server netip.AddrPort
}

// table maps keys to allocations. load takes no lock, so that packets of different flows
// never wait for each other or for the control path; put and remove want the caller's
// lock. Entries are immutable: a writer links new ones, and a reader sees the old chain
// or the new one. Make one with newTable.
type table[K comparable] struct {
	seed    maphash.Seed // from the process, so a client cannot choose ports that collide
	buckets atomic.Pointer[[]atomic.Pointer[entry[K]]]
	len     int
}

type entry[K comparable] struct {
	key   K
	value *allocation
	next  *entry[K]
}

const minBuckets = 64

func newTable[K comparable]() *table[K] {
	t := &table[K]{seed: maphash.MakeSeed()}
	b := make([]atomic.Pointer[entry[K]], minBuckets)
	t.buckets.Store(&b)
	return t
}

func (t *table[K]) bucket(in []atomic.Pointer[entry[K]], key K) *atomic.Pointer[entry[K]] {
	return &in[maphash.Comparable(t.seed, key)&uint64(len(in)-1)]
}

// load returns the allocation of key, or nil.
func (t *table[K]) load(key K) *allocation {
	for e := t.bucket(*t.buckets.Load(), key).Load(); e != nil; e = e.next {
		if e.key == key {
			return e.value
		}
	}
	return nil
}

// put adds key, which must not be in the table.
func (t *table[K]) put(key K, a *allocation) {
	b := *t.buckets.Load()
	if t.len >= len(b) {
		b = t.grown(b)
		t.buckets.Store(&b)
	}
	head := t.bucket(b, key)
	head.Store(&entry[K]{key, a, head.Load()})
	t.len++
}

func (t *table[K]) grown(old []atomic.Pointer[entry[K]]) []atomic.Pointer[entry[K]] {
	b := make([]atomic.Pointer[entry[K]], 2*len(old))
	for i := range old {
		for e := old[i].Load(); e != nil; e = e.next {
			head := t.bucket(b, e.key)
			head.Store(&entry[K]{e.key, e.value, head.Load()})
		}
	}
	return b
}

// remove takes key out.
func (t *table[K]) remove(key K) {
	head := t.bucket(*t.buckets.Load(), key)
	var kept *entry[K]
	found := false
	for e := head.Load(); e != nil; e = e.next {
		if e.key == key {
			found = true
			continue
		}
		kept = &entry[K]{e.key, e.value, kept}
	}
	if found {
		head.Store(kept)
		t.len--
	}
}

// all calls f with every allocation; it may run beside put and remove.
func (t *table[K]) all(f func(*allocation)) {
	b := *t.buckets.Load()
	for i := range b {
		for e := b[i].Load(); e != nil; e = e.next {
			f(e.value)
		}
	}
}
