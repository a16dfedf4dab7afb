package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/turncred"
)

// flakyRelay fails until up, and for good where it refuses a binding.
type flakyRelay struct {
	refuses turncred.Binding

	mu    sync.Mutex // guards the fields below
	up    bool
	tries int
	told  []turncred.Revocation
}

func (f *flakyRelay) comeUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up = true
}

// heard returns how often it was asked, and what it took.
func (f *flakyRelay) heard() (tries int, told []turncred.Revocation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries, slices.Clone(f.told)
}

func (f *flakyRelay) Revoke(_ context.Context, r turncred.Revocation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries++
	if !f.up || *r.Binding == f.refuses {
		return errors.New("connection refused")
	}
	f.told = append(f.told, r)
	return nil
}

// TestUntoldRevocations runs in a bubble: its clock is virtual and its goroutines are known.
func TestUntoldRevocations(t *testing.T) {
	start := func(t *testing.T, relay *flakyRelay) *rig {
		reg := prometheus.NewRegistry()
		p, err := New(Config{
			Domain: testDomain, CoreAddr: mustAddr("127.0.0.1:5060"), NextHops: []NextHop{{"udp", "127.0.0.1:5070"}},
			AllowNoOrigin: true, Provisioner: sharedKey(t, relay), Metrics: reg,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return &rig{t: t, proxy: p, reg: reg}
	}
	count := func(r *rig, result string) float64 {
		return r.metric("epcscf_revocations_total", "cause="+causeExpired, "result="+result)
	}
	alice := func(b turncred.Binding) turncred.Scope { return turncred.Scope{IMPI: "alice@ims.test", Binding: b} }

	t.Run("told when the relay is back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			relay := &flakyRelay{refuses: 99}
			r := start(t, relay)
			first := turncred.IssueTimeAt(time.Now())
			for b := range turncred.Binding(5) {
				r.proxy.revoke(causeExpired, alice(b))
			}
			time.Sleep(5 * time.Minute)
			if tries, _ := relay.heard(); tries < 10 || tries > 30 {
				t.Errorf("%d tries in five minutes, want them spread", tries)
			}
			relay.comeUp()
			time.Sleep(2 * lastRetry)
			_, told := relay.heard()
			if len(told) != 5 || count(r, revokedLate) != 5 || count(r, revokedLost) != 0 {
				t.Fatalf("told %d, late %v, lost %v, want 5, 5, 0", len(told), count(r, revokedLate), count(r, revokedLost))
			}
			for _, r := range told {
				if r.IssuedUntil > first+10 {
					t.Errorf("%+v also takes what was issued after the first try", r)
				}
			}
			if got := r.metric("epcscf_revocations_untold"); got != 0 {
				t.Errorf("untold = %v, want 0", got)
			}
		})
	})
	t.Run("one that is refused holds up no other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			relay := &flakyRelay{refuses: 0}
			r := start(t, relay)
			r.proxy.revoke(causeExpired, alice(0))
			r.proxy.revoke(causeExpired, alice(1))
			relay.comeUp()
			time.Sleep(time.Minute)
			if _, told := relay.heard(); len(told) != 1 {
				t.Errorf("told %d, want the other one", len(told))
			}
			time.Sleep(2 * time.Hour) // beyond the credential's own end
			if count(r, revokedLost) != 1 || r.metric("epcscf_revocations_untold") != 0 {
				t.Errorf("lost %v, untold %v, want 1 and 0", count(r, revokedLost), r.metric("epcscf_revocations_untold"))
			}
		})
	})
	t.Run("bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, &flakyRelay{})
			for range maxUntold + 3 {
				r.proxy.revoke(causeExpired, alice(1))
			}
			if count(r, revokedLost) != 3 || r.metric("epcscf_revocations_untold") != maxUntold {
				t.Errorf("lost %v, untold %v, want 3 and %d", count(r, revokedLost), r.metric("epcscf_revocations_untold"), maxUntold)
			}
		})
	})
}
