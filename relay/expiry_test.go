package relay

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// forgetful is an Authenticator that loses all it knew, as approach 2's table does with
// expired records.
type forgetful struct {
	turncred.Authenticator
	forgot atomic.Bool
}

func (f *forgetful) Authenticate(username string, now time.Time) (turncred.Proof, error) {
	if f.forgot.Load() {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	return f.Authenticator.Authenticate(username, now)
}

// Each policy, from a credential of 5 minutes: when a live allocation ends.
func TestAfterExpiry(t *testing.T) {
	for _, tt := range []struct {
		policy AfterExpiry
		ends   time.Duration
	}{
		{ExpiryUntilRevoked, 40 * time.Minute}, // MaxAge
		{ExpiryGrace, 15 * time.Minute},
		{ExpiryStrict, 5 * time.Minute},
	} {
		t.Run(string(tt.policy), func(t *testing.T) {
			clk := newClock()
			w := newWorld(t, func(c *Config) { c.Now, c.AfterExpiry, c.MaxAge = clk.Now, tt.policy, 40*time.Minute })
			auth := &forgetful{Authenticator: w.cfg.Auth}
			w.cfg.Auth = auth
			cred := provision(t, w.push, "alice", 1, 5*time.Minute)
			c, start := w.client(t, UDP, cred), clk.Now()
			relayed := c.allocate(lifetime(time.Hour))
			outside := newPeer(t)
			for age := time.Duration(0); age < tt.ends; age += time.Minute {
				if age == 5*time.Minute {
					auth.forgot.Store(true)
				}
				c.challenge()
				left := tt.ends - age
				wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), min(time.Hour, left))
				wantLifetime(t, c.signed(stun.MethodRefresh), min(10*time.Minute, left))
				wantCode(t, c.bind(0x4000, outside.addr), 0)
				c.sendChannel(0x4000, "alive")
				outside.want(relayed, "alive")
				clk.advance(time.Minute)
			}
			if got := clk.Now().Sub(start); got != tt.ends {
				t.Fatalf("test is at %v, want %v", got, tt.ends)
			}
			c.sendChannel(0x4000, "dead")
			outside.send(relayed, "dead")
			c.wantSilence()
			outside.wantNothing()
			if len(w.Allocations()) != 0 {
				t.Error("allocation is shown as live")
			}
			c.challenge()
			wantCode(t, c.signed(stun.MethodRefresh), stun.CodeUnauthorized)
		})
	}
}

// A new allocation wants a credential that is good now, whatever the policy.
func TestExpiredCredentialMakesNoAllocation(t *testing.T) {
	clk := newClock()
	approaches(t, func(c *Config) { c.Now = clk.Now }, func(t *testing.T, w *world, p turncred.Provisioner) {
		cred := provision(t, p, "alice", 1, 5*time.Minute)
		clk.advance(5*time.Minute - time.Second)
		c := w.client(t, UDP, cred)
		c.allocate()
		clk.advance(time.Second)
		late := w.client(t, UDP, cred)
		late.challenge()
		wantCode(t, late.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
		wantCode(t, late.signed(stun.MethodRefresh), stun.CodeUnauthorized)
		wantCode(t, c.signed(stun.MethodRefresh), 0)
	})
}

// RFC 8656 §9, §12: permissions last 300 s and channels 600 s, unless refreshed.
func TestPermissionAndChannelExpire(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now = clk.Now })
	c := w.client(t, UDP, provision(t, w.sharedKey, "alice", 1, time.Hour))
	relayed := c.allocate(lifetime(time.Hour))
	p, other := newPeer(t), newPeer(t)
	wantCode(t, c.bind(0x4000, p.addr), 0)

	clk.advance(permissionLife - 1)
	p.send(relayed, "in time")
	c.wantChannel(0x4000, "in time")
	clk.advance(1)
	p.send(relayed, "too late")
	eventually(t, "drop", func() bool { return w.dropped(dropNoPermission) == 1 })
	c.sendTo(p.addr, "too late")
	c.sendChannel(0x4000, "by channel") // RFC 8656 §12.6 does not ask for a permission
	c.wantSilence()
	p.want(relayed, "by channel")
	p.wantNothing()

	clk.advance(channelLife - permissionLife)
	c.sendChannel(0x4000, "too late")
	c.wantSilence()
	p.wantNothing()
	c.challenge()
	wantCode(t, c.bind(0x4000, other.addr), 0) // the number is free again

	// Data does not refresh, and the sweep frees.
	clk.advance(channelLife)
	w.sweep(clk.Now())
	if got := w.Allocations()[0]; got.Permissions != 0 || got.Channels != 0 {
		t.Errorf("after the sweep: %+v", got)
	}
	clk.advance(time.Hour)
	w.sweep(clk.Now())
	if live, _, _ := w.totals(); live != 0 {
		t.Error("an allocation that was not refreshed lives on")
	}
}

// LIFETIME at its shortest with permissions around the expiry has crashed others.
func TestRequestsAroundTheEnd(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now, c.AfterExpiry = clk.Now, ExpiryStrict })
	p := newPeer(t)
	for range 50 {
		c := w.client(t, UDP, provision(t, w.sharedKey, "alice", 1, time.Second))
		c.allocate(lifetime(time.Second))
		done := make(chan struct{})
		go func() {
			defer close(done)
			clk.advance(time.Second)
			w.sweep(clk.Now())
		}()
		for range 5 {
			if code := codeOf(c.permit(p.addr)); code != 0 && code != stun.CodeAllocMismatch && code != stun.CodeUnauthorized {
				t.Errorf("code %d around the end", code)
			}
		}
		<-done
	}
}
