package relay

import (
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// 60 s after the last word of any edge until-revoked becomes grace: after Texp, or after the
// loss where that is later. When an edge is back, so is until-revoked.
func TestEdgesLost(t *testing.T) {
	for _, tt := range []struct {
		name string
		life time.Duration // of the credential
		edit func(*Config)
		last time.Duration // of the last contact
		ends time.Duration // 0: with MaxAge
	}{
		{"credential expired before", 5 * time.Minute, nil, 20 * time.Minute, 31 * time.Minute},
		{"credential expires after", 40 * time.Minute, nil, 20 * time.Minute, 50 * time.Minute},
		{"never in contact", 5 * time.Minute, nil, 0, 15 * time.Minute},
		{"one process", 5 * time.Minute, func(c *Config) { c.RemoteEdges = false }, 0, 0},
		{"grace anyway", 5 * time.Minute, func(c *Config) { c.AfterExpiry = ExpiryGrace }, 20 * time.Minute, 15 * time.Minute},
		{"strict anyway", 5 * time.Minute, func(c *Config) { c.AfterExpiry = ExpiryStrict }, 20 * time.Minute, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clk := newClock()
			const maxAge = 70 * time.Minute
			w := newWorld(t, func(c *Config) {
				c.Now, c.RemoteEdges, c.MaxAge = clk.Now, true, maxAge
				if tt.edit != nil {
					tt.edit(c)
				}
			})
			ends := tt.ends
			if ends == 0 {
				ends = maxAge
			}
			c := w.client(t, UDP, provision(t, w.sharedKey, "alice", 1, tt.life))
			c.allocate(lifetime(time.Hour))
			for age := time.Duration(0); age < ends; age += 30 * time.Second {
				if age <= tt.last && tt.last > 0 {
					w.EdgeContact(clk.Now())
				}
				w.sweep(clk.Now())
				if len(w.Allocations()) != 1 {
					t.Fatalf("ended after %v, want %v", age, ends)
				}
				if age%(5*time.Minute) == 0 {
					c.challenge()
					wantCode(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), 0)
				}
				clk.advance(30 * time.Second)
			}
			if len(w.Allocations()) != 0 {
				t.Errorf("still shown as live after %v", ends)
			}
			if w.sweep(clk.Now()); w.metricOf(EndExpired) != 1 {
				t.Error("not swept")
			}
		})
	}
}

func TestEdgeIsBack(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now, c.RemoteEdges = clk.Now, true })
	c := w.client(t, UDP, provision(t, w.sharedKey, "alice", 1, 5*time.Minute))
	c.allocate(lifetime(time.Hour))
	clk.advance(14 * time.Minute) // a minute before its grace ends
	c.challenge()
	wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), time.Minute)

	w.EdgeContact(clk.Now())
	w.EdgeContact(clk.Now().Add(-time.Hour)) // late word changes nothing
	wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), time.Hour)
	clk.advance(edgeSilence - 1)
	c.challenge()
	wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), time.Hour)
	clk.advance(1)
	wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), 10*time.Minute)
}
