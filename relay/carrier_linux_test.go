package relay

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"epcscf/turncred"
)

// served are sockets of one address with what ServeUDP returned.
func served(t *testing.T, w *world, n int) (at netip.AddrPort, ended chan error) {
	t.Helper()
	conns, err := ListenUDP(t.Context(), netip.AddrPortFrom(loopback, 0), n)
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, n)
	for _, pc := range conns {
		go func() { ended <- w.ServeUDP(pc) }()
	}
	at = addrPortOf(conns[0].LocalAddr())
	eventually(t, "every socket has its carrier", func() bool { return len(carriersOf(w, at)) == n })
	return at, ended
}

func carriersOf(w *world, at netip.AddrPort) (all []*carrier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.carriers {
		if c.server == at {
			all = append(all, c)
		}
	}
	return all
}

// call is an allocation with a channel to a peer.
type call struct {
	*rawClient
	peer    *peer
	relayed netip.AddrPort
}

func newCall(t *testing.T, w *world, at netip.AddrPort, impi turncred.IMPI) *call {
	t.Helper()
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	c := &call{rawClient: newRawClient(t, conn, w.credential(t, impi, 1)), peer: newPeer(t)}
	c.relayed = c.allocate()
	wantCode(t, c.bind(0x4000, c.peer.addr), 0)
	return c
}

func (c *call) echo(data string) {
	c.t.Helper()
	c.sendChannel(0x4000, data)
	c.peer.want(c.relayed, data)
	c.peer.send(c.relayed, data)
	c.wantChannel(0x4000, data)
}

// Sockets of one address share all allocations, and those of a socket that closes go on
// with another.
func TestSharedListeners(t *testing.T) {
	w := newWorld(t, nil)
	at, ended := served(t, w, 3)
	calls := make([]*call, 24)
	for i := range calls {
		calls[i] = newCall(t, w, at, "alice")
		calls[i].echo("before")
	}
	used := map[*carrier]bool{}
	for a := range w.subjectsOf(calls[0].cred.Identity.Subject) {
		used[a.legs[0].lane.c.Load()] = true
	}
	if len(used) < 2 {
		t.Errorf("%d of 3 carriers have allocations, want several", len(used))
	}
	for left := 2; left > 0; left-- {
		if err := carriersOf(w, at)[0].Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		// The heir may not have looked yet: what comes meanwhile waits in the socket.
		for _, c := range calls {
			c.echo("after")
		}
	}
	if n := len(w.Allocations()); n != len(calls) {
		t.Errorf("%d allocations, want %d", n, len(calls))
	}
	_ = carriersOf(w, at)[0].Close()
	eventually(t, "without a socket nothing is left", func() bool { return len(w.Allocations()) == 0 })
}

func TestSharedPortIsNobodyElses(t *testing.T) {
	taken, err := ListenUDP(t.Context(), netip.AddrPortFrom(loopback, 0), 2)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ListenUDP(t.Context(), addrPortOf(taken[0].LocalAddr()), 2)
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second server shares the port: %v, %v", again, err)
	}
	for _, pc := range append(taken, again...) {
		_ = pc.Close()
	}
}

// Under load carriers work for themselves, then the leader works for all again; and each
// size passes in each direction, in order.
func TestCarriersUnderLoad(t *testing.T) {
	w := newWorld(t, nil)
	at, _ := served(t, w, 2)
	var calls sync.WaitGroup
	for range 8 {
		c := newCall(t, w, at, "alice")
		calls.Go(func() {
			for round := range 40 {
				var sent []string
				for k := range 12 {
					data := strings.Repeat(string(rune('a'+k)), 100+(k/4)*(round%3)*50)
					sent = append(sent, data)
					c.sendChannel(0x4000, data)
				}
				for _, data := range sent {
					c.peer.want(c.relayed, data)
				}
				for _, data := range sent {
					c.peer.send(c.relayed, data)
				}
				for _, data := range sent {
					c.wantChannel(0x4000, data)
				}
			}
		})
	}
	calls.Wait()
	eventually(t, "all are counted", func() bool { // a packet may arrive before it is
		return !slices.ContainsFunc(w.Allocations(), func(a AllocationInfo) bool {
			return a.PacketsToPeer != 480 || a.PacketsToClient != 480 || a.BytesToPeer != a.BytesToClient
		})
	})
}

func TestEverySizePasses(t *testing.T) {
	w := newWorld(t, nil)
	c := newCall(t, w, w.udp, "alice")
	for _, n := range []int{0, 1, 2, 3, 4, 5, 171, 172, 173, 1200, 1472, smallDatagram, 9001, 65000} {
		c.echo(strings.Repeat("x", n))
	}
	c.send(append(channelPacket(), 0, 0, 0)) // padded, which UDP need not be (RFC 8656 §12.5)
	c.peer.want(c.relayed, string(make([]byte, 172)))
	c.send(channelPacket()[:100])
	eventually(t, "one that is cut is malformed", func() bool { return w.dropped(dropMalformed) == 1 })
}

