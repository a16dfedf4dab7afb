package relay

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"epcscf/turncred"
)

func TestNonce(t *testing.T) {
	n, err := newNonces(turncred.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	five := FiveTuple{UDP, netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("192.0.2.9:3478")}
	nonce := n.appendTo(nil, five, now)
	for name, tt := range map[string]struct {
		nonce []byte
		edit  func(*FiveTuple)
		age   time.Duration
		want  bool
	}{
		"fresh":           {nonce: nonce, want: true},
		"last moment":     {nonce: nonce, age: nonceLife - 1, want: true},
		"old":             {nonce: nonce, age: nonceLife},
		"from the future": {nonce: nonce, age: -2 * time.Second},
		"other port":      {nonce: nonce, edit: func(f *FiveTuple) { f.Client = netip.AddrPortFrom(f.Client.Addr(), 6) }},
		"other address":   {nonce: nonce, edit: func(f *FiveTuple) { f.Client = netip.MustParseAddrPort("192.0.2.2:5") }},
		"other transport": {nonce: nonce, edit: func(f *FiveTuple) { f.Transport = TCP }},
		"other time":      {nonce: append([]byte("B"), nonce[1:]...)},
		"short":           {nonce: nonce[:len(nonce)-1]},
		"long":            {nonce: append(bytes.Clone(nonce), 'A')},
		"empty":           {},
	} {
		f := five
		if tt.edit != nil {
			tt.edit(&f)
		}
		if got := n.valid(tt.nonce, f, now.Add(tt.age)); got != tt.want {
			t.Errorf("%s: valid = %t, want %t", name, got, tt.want)
		}
	}
	shared, err := newNonces(n.key)
	if err != nil || !shared.valid(nonce, five, now) {
		t.Error("a relay with the same NonceKey does not take it")
	}
	if _, err := newNonces(turncred.NewSecret([]byte("short"))); err == nil {
		t.Error("a short NonceKey was taken")
	}
}

// Readers see every key that stays, while writers come and go.
func TestTableBesideWriters(t *testing.T) {
	table := newTable[netip.AddrPort]()
	at := func(i int) netip.AddrPort { return netip.AddrPortFrom(loopback, uint16(i)) }
	stays := make([]*allocation, 100)
	for i := range stays {
		stays[i] = &allocation{}
		table.put(at(i), stays[i])
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := 0; ; i = (i + 1) % len(stays) {
				if table.load(at(i)) != stays[i] {
					t.Errorf("key %d is lost", i)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := 1000; i < 3000; i++ {
		table.put(at(i), &allocation{})
		if i%3 == 0 {
			table.remove(at(i))
		}
		if i%7 == 0 {
			table.remove(at(9999)) // is not in
		}
	}
	close(done)
	readers.Wait()
	n := 0
	table.all(func(*allocation) { n++ })
	if n != table.len || n != 100+2000-666 {
		t.Errorf("%d entries, len %d", n, table.len)
	}
}

func TestLogIsLimited(t *testing.T) {
	var out bytes.Buffer
	log := limitLog(slog.New(slog.NewTextHandler(&out, nil))).With("a", 1).WithGroup("g")
	start := time.Unix(1000, 0)
	for i := range 3000 { // three seconds of a flood
		r := slog.NewRecord(start.Add(time.Duration(i)*time.Millisecond), slog.LevelInfo, "line", 0)
		if err := log.Handler().Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "msg=line"); n != 3*logLines {
		t.Errorf("%d lines in three seconds, want %d", n, 3*logLines)
	}
	if !strings.Contains(out.String(), "suppressed=990") {
		t.Errorf("the next line does not say how many are missing:\n%s", &out)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	w := newWorld(t, func(c *Config) { c.Metrics = reg })
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	p := newPeer(t)
	wantCode(t, c.bind(0x4000, p.addr), 0)
	c.sendChannel(0x4000, "12345")
	p.want(relayed, "12345")
	p.send(relayed, "123")
	c.wantChannel(0x4000, "123")
	eventually(t, "counters", func() bool {
		return testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP epcscf_relay_allocations Live allocations.
# TYPE epcscf_relay_allocations gauge
epcscf_relay_allocations 1
# HELP epcscf_relay_relayed_bytes_total Payload bytes relayed.
# TYPE epcscf_relay_relayed_bytes_total counter
epcscf_relay_relayed_bytes_total{direction="to_client"} 3
epcscf_relay_relayed_bytes_total{direction="to_peer"} 5
`), "epcscf_relay_allocations", "epcscf_relay_relayed_bytes_total") == nil
	})
	for key, want := range map[answerKey]float64{
		{stun.MethodAllocate, stun.CodeUnauthorized}: 1, {stun.MethodAllocate, 0}: 1, {stun.MethodChannelBind, 0}: 1,
	} {
		if got := testutil.ToFloat64(w.metrics.answers[key]); got != want {
			t.Errorf("responses of %v: %v, want %v", key, got, want)
		}
	}
	wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), 0)
	if live, out, in := w.totals(); live != 0 || out.Bytes != 5 || in.Bytes != 3 {
		t.Errorf("after the end: %d live, %+v, %+v", live, out, in)
	}
	if _, err := New(Config{Realm: testRealm, RelayIP: loopback, Auth: unknownUsers{}, Metrics: reg}); err == nil {
		t.Error("two relays on one registry")
	}
}

// No password, key or nonce key stands in the log at any level.
func TestLogHasNoSecrets(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	w := newWorld(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return out.Write(b)
		}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	cred := w.credential(t, "canary@ims.test", 1)
	c := w.client(t, TCP, cred)
	c.allocate()
	c.permit(netip.MustParseAddrPort("10.0.0.1:1"))
	_ = w.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, secret := range []string{string(cred.Password.Reveal()), "canary"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the log contains %q:\n%s", secret, &out)
		}
	}
	if !strings.Contains(out.String(), "allocation made") {
		t.Errorf("the log lacks the allocation:\n%s", &out)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
