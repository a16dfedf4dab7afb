package waf

import (
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// The rates. A wrong password costs a try of the account and one of the address; so does
// the try itself, before the hash is computed, and a right one gives the account's back.
var (
	// An account takes 5 wrong passwords at once and then one a minute, from wherever: an
	// attacker with many addresses guesses 1,440 a day.
	accountRate = rate{burst: 5, every: time.Minute}
	// An address, of a household or office, takes 20, then one every 10 s.
	addressRate = rate{burst: 20, every: 10 * time.Second}
	// All requests of an address: a page makes a handful.
	requestRate = rate{burst: 120, every: 50 * time.Millisecond}
)

// maxBuckets bounds each table. A full one that has nothing stale refuses newcomers: to
// forget others would set an attacker free.
const maxBuckets = 50_000

// rate fills one token each every, up to burst.
type rate struct {
	burst int
	every time.Duration
}

// throttle counts tries by account and address. Safe for concurrent use.
type throttle struct {
	now func() time.Time

	mu        sync.Mutex // guards the tables
	accounts  buckets
	addresses buckets
	requests  buckets
}

// buckets holds, for each key, when it will be full again (the generic cell rate algorithm).
type buckets struct {
	full  map[string]time.Time
	swept time.Time // a full table is swept once a second at most: newcomers must not cost much
}

func newThrottle(now func() time.Time) *throttle {
	t := &throttle{now: now}
	for _, b := range []*buckets{&t.accounts, &t.addresses, &t.requests} {
		b.full = map[string]time.Time{}
	}
	return t
}

// take takes one of key, and reports whether there was one, or else when there will be.
func (b *buckets) take(key string, r rate, now time.Time) (wait time.Duration, ok bool) {
	full, there := b.full[key]
	if full.Before(now) {
		full = now
	}
	full = full.Add(r.every)
	if wait := full.Sub(now) - time.Duration(r.burst)*r.every; wait > 0 {
		return wait, false
	}
	if !there && !b.room(now) {
		return r.every, false
	}
	b.full[key] = full
	return 0, true
}

// room reports whether the table takes one more.
func (b *buckets) room(now time.Time) bool {
	if len(b.full) >= maxBuckets && now.Sub(b.swept) >= time.Second {
		b.swept = now
		maps.DeleteFunc(b.full, func(_ string, full time.Time) bool { return full.Before(now) })
	}
	return len(b.full) < maxBuckets
}

// giveBack puts one back.
func (b *buckets) giveBack(key string, r rate) {
	if full, there := b.full[key]; there {
		b.full[key] = full.Add(-r.every)
	}
}

// signIn takes a try to sign in, or says how long to wait.
func (t *throttle) signIn(account, address string) (wait time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if wait, ok = t.addresses.take(address, addressRate, now); !ok {
		return wait, false
	}
	return t.accounts.take(account, accountRate, now)
}

// succeeded gives back what a right password took.
func (t *throttle) succeeded(account, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accounts.giveBack(account, accountRate)
	t.addresses.giveBack(address, addressRate)
}

// request takes one request of an address.
func (t *throttle) request(address string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.requests.take(address, requestRate, t.now())
	return ok
}

// clientAddr is who asks: an IPv4 address, or the /64 of an IPv6 one, since a host has
// 2^64 of those.
func clientAddr(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return p.String()
}
