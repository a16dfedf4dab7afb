package relay

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"epcscf/turncred"
)

// memoryLog is a RevocationLog that outlives a relay, but not the test.
type memoryLog struct {
	now    func() time.Time
	mu     sync.Mutex // guards the fields below
	all    []turncred.Revocation
	broken error
}

func (l *memoryLog) Append(_ context.Context, r turncred.Revocation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	l.all = append(l.all, r)
	return nil
}

func (l *memoryLog) Load(context.Context) (ahead []turncred.Revocation, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.all {
		if r.Until.After(l.now()) {
			ahead = append(ahead, r)
		}
	}
	return ahead, l.broken
}

func (l *memoryLog) breakDown(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

// What was revoked stays so after a restart, in each scope, until the credential would have
// expired anyway; what was issued later works.
func TestRevocationsOutliveTheRelay(t *testing.T) {
	clk := newClock()
	log := &memoryLog{now: clk.Now}
	edit := func(c *Config) { c.Now, c.Revocations = clk.Now, log }
	w := newWorld(t, edit)
	bind := turncred.Binding(2)
	cred := func(w *world, impi turncred.IMPI, b turncred.Binding) turncred.Credential {
		return provision(t, w.sharedKey, impi, b, 30*time.Minute)
	}
	byTid, bySubject, byBinding, other := cred(w, "tid", 1), cred(w, "subject", 1), cred(w, "binding", 2), cred(w, "binding", 3)
	for _, r := range []turncred.Revocation{
		{Tid: byTid.Tid},
		{Subject: bySubject.Identity.Subject, IssuedUntil: bySubject.Identity.Issued},
		{Subject: byBinding.Identity.Subject, Binding: &bind, IssuedUntil: byBinding.Identity.Issued, KeepLive: true},
	} {
		r.Until = byTid.Texp
		if err := w.Server.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()

	again := newWorld(t, edit)
	clk.advance(time.Second)
	try := func(c turncred.Credential) stun.ErrorCode {
		client := again.client(t, UDP, c)
		client.challenge()
		return codeOf(client.signed(stun.MethodAllocate, transportUDP))
	}
	for name, tt := range map[string]struct {
		cred turncred.Credential
		want stun.ErrorCode
	}{
		"tid": {byTid, stun.CodeUnauthorized}, "subject": {bySubject, stun.CodeUnauthorized}, "binding": {byBinding, stun.CodeUnauthorized},
		"another device": {other, 0}, "another Tid": {cred(again, "tid", 1), 0}, "registered anew": {cred(again, "subject", 1), 0},
	} {
		if got := try(tt.cred); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	_ = again.Close()
	clk.advance(time.Hour)
	if last := newWorld(t, edit); len(last.revoked.tids)+len(last.revoked.subjects) != 0 {
		t.Error("revocations are loaded beyond their time")
	}
}

// A revocation that the log does not take holds, and fails, so that the edge tries again.
func TestRevocationThatIsNotKept(t *testing.T) {
	full := errors.New("no space left on device")
	log := &memoryLog{now: time.Now, broken: nil}
	w := newWorld(t, func(c *Config) { c.Revocations = log })
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	log.breakDown(full)
	err := w.sharedKey.Revoke(t.Context(), turncred.Scope{IMPI: "alice", Binding: 1})
	var again *turncred.RevokeError
	if !errors.Is(err, full) || !errors.As(err, &again) {
		t.Fatalf("Revoke: %v", err)
	}
	if len(w.Allocations()) != 0 || testutil.ToFloat64(w.metrics.revocationsUnkept) != 1 {
		t.Error("a revocation waits for the disk")
	}
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
	log.breakDown(nil)
	if err := again.Again(t.Context()); err != nil || len(log.all) != 1 {
		t.Errorf("again: %v, %d in the log", err, len(log.all))
	}
	log.breakDown(full)
	if _, err := New(Config{Realm: testRealm, RelayIP: loopback, Auth: unknownUsers{}, Revocations: log}); !errors.Is(err, full) {
		t.Errorf("New without its revocations: %v", err)
	}
}
