package relay

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// approaches runs f with the issuer of each approach.
func approaches(t *testing.T, edit func(*Config), f func(*testing.T, *world, turncred.Provisioner)) {
	t.Helper()
	for _, a := range []turncred.Approach{turncred.ApproachSharedKey, turncred.ApproachPush} {
		t.Run(string(a), func(t *testing.T) {
			w := newWorld(t, edit)
			p := w.sharedKey
			if a == turncred.ApproachPush {
				p = w.push
			}
			f(t, w, p)
		})
	}
}

func mustRevoke(t *testing.T, p turncred.Provisioner, s turncred.Scope) {
	t.Helper()
	if err := p.Revoke(context.Background(), s); err != nil {
		t.Fatal(err)
	}
}

func TestDeregistrationEndsOneBinding(t *testing.T) {
	approaches(t, nil, func(t *testing.T, w *world, p turncred.Provisioner) {
		phone, desk := provision(t, p, "alice", 1, time.Minute), provision(t, p, "alice", 2, time.Minute)
		gone, kept, bob := w.client(t, UDP, phone), w.client(t, TCP, desk), w.client(t, UDP, provision(t, p, "bob", 1, time.Minute))
		relayedGone, relayedKept := gone.allocate(), kept.allocate()
		bob.allocate()
		outside := newPeer(t)
		for _, c := range []*rawClient{gone, kept} {
			wantCode(t, c.bind(0x4000, outside.addr), 0)
			c.sendChannel(0x4000, "before")
		}
		eventually(t, "both relay", func() bool { _, out, _ := w.totals(); return out.Packets == 2 })
		outside.drain()

		mustRevoke(t, p, turncred.Scope{IMPI: "alice", Binding: 1})

		if n := len(w.Allocations()); n != 2 {
			t.Errorf("%d allocations live, want the other device's and bob's", n)
		}
		gone.sendChannel(0x4000, "after")
		outside.send(relayedGone, "after")
		gone.wantSilence()
		outside.wantNothing()
		wantCode(t, gone.signed(stun.MethodRefresh), stun.CodeUnauthorized)
		wantCode(t, gone.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)

		kept.sendChannel(0x4000, "still here")
		outside.want(relayedKept, "still here")
		wantCode(t, kept.signed(stun.MethodRefresh), 0)

		gone.cred = provision(t, p, "alice", 1, time.Minute) // registered anew, at once
		gone.allocate()
	})
}

func (p *peer) drain() {
	b := make([]byte, largeDatagram)
	for {
		_ = p.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, _, err := p.conn.ReadFromUDPAddrPort(b); err != nil {
			return
		}
	}
}

func TestRevokeBySubjectTidAndKid(t *testing.T) {
	for _, tt := range []struct {
		name   string
		revoke func(c turncred.Credential) turncred.Revocation
		left   int // of alice's two and bob's one
	}{
		{"tid", func(c turncred.Credential) turncred.Revocation { return turncred.Revocation{Tid: c.Tid} }, 2},
		{"subject", func(c turncred.Credential) turncred.Revocation {
			return turncred.Revocation{Subject: c.Identity.Subject, IssuedUntil: c.Identity.Issued + 1000}
		}, 1},
		{"kid", func(c turncred.Credential) turncred.Revocation {
			return turncred.Revocation{KeyID: c.Tid.KeyID(), IssuedUntil: c.Identity.Issued + 1000}
		}, 0},
		{"issued later", func(c turncred.Credential) turncred.Revocation {
			return turncred.Revocation{Subject: c.Identity.Subject, IssuedUntil: c.Identity.Issued - 1}
		}, 3},
		{"another subject", func(c turncred.Credential) turncred.Revocation {
			return turncred.Revocation{Subject: c.Identity.Subject + 1, IssuedUntil: c.Identity.Issued + 1000}
		}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			first := w.credential(t, "alice", 1)
			for _, c := range []turncred.Credential{first, w.credential(t, "alice", 2), w.credential(t, "bob", 1)} {
				w.client(t, UDP, c).allocate()
			}
			r := tt.revoke(first)
			r.Until = time.Now().Add(time.Hour)
			if err := w.Server.Revoke(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			if n := len(w.Allocations()); n != tt.left {
				t.Errorf("%d allocations left, want %d", n, tt.left)
			}
		})
	}
}

// A lost flow refuses new allocations; live ones follow grace.
func TestRevokeKeepLive(t *testing.T) {
	clk := newClock()
	approaches(t, func(c *Config) { c.Now = clk.Now }, func(t *testing.T, w *world, p turncred.Provisioner) {
		cred := provision(t, p, "alice", 1, 5*time.Minute)
		c := w.client(t, UDP, cred)
		c.allocate()
		mustRevoke(t, p, turncred.Scope{IMPI: "alice", Binding: 1, KeepLive: true})

		other := w.client(t, UDP, cred)
		other.challenge()
		wantCode(t, other.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
		wantLifetime(t, c.signed(stun.MethodRefresh), 10*time.Minute)
		clk.advance(9 * time.Minute)
		c.challenge()
		wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(time.Hour)), 6*time.Minute) // Texp and 10 min of grace
		clk.advance(6 * time.Minute)
		c.challenge()
		wantCode(t, c.signed(stun.MethodRefresh), stun.CodeUnauthorized)
		if len(w.Allocations()) != 0 {
			t.Error("allocation outlives its grace")
		}
	})
}

// An Allocate under way when the revocation comes makes no allocation.
func TestRevocationWhileAllocating(t *testing.T) {
	var w *world
	var issuer turncred.Provisioner
	w = newWorld(t, func(c *Config) {
		c.ListenPacket = func(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
			mustRevoke(t, issuer, turncred.Scope{IMPI: "alice", Binding: 1})
			return listenUDP(ctx, addr)
		}
	})
	issuer = w.sharedKey
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
	if n := len(w.Allocations()); n != 0 {
		t.Errorf("%d allocations of a revoked credential", n)
	}
}

func TestRevocationsAreForgottenInTime(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now = clk.Now })
	bind := turncred.Binding(1)
	for i := range 100 {
		for _, r := range []turncred.Revocation{
			{Subject: 5, IssuedUntil: turncred.IssueTime(i)},
			{Subject: 5, Binding: &bind, IssuedUntil: turncred.IssueTime(i)},
			{KeyID: "k1", IssuedUntil: turncred.IssueTime(i)},
			{Tid: "k1-x"},
		} {
			r.Until = clk.Now().Add(time.Hour)
			if err := w.Server.Revoke(context.Background(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.revoked.subjects[5]) + len(w.revoked.kids["k1"]) + len(w.revoked.tids)
	}
	if n := count(); n != 4 {
		t.Errorf("%d entries for four scopes", n)
	}
	w.sweep(clk.Now().Add(time.Hour))
	if n := count(); n != 4 {
		t.Errorf("%d entries at Until, want 4", n)
	}
	w.sweep(clk.Now().Add(time.Hour + time.Second))
	if n := count(); n != 0 {
		t.Errorf("%d entries after Until", n)
	}
	if w.Server.Revoke(context.Background(), turncred.Revocation{Subject: 5}) == nil {
		t.Error("a revocation without Until was taken")
	}
}
