package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"epcscf/internal/realpart"
	"epcscf/turncred"
)

// memoryJournal is an edge's disk.
type memoryJournal struct {
	mu   sync.Mutex
	next uint64
	all  map[uint64]journalled
	err  error
	done int // calls of Done
}

type journalled struct {
	relay string
	r     turncred.Revocation
}

func (j *memoryJournal) Add(_ context.Context, relay string, r turncred.Revocation) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	if j.all == nil {
		j.all = map[uint64]journalled{}
	}
	j.next++
	j.all[j.next] = journalled{relay, r}
	return j.next, nil
}

func (j *memoryJournal) Done(_ context.Context, ids ...uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done++
	for _, id := range ids {
		delete(j.all, id)
	}
	return j.err
}

func (j *memoryJournal) Pending(_ context.Context, f func(uint64, string, turncred.Revocation) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, v := range j.all {
		if err := f(id, v.relay, v.r); err != nil {
			return err
		}
	}
	return j.err
}

func (j *memoryJournal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.all)
}

// startFleet runs an edge's side before relays, until the test ends or stop is called.
func startFleet(t testing.TB, change func(*FleetConfig), relays ...RelayConfig) (f *Fleet, stop func()) {
	t.Helper()
	cfg := FleetConfig{
		Domain: testDomain, Name: "edge1", Epoch: 1, Keys: keysOf(t, authority(), RoleEdge, "edge1", time.Hour), Relays: relays, Journal: &memoryJournal{},
		compareEvery: 20 * time.Millisecond, probeEvery: 10 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	f, err := NewFleet(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return f, stop
}

func (w *relayWorld) config(name string) RelayConfig {
	return RelayConfig{Name: name, Address: w.addr, URIs: []string{"turn:" + name}, Weight: 100}
}

func (f *Fleet) answering() (n int) {
	for _, m := range *f.members.Load() {
		if up, _ := m.health(); up {
			n++
		}
	}
	return n
}

// TestPlace: the URIs are those of relays that acknowledged, and the subject's own.
func TestPlace(t *testing.T) {
	a, b := startRelay(t, nil), startRelay(t, nil)
	f, _ := startFleet(t, nil, a.config("a"), b.config("b"))
	eventually(t, "both answer", func() bool { return f.answering() == 2 })
	count := map[string]int{}
	for _, r := range records(t, 64) {
		got, err := f.Place(t.Context(), r)
		if err != nil || len(got) != 1 {
			t.Fatalf("Place = %v, %v", got, err)
		}
		w, other := a, b
		if got[0] == "turn:b" {
			w, other = b, a
		}
		if count[got[0]]++; !w.alive(r) || other.alive(r) {
			t.Errorf("%s named, at a: %v, at b: %v", got, a.alive(r), b.alive(r))
		}
		if again := f.URIs(r.Identity.Subject, ""); !slices.Equal(again, got) {
			t.Errorf("URIs = %v, Place had %v", again, got)
		}
	}
	if len(count) != 2 {
		t.Errorf("users went to %v", count)
	}
}

func TestSpareAndDrained(t *testing.T) {
	draining := false
	var mu sync.Mutex
	a, b := startRelay(t, nil), startRelay(t, func(c *ServerConfig) {
		c.Status = func() Status {
			mu.Lock()
			defer mu.Unlock()
			return Status{Ready: true, Draining: draining, Keys: []turncred.KeyID{"k1"}}
		}
	})
	c := startRelay(t, nil)
	f, _ := startFleet(t, func(c *FleetConfig) { c.Spare = 1 }, a.config("a"), b.config("b"), c.config("c"))
	eventually(t, "all answer", func() bool { return f.answering() == 3 })
	r := records(t, 1)[0]
	if got, err := f.Place(t.Context(), r); err != nil || len(got) != 2 {
		t.Errorf("Place with a spare relay = %v, %v", got, err)
	}
	if got := f.URIs(r.Identity.Subject, "k1"); !slices.Equal(got, []string{"turn:b"}) {
		t.Errorf("URIs for k1, which only b has = %v", got)
	}
	f.SetWeight("a", 0)
	mu.Lock()
	draining = true
	mu.Unlock()
	eventually(t, "b drains", func() bool { return len(f.rank(1, "")) == 1 })
	for _, r := range records(t, 8) {
		if got, err := f.Place(t.Context(), r); err != nil || !slices.Equal(got, []string{"turn:c"}) {
			t.Errorf("Place with drained relays = %v, %v", got, err)
		}
	}
	f.SetWeight("c", 0)
	if got, err := f.Place(t.Context(), records(t, 1)[0]); err == nil {
		t.Errorf("Place with every relay drained = %v", got)
	}
}

// TestNextRelay: where one is down, or takes a connection and says nothing, the next one is
// asked, and its URIs alone are given out.
func TestNextRelay(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	good := startRelay(t, nil)
	f, _ := startFleet(t, func(c *FleetConfig) { c.hedge = 5 * time.Millisecond },
		RelayConfig{Name: "silent", Address: silent.Addr().String(), URIs: []string{"turn:silent"}, Weight: 1000},
		RelayConfig{Name: "down", Address: down.Addr().String(), URIs: []string{"turn:down"}, Weight: 1000},
		good.config("good"))
	for _, r := range records(t, 8) {
		if got, err := f.Place(t.Context(), r); err != nil || !slices.Equal(got, []string{"turn:good"}) {
			t.Errorf("Place = %v, %v", got, err)
		}
	}
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Place(t.Context(), records(t, 1)[0]); err == nil {
		t.Errorf("Place without a relay = %v", got)
	}
}

// TestIssuerNamesTheRelays: what the WIC gets.
func TestIssuerNamesTheRelays(t *testing.T) {
	w := startRelay(t, nil)
	f, _ := startFleet(t, nil, w.config("a"))
	c, err := newIssuer(t, f, nil).Provision(t.Context(), turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
	if err != nil || !slices.Equal(c.URIs, []string{"turn:a"}) {
		t.Errorf("Provision = %v, %v", c.URIs, err)
	}
	if _, err := w.table.Authenticate(c.Username, time.Now()); err != nil {
		t.Errorf("the relay does not know the credential: %v", err)
	}
}

// TestJournal: a revocation waits for a relay that is down, through a restart of the edge,
// and is the first thing that the relay hears.
func TestJournal(t *testing.T) {
	up := startRelay(t, nil)
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	journal := &memoryJournal{}
	reg := prometheus.NewRegistry()
	relays := []RelayConfig{up.config("up"), {Name: "down", Address: down.Addr().String(), URIs: []string{"turn:down"}, Weight: 1}}
	f, stop := startFleet(t, func(c *FleetConfig) { c.Journal, c.Metrics = journal, reg }, relays...)
	eventually(t, "one answers", func() bool { return f.answering() == 1 })
	r := records(t, 1)[0]
	v := turncred.Revocation{Subject: r.Identity.Subject, IssuedUntil: r.Identity.Issued, Until: r.Texp.Add(turncred.ClockSkew)}
	if err := f.Revoke(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if !up.revoker.revoked(r.Tid, r.Identity) || journal.len() != 1 {
		t.Errorf("revoked %v, %d in the journal", up.revoker.revoked(r.Tid, r.Identity), journal.len())
	}
	want := `
# HELP epcscf_push_revocations_pending Revocations in the journal that the relay has yet to be told.
# TYPE epcscf_push_revocations_pending gauge
epcscf_push_revocations_pending{relay="down"} 1
epcscf_push_revocations_pending{relay="up"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "epcscf_push_revocations_pending"); err != nil {
		t.Error(err)
	}
	stop()
	_, _ = startFleet(t, func(c *FleetConfig) { c.Journal, c.Epoch = journal, 2 }, relays...)
	late := startRelay(t, nil)
	late.addr = serve(t, late.Server, down.Addr().String())
	eventually(t, "the relay is told", func() bool { return late.revoker.revoked(r.Tid, r.Identity) })
	eventually(t, "the journal is empty", func() bool { return journal.len() == 0 })

	journal.mu.Lock()
	journal.err = errors.New("no space")
	journal.mu.Unlock()
	g, _ := startFleet(t, nil, relays...)
	g.cfg.Journal = journal
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Revoke(t.Context(), v); err == nil {
		t.Error("a revocation that was neither delivered nor kept is no error")
	}
}

// TestRelayLosesItsDisk: what a relay has lost it gets back, without a write.
func TestRelayLosesItsDisk(t *testing.T) {
	w := startRelay(t, nil)
	f, _ := startFleet(t, nil, w.config("a"))
	eventually(t, "it answers", func() bool { return f.answering() == 1 })
	rs := records(t, 3*maxItems/2)
	for _, r := range rs {
		if err := f.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Revoke(t.Context(), turncred.Revocation{Tid: rs[0].Tid, Until: rs[0].Texp}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := startRelay(t, nil)
	fresh.addr = serve(t, fresh.Server, w.addr)
	for i, r := range rs {
		eventually(t, fmt.Sprintf("credential %d is there", i), func() bool { return i == 0 || fresh.alive(r) })
	}
	eventually(t, "the revocation is there", func() bool { return fresh.revoker.revoked(rs[0].Tid, rs[0].Identity) })
}

// TestTwoLives: of two processes with one name, the younger writes.
func TestTwoLives(t *testing.T) {
	w := startRelay(t, nil)
	old, _ := startFleet(t, nil, w.config("a"))
	eventually(t, "it answers", func() bool { return old.answering() == 1 })
	young, _ := startFleet(t, func(c *FleetConfig) { c.Epoch = 2 }, w.config("a"))
	rs := records(t, 2)
	if err := young.Put(t.Context(), rs[0]); err != nil {
		t.Fatal(err)
	}
	if err := old.Put(t.Context(), rs[1]); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("Put = %v, want ErrStaleEpoch", err)
	}
	eventually(t, "the old one knows", func() bool { return old.answering() == 0 })
}

// TestClocksApart: over 5 s is a line in the log, and a metric.
func TestClocksApart(t *testing.T) {
	w := startRelay(t, func(c *ServerConfig) { c.Now = func() time.Time { return time.Now().Add(10 * time.Second) } })
	reg, log := prometheus.NewRegistry(), &realpart.Output{}
	f, _ := startFleet(t, func(c *FleetConfig) { c.Metrics, c.Logger = reg, slog.New(slog.NewTextHandler(log, nil)) }, w.config("a"))
	eventually(t, "it answers", func() bool { return f.answering() == 1 })
	eventually(t, "the log says so", func() bool { return strings.Contains(log.String(), "the clocks are apart") })
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == "epcscf_push_clock_skew_seconds" && math.Abs(m.GetMetric()[0].GetGauge().GetValue()-10) > 5 {
			t.Errorf("skew %v, want about 10", m.GetMetric()[0])
		}
	}
}

// TestFollow: what happens at the relays reaches the edge, and goes on after a break.
func TestFollow(t *testing.T) {
	w := startRelay(t, nil)
	seen := make(chan Event, 16)
	f, _ := startFleet(t, func(c *FleetConfig) { c.Event = func(_ string, e Event) { seen <- e } }, w.config("a"))
	eventually(t, "it answers", func() bool { return f.answering() == 1 })
	eventually(t, "an event arrives", func() bool {
		w.events.Add(Event{Type: EventAllocated, Tid: "t"})
		select {
		case e := <-seen:
			return e.Tid == "t"
		default:
			return false
		}
	})
}

// TestScore: a relay gets its weight's share, and one that goes moves only its own users.
func TestScore(t *testing.T) {
	weights := map[string]int{"a": 100, "b": 100, "c": 200}
	best := func(s turncred.Subject, without string) (name string) {
		top := -1.0
		for n, w := range weights {
			if v := score(s, n, w); n != without && v > top {
				name, top = n, v
			}
		}
		return name
	}
	const users = 20_000
	count := map[string]int{}
	for i := range users {
		s := turncred.Subject(i)
		name := best(s, "")
		count[name]++
		if name != "b" && best(s, "b") != name {
			t.Fatalf("user %d moves from %s to %s when b goes", i, name, best(s, "b"))
		}
	}
	for n, w := range weights {
		if got, want := float64(count[n])/users, float64(w)/400; math.Abs(got-want) > 0.02 {
			t.Errorf("%s has %.3f of the users, want %.3f", n, got, want)
		}
	}
}

// TestNoRelayAtAll: an address that is no relay says so.
func TestNoRelayAtAll(t *testing.T) {
	keys := keysOf(t, authority(), RoleRelay, "relay1", time.Hour)
	srv := &http.Server{TLSConfig: ServerTLS(keys), Protocols: http2Only(), ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "I am a teapot", http.StatusTeapot)
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	c, err := NewClient(ClientConfig{Address: ln.Addr().String(), Domain: testDomain, Name: "edge1", Epoch: 1, Keys: keysOf(t, authority(), RoleEdge, "edge1", time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Digest(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "is it one?") {
		t.Errorf("Digest = %v", err)
	}
}
