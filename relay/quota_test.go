package relay

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

func TestAllowanceIsExactBesideOthers(t *testing.T) {
	var a allowance
	var taken atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				if a.take(time.Unix(1000, 0), time.Second, 500*time.Second) {
					taken.Add(1)
				}
			}
		})
	}
	if all.Wait(); taken.Load() != 500 {
		t.Errorf("%d taken of 500", taken.Load())
	}
}

// A user's allocations share their bytes, in both directions, and those of the next one
// too; another user has his own.
func TestByteQuota(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now, c.BytesPerSecond = clk.Now, minBytesPerSecond })
	p := newPeer(t)
	data := strings.Repeat("x", minBytesPerSecond/64)
	first, second, bob := w.client(t, UDP, w.credential(t, "alice", 1)), w.client(t, TCP, w.credential(t, "alice", 2)), w.client(t, UDP, w.credential(t, "bob", 1))
	relayed := first.allocate()
	for _, c := range []*rawClient{second, bob} {
		c.allocate()
	}
	for _, c := range []*rawClient{first, second, bob} {
		wantCode(t, c.bind(0x4000, p.addr), 0)
	}
	sent := func() int { _, out, in := w.totals(); return int(out.Packets + in.Packets) }

	for range 20 {
		first.sendChannel(0x4000, data)
		second.sendChannel(0x4000, data)
	}
	eventually(t, "forty out", func() bool { return sent() == 40 })
	for range 30 {
		p.send(relayed, data)
	}
	eventually(t, "no more than a second's worth", func() bool { return sent() == 64 && w.dropped(dropByteQuota) == 6 })
	bob.sendChannel(0x4000, data)
	eventually(t, "another user's", func() bool { return sent() == 65 })

	wantCode(t, first.signed(stun.MethodRefresh, lifetime(0)), 0)
	_ = second.conn.Close()
	eventually(t, "both end", func() bool { return len(w.Allocations()) == 1 })
	w.sweep(clk.Now())
	again := w.client(t, UDP, w.credential(t, "alice", 1))
	again.allocate()
	wantCode(t, again.bind(0x4000, p.addr), 0)
	again.sendChannel(0x4000, data)
	eventually(t, "a new allocation brings no bytes", func() bool { return w.dropped(dropByteQuota) == 7 })
	clk.advance(time.Second)
	again.sendChannel(0x4000, data)
	eventually(t, "a second later", func() bool { return sent() == 66 })

	wantCode(t, again.signed(stun.MethodRefresh, lifetime(0)), 0)
	clk.advance(time.Second)
	w.sweep(clk.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.budgets) != 1 {
		t.Errorf("%d budgets kept, want bob's", len(w.budgets))
	}
}

func TestByteQuotaLetsEveryDatagramPass(t *testing.T) {
	if _, err := New(Config{Realm: testRealm, RelayIP: loopback, Auth: unknownUsers{}, BytesPerSecond: 1000}); err == nil {
		t.Error("BytesPerSecond of 1000 was taken")
	}
}