// box is an outbox with a socket to send from.
func box(t *testing.T) (*outbox, *descriptor) {
	t.Helper()
	m, err := newMetrics(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := descriptorOf(pc, legBuffer)
	t.Cleanup(func() { _ = d.Close() })
	return newOutbox(m), d
}

// sendSizes sends a packet of each size and returns the counter of what left.
func sendSizes(b *outbox, d *descriptor, to func(i int) netip.AddrPort, sizes []int) *trafficCounter {
	q, count := queue{-1, -1}, &trafficCounter{}
	for i, n := range sizes {
		b.add(&q, packet{data: []byte(strings.Repeat(string(rune('a'+i)), n)), to: to(i), count: count, bytes: n})
	}
	b.send(d, &q)
	b.reset()
	return count
}

func TestOutboxKeepsEachPacket(t *testing.T) {
	sizes := []int{100, 100, 100, 50, 100, 0, 0, 7, 7, 7, 8, 1200, 1200, 1}
	for name, edit := range map[string]func(*descriptor){
		"split by the kernel":         func(*descriptor) {},
		"one by one":                  func(d *descriptor) { d.plain.Store(true) },
		"the kernel will not (split)": func(d *descriptor) { _ = unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) }, // EINVAL
	} {
		t.Run(name, func(t *testing.T) {
			b, d := box(t)
			edit(d)
			p := newPeer(t)
			got := sendSizes(b, d, func(int) netip.AddrPort { return p.addr }, sizes).load()
			total := 0
			for i, n := range sizes {
				p.want(d.local, strings.Repeat(string(rune('a'+i)), n))
				total += n
			}
			p.wantNothing()
			if got.Packets != uint64(len(sizes)) || got.Bytes != uint64(total) {
				t.Errorf("counted %+v, want %d packets and %d bytes", got, len(sizes), total)
			}
		})
	}
}

func TestOutboxSplitsNoMoreThanTheKernel(t *testing.T) {
	b, d := box(t)
	p := newPeer(t)
	sizes := make([]int, batch)
	for i := range sizes {
		sizes[i] = 1400 // more together than a datagram can have
	}
	if got := sendSizes(b, d, func(int) netip.AddrPort { return p.addr }, sizes).load(); got.Packets != batch {
		t.Fatalf("%d packets left, want %d", got.Packets, batch)
	}
	for i := range sizes {
		p.want(d.local, strings.Repeat(string(rune('a'+i)), 1400))
	}
}

// What cannot be sent is dropped, and takes nothing else with it.
func TestOutboxDropsOneOfMany(t *testing.T) {
	b, d := box(t)
	p := newPeer(t)
	nowhere := netip.AddrPortFrom(loopback, 0) // EINVAL
	got := sendSizes(b, d, func(i int) netip.AddrPort {
		if i == 1 || i == 4 {
			return nowhere
		}
		return p.addr
	}, []int{5, 5, 5, 6, 5}).load()
	p.want(d.local, "aaaaa")
	p.want(d.local, "ccccc")
	p.want(d.local, "dddddd")
	p.wantNothing()
	if dropped := int(testutil.ToFloat64(b.metrics.drops[dropWrite])); got.Packets != 3 || dropped != 2 {
		t.Errorf("%d left and %d dropped, want 3 and 2", got.Packets, dropped)
	}
}

func TestOutboxRemembersEIO(t *testing.T) {
	b, d := box(t)
	p := newPeer(t)
	q, count := queue{-1, -1}, &trafficCounter{}
	for range 3 {
		b.add(&q, packet{data: []byte("abc"), to: p.addr, count: count, bytes: 3})
	}
	if behind := b.refused(d, q.first, 3, unix.EIO); behind != -1 || !d.plain.Load() || count.load().Packets != 3 {
		t.Errorf("behind %d, plain %t, %d sent: want -1, true, 3", behind, d.plain.Load(), count.load().Packets)
	}
	b.reset()
	q.first = -1
	for range 2 {
		b.add(&q, packet{data: []byte("abc"), to: p.addr, count: count, bytes: 3})
	}
	if n := b.compose(d, q.first); n != 2 {
		t.Errorf("two packets make %d messages, want 2", n)
	}
	if behind := b.refused(d, q.first, 1, unix.ENOBUFS); behind != 1 || int(testutil.ToFloat64(b.metrics.drops[dropWrite])) != 1 {
		t.Errorf("ENOBUFS: behind %d, %d dropped, want 1 and 1", behind, int(testutil.ToFloat64(b.metrics.drops[dropWrite])))
	}
}

// A closed port's ICMP, where a socket asks for it, ends nothing.
func TestRefusedPeerEndsNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.ListenPacket = func(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
			pc, err := listenUDP(ctx, addr)
			if err == nil {
				raw, _ := pc.(*net.UDPConn).SyscallConn()
				_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1) })
			}
			return pc, err
		}
	})
	c := newCall(t, w, w.udp, "alice")
	gone := newPeer(t)
	wantCode(t, c.bind(0x4001, gone.addr), 0)
	_ = gone.conn.Close()
	for range 20 {
		c.sendChannel(0x4001, "nobody hears")
		c.echo("this one")
	}
}

