package relay

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

func TestStrangersHaveARate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct{ a, same, other string }{
		{"192.0.2.1", "192.0.2.1", "192.0.2.2"},
		{"2001:db8:1:2:3::4", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:3::4"},
	} {
		s := newStrangers(10)
		a, same, other := netip.MustParseAddr(tt.a), netip.MustParseAddr(tt.same), netip.MustParseAddr(tt.other)
		take := func(ip netip.Addr, now time.Time) (n int) {
			for s.admit(ip, now) {
				n++
			}
			return n
		}
		for _, step := range []struct {
			what string
			ip   netip.Addr
			at   time.Duration
			want int
		}{
			{"the burst", a, 0, 40}, {"the same source", same, 0, 0}, {"another source", other, 0, 40},
			{"a second later", same, time.Second, 10}, {"100 ms later", a, 1100 * time.Millisecond, 1},
			{"at rest again", a, time.Minute, 40}, {"with the clock set back", a, -time.Hour, 40},
		} {
			if got := take(step.ip, now.Add(step.at)); got != step.want {
				t.Errorf("%s, %s: %d, want %d", tt.a, step.what, got, step.want)
			}
		}
	}
}

// Beyond the rate a stranger on UDP has silence; whoever holds a credential, or comes over
// TCP, has answers.
func TestChallengeRate(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now, c.ChallengeRate = clk.Now, 5 })
	known := w.client(t, UDP, w.credential(t, "alice", 1))
	known.allocate() // of the 20
	c := w.client(t, UDP, turncred.Credential{})
	c.cred.Username = "nobody"
	for i := range 25 {
		switch i % 3 {
		case 0:
			c.send(c.request(stun.MethodAllocate, transportUDP).Raw)
		case 1:
			c.send(build(stun.MethodBinding, stun.ClassRequest).Raw)
		case 2:
			c.send(c.sign(c.request(stun.MethodRefresh)).Raw)
		}
	}
	eventually(t, "drops", func() bool { return w.dropped(dropChallengeRate) == 6 })
	for i := range 19 {
		if c.receive(answerWait) == nil {
			t.Fatalf("%d answers to strangers, want 19", i)
		}
	}
	wantCode(t, known.signed(stun.MethodRefresh), 0)
	tcp := w.client(t, TCP, turncred.Credential{})
	for range 50 {
		tcp.challenge()
	}
	clk.advance(time.Second)
	c.challenge()
}

// A forged source gets at most eight bytes for one.
func TestAmplification(t *testing.T) {
	w := newTokenWorld(t, func(c *Config) {
		c.Software = strings.Repeat("s", 200)
		c.Realm = turncred.Realm(strings.Repeat("r", maxNames-len(serverName)))
	})
	c := w.client(t, UDP, turncred.Credential{})
	fingerprint := func(m *stun.Message) *stun.Message {
		if err := stun.Fingerprint.AddTo(m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, m := range map[string]*stun.Message{
		"Binding":                    c.request(stun.MethodBinding),
		"Binding, FINGERPRINT":       fingerprint(c.request(stun.MethodBinding)),
		"Allocate":                   c.request(stun.MethodAllocate, transportUDP),
		"Allocate, FINGERPRINT":      fingerprint(c.request(stun.MethodAllocate, transportUDP)),
		"Binding, unknown":           c.request(stun.MethodBinding, attr(0x7777)),
		"Refresh, wrong":             c.sign(c.request(stun.MethodRefresh)),
		"Allocate, without USERNAME": func() *stun.Message { m := c.request(stun.MethodAllocate); integritySHA1.addTo(m, nil); return m }(),
	} {
		res := c.do(m)
		if len(res.Raw) > maxAmplification*len(m.Raw) {
			t.Errorf("%s: %d bytes for %d", name, len(res.Raw), len(m.Raw))
		}
	}
	c.send(c.request(stun.MethodAllocate).Raw) // 20 bytes, no client's
	eventually(t, "drop", func() bool { return w.dropped(dropAmplification) == 1 })
	_, tokens := tokenSide(t)
	if _, err := New(Config{Realm: w.cfg.Realm + "r", RelayIP: loopback, Auth: unknownUsers{}, Tokens: tokens}); err == nil {
		t.Error("names that leave no room for a challenge were taken")
	}
}
