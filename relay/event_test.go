package relay

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"epcscf/turncred"
)

// listener keeps the events that it hears.
type listener struct {
	mu  sync.Mutex // guards all
	all []Event
}

func (l *listener) hear(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// of returns the events of one credential.
func (l *listener) of(tid turncred.Tid) (events []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Tid == tid {
			events = append(events, e)
		}
	}
	return events
}

// Each allocation is told of when it is made, refreshed and ended, with its reason and all
// that it relayed.
func TestEvents(t *testing.T) {
	clk, heard := newClock(), &listener{}
	w := newWorld(t, func(c *Config) { c.Now, c.Events = clk.Now, heard.hear })
	p := newPeer(t)
	for _, tt := range []struct {
		reason    EndReason
		transport Transport
		end       func(*rawClient)
	}{
		{EndDeleted, UDP, func(c *rawClient) { wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), 0) }},
		{EndDisconnected, TLS, func(c *rawClient) { _ = c.conn.Close() }},
		{EndRevoked, TCP, func(c *rawClient) {
			r := turncred.Revocation{Tid: c.cred.Tid, Until: clk.Now().Add(time.Hour)}
			if err := w.Server.Revoke(context.Background(), r); err != nil {
				t.Fatal(err)
			}
		}},
		{EndSocket, UDP, func(c *rawClient) {
			for a := range w.subjectsOf(c.cred.Identity.Subject) {
				_ = a.first().sock.Close()
				w.end(a, EndSocket)
			}
		}},
		{EndExpired, UDP, func(*rawClient) { clk.advance(time.Hour); w.sweep(clk.Now()) }},
		{EndShutdown, UDP, func(*rawClient) { _ = w.Close() }},
	} {
		t.Run(string(tt.reason), func(t *testing.T) {
			cred := w.credential(t, turncred.IMPI(tt.reason), 7)
			c := w.client(t, tt.transport, cred)
			relayed := c.allocate()
			wantCode(t, c.permit(p.addr), 0)
			wantCode(t, c.permit(netip.MustParseAddrPort("127.0.0.9:1")), 0)
			c.sendTo(p.addr, "12345")
			p.want(relayed, "12345")
			p.send(relayed, "123")
			c.wantData(p.addr, "123")
			wantCode(t, c.signed(stun.MethodRefresh), 0)
			tt.end(c)
			eventually(t, "three events", func() bool { return len(heard.of(cred.Tid)) >= 3 })

			all := heard.of(cred.Tid)
			if len(all) != 3 || all[0].Kind != EventMade || all[1].Kind != EventRefreshed || all[2].Kind != EventEnded {
				t.Fatalf("%d events: %+v", len(all), all)
			}
			client := addrPortOf(c.conn.LocalAddr())
			for _, e := range all {
				if e.Subject != cred.Identity.Subject || e.Binding != 7 || e.FiveTuple.Client != client || e.FiveTuple.Transport != tt.transport || e.Relayed != relayed {
					t.Errorf("%s: %+v", e.Kind, e)
				}
			}
			last := all[2]
			if last.Reason != tt.reason || last.BytesToPeer != 5 || last.PacketsToPeer != 1 || last.BytesToClient != 3 || last.PacketsToClient != 1 {
				t.Errorf("ended: %+v", last)
			}
			if want := []netip.Addr{loopback, netip.MustParseAddr("127.0.0.9")}; !slices.Equal(last.Peers, want) {
				t.Errorf("peers %v, want %v", last.Peers, want)
			}
			if got := w.metricOf(tt.reason); got != 1 {
				t.Errorf("metric of %s: %v", tt.reason, got)
			}
		})
	}
	if made, refreshed := testutil.ToFloat64(w.metrics.made), testutil.ToFloat64(w.metrics.refreshed); made != 6 || refreshed != 6 {
		t.Errorf("metrics: %v made, %v refreshed, want 6 of each", made, refreshed)
	}
}

// subjectsOf returns a user's live allocations.
func (w *world) subjectsOf(s turncred.Subject) map[*allocation]struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	live := map[*allocation]struct{}{}
	for a := range w.subjects[s] {
		live[a] = struct{}{}
	}
	return live
}

// A listener that hangs holds up nobody; what he misses is counted.
func TestSlowListenerBlocksNothing(t *testing.T) {
	hang := make(chan struct{})
	w := newWorld(t, func(c *Config) { c.Events = func(Event) { <-hang } })
	defer close(hang) // before the world closes, which waits for him
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed, p := c.allocate(), newPeer(t)
	w.mu.Lock()
	for a := range w.subjects[c.cred.Identity.Subject] {
		for range 2 * eventQueue {
			w.emitLocked(EventRefreshed, a, "")
		}
	}
	w.mu.Unlock()
	if lost := testutil.ToFloat64(w.metrics.eventsLost); lost < eventQueue-1 {
		t.Errorf("%v events lost, want %d or one more", lost, eventQueue)
	}
	wantCode(t, c.signed(stun.MethodRefresh), 0)
	wantCode(t, c.permit(p.addr), 0)
	c.sendTo(p.addr, "still here")
	p.want(relayed, "still here")
}

// The peers that an event names are bounded, as permissions are.
func TestPeersOfAnEventAreBounded(t *testing.T) {
	var log peerLog
	for i := range 1000 {
		log.note(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 64)
	}
	if n := len(log.list()); n != 64 {
		t.Errorf("%d peers kept", n)
	}
}

func (w *world) metricOf(why EndReason) int { return int(testutil.ToFloat64(w.metrics.ended[why])) }