// A descriptor's number is not another's while a system call uses it.
func TestDescriptorOutlivesItsUsers(t *testing.T) {
	_, d := box(t)
	if !d.acquire() {
		t.Fatal("a new descriptor is closed")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFD, 0); err != nil {
		t.Errorf("closed under its user: %v", err)
	}
	if d.acquire() {
		t.Error("a closed descriptor has a new user")
	}
	d.release()
	if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFD, 0); err == nil {
		t.Error("still open after its last user")
	}
	if d.Close() == nil || d.acquire() {
		t.Error("it closed twice, or came back")
	}
}

// Once Revoke has returned no packet leaves, however many are on their way.
func TestNothingLeavesAfterRevoke(t *testing.T) {
	w := newWorld(t, nil)
	c := newCall(t, w, w.udp, "alice")
	var stop atomic.Bool
	var flood sync.WaitGroup
	flood.Go(func() {
		for b := channelPacket(); !stop.Load(); {
			_, _ = c.conn.Write(b)
		}
	})
	flood.Go(func() {
		for b := make([]byte, 172); !stop.Load(); {
			_, _ = c.peer.conn.WriteToUDPAddrPort(b, c.relayed)
		}
	})
	eventually(t, "packets pass", func() bool {
		all := w.Allocations()
		return len(all) == 1 && all[0].PacketsToPeer > 500 && all[0].PacketsToClient > 500
	})
	var left [2]uint64
	a := w.flows.load(FiveTuple{UDP, addrPortOf(c.conn.LocalAddr()), w.udp})
	mustRevoke(t, w.sharedKey, turncred.Scope{IMPI: "alice", Binding: 1})
	left[0], left[1] = a.toPeer.load().Packets, a.toClient.load().Packets
	eventually(t, "the carrier drops what comes", func() bool { return w.dropped(dropNoAllocation) > 1000 })
	stop.Store(true)
	flood.Wait()
	if now := [2]uint64{a.toPeer.load().Packets, a.toClient.load().Packets}; now != left {
		t.Errorf("%v packets had left when Revoke returned, and %v at the end", left, now)
	}
}

// A packet takes no memory on its way through a carrier.
func TestCarrierTakesNoMemory(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Logger = nil })
	c := newCall(t, w, w.udp, "alice")
	packet, in := channelPacket(), make([]byte, largeDatagram)
	client := c.conn.(*net.UDPConn)
	_ = client.SetReadDeadline(time.Now().Add(answerWait))
	_ = c.peer.conn.SetReadDeadline(time.Now().Add(answerWait))
	trip := func() {
		_, _ = client.Write(packet)
		n, from, err := c.peer.conn.ReadFromUDPAddrPort(in)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.peer.conn.WriteToUDPAddrPort(in[:n], from)
		if _, err := client.Read(in); err != nil {
			t.Fatal(err)
		}
	}
	const trips = 1000
	trip()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range trips {
		trip()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > trips/10 { // the runtime's own
		t.Errorf("%d allocations for %d packets, want none", n, 2*trips)
	}
}

// On a socket that is bound to every address, answers and data leave by the address to which
// the client sent, and two addresses are two five-tuples.
func TestAnswersLeaveByTheAddressThatWasAsked(t *testing.T) {
	for _, tt := range []struct{ network, listen, one, other string }{
		{"udp4", "0.0.0.0:0", "127.0.0.2", "127.0.0.3"},
		{"udp", "[::]:0", "127.0.0.2", "::1"},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			w := newWorld(t, nil)
			pc, err := net.ListenPacket(tt.network, tt.listen)
			if err != nil {
				t.Skip(err)
			}
			at := addrPortOf(pc.LocalAddr())
			ended := make(chan error, 1)
			go func() { ended <- w.ServeUDP(pc) }()
			eventually(t, "the socket has its carrier", func() bool { return len(carriersOf(w, at)) == 1 })
			for _, ip := range []string{tt.one, tt.other} {
				// A connected socket hears nothing from another address.
				c := newCall(t, w, netip.AddrPortFrom(netip.MustParseAddr(ip), at.Port()), "alice")
				c.echo("by " + ip)
				five := FiveTuple{UDP, addrPortOf(c.conn.LocalAddr()), addrPortOf(c.conn.RemoteAddr())}
				if w.flows.load(five) == nil {
					t.Errorf("no allocation of %+v", five)
				}
				for range 40 { // some of them in one batch
					c.sendChannel(0x4000, "again")
				}
				for range 40 {
					c.peer.want(c.relayed, "again")
					c.peer.send(c.relayed, "again")
				}
				for range 40 {
					c.wantChannel(0x4000, "again")
				}
			}
			_ = w.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
