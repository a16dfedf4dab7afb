package relay

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"epcscf/turncred"
)

// liveAllocations is how many a relay has while one is revoked.
const liveAllocations = 1000

// BenchmarkRevocation takes from the call of Revoke to the last packet that the peer has of
// the allocation, while its client sends without a pause and the others talk too. It reports
// the median and the 99th percentile; give it -benchtime 300x or more.
func BenchmarkRevocation(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.Logger = nil })
	p := newArrivals(b)
	clients := make([]*talker, liveAllocations)
	for i := range clients {
		clients[i] = newTalker(b, w, p, i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go chatter(ctx, clients)

	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		c := clients[i%len(clients)]
		stop := c.hammer()
		for p.quiet(c.relayed, time.Now()) > time.Millisecond {
			time.Sleep(100 * time.Microsecond) // until it talks
		}
		called := time.Now()
		r := turncred.Revocation{Tid: c.cred.Tid, Until: c.cred.Texp}
		if err := w.Server.Revoke(ctx, r); err != nil {
			b.Fatal(err)
		}
		for p.quiet(c.relayed, time.Now()) < 20*time.Millisecond {
			time.Sleep(time.Millisecond)
		}
		stop()
		took = append(took, max(0, p.last(c.relayed).Sub(called)))
		clients[i%len(clients)].cred = w.credential(b, turncred.IMPI(strconv.Itoa(i)), 1)
		clients[i%len(clients)].begin(p)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// talker is a client with a channel to the peer.
type talker struct {
	*rawClient
	relayed netip.AddrPort
	packet  []byte
}

func newTalker(b *testing.B, w *world, p *arrivals, i int) *talker {
	t := &talker{rawClient: w.client(b, UDP, w.credential(b, turncred.IMPI(strconv.Itoa(i)), 1)), packet: channelPacket()}
	t.begin(p)
	return t
}

// begin makes its allocation.
func (c *talker) begin(p *arrivals) {
	c.relayed = c.allocate()
	wantCode(c.t, c.bind(0x4000, p.addr), 0)
}

// hammer sends until it is stopped.
func (c *talker) hammer() (stop func()) {
	var done atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !done.Load() {
			_, _ = c.conn.Write(c.packet)
			time.Sleep(50 * time.Microsecond)
		}
	}()
	return func() { done.Store(true); <-ended }
}

// chatter has the others send 10,000 packets a second in all.
func chatter(ctx context.Context, clients []*talker) {
	for i := 0; ctx.Err() == nil; i++ {
		_, _ = clients[i%len(clients)].conn.Write(channelPacket())
		if i%10 == 9 {
			time.Sleep(time.Millisecond)
		}
	}
}

// arrivals is a peer that notes when it last heard of whom.
type arrivals struct {
	addr netip.AddrPort
	at   [1 << 16]atomic.Int64 // by the relayed port
}

func newArrivals(b *testing.B) *arrivals {
	b.Helper()
	p := newPeer(b)
	_ = p.conn.SetReadBuffer(socketBuffer)
	a := &arrivals{addr: p.addr}
	go func() { // ends with p
		buf := make([]byte, smallDatagram)
		for {
			_, from, err := p.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			a.at[from.Port()].Store(time.Now().UnixNano())
		}
	}()
	return a
}

func (a *arrivals) last(relayed netip.AddrPort) time.Time {
	return time.Unix(0, a.at[relayed.Port()].Load())
}

func (a *arrivals) quiet(relayed netip.AddrPort, now time.Time) time.Duration {
	return now.Sub(a.last(relayed))
}
