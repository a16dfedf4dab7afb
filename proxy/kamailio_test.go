package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/internal/realpart"
)

// kamailio is a real core that can be killed and started again.
type kamailio struct {
	t    *testing.T
	path string
	dir  string
	addr netip.AddrPort
	args []string // more definitions
	cmd  *exec.Cmd
}

func newKamailio(t *testing.T) *kamailio {
	t.Helper()
	path := realpart.Program(t, "kamailio", "kamailio")
	pc, ln := socketPair(t)
	k := &kamailio{t: t, path: path, dir: t.TempDir(), addr: addrOf(pc.LocalAddr())}
	_, _ = pc.Close(), ln.Close()
	t.Cleanup(func() {
		k.kill()
		if log, err := os.ReadFile(filepath.Join(k.dir, "log")); err == nil && t.Failed() {
			t.Logf("kamailio says: %s", log[max(0, len(log)-4000):])
		}
	})
	return k
}

// start runs the configuration of the documentation and waits until it answers.
func (k *kamailio) start() {
	k.t.Helper()
	config, err := filepath.Abs("../docs/kamailio/registrar.cfg")
	if err != nil {
		k.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(k.dir, "log"))
	if err != nil {
		k.t.Fatal(err)
	}
	k.cmd = exec.Command(k.path, append([]string{"-f", config, "-DD", "-E", "-m", "64", "-M", "8", "-Y", k.dir,
		"-A", "CORE_ADDR=" + k.addr.String(), "-A", "UDP_CHILDREN=1", "-A", `NONCE_SECRET="shared-by-both"`,
		"-A", `ALICE_PASSWORD="alice-password"`, "-A", `BOB_PASSWORD="bob-password"`}, k.args...)...)
	k.cmd.Stdout, k.cmd.Stderr = log, log
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its workers die with it
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	eventually(k.t, "kamailio answers", func() bool {
		c, err := net.Dial("tcp", k.addr.String())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// kill ends it with all its workers at once, as a crash of the host does.
func (k *kamailio) kill() {
	if k.cmd == nil {
		return
	}
	_ = syscall.Kill(-k.cmd.Process.Pid, syscall.SIGKILL)
	_ = k.cmd.Wait()
	k.cmd = nil
}

// TestKamailioFailover: two registrars, the one in use killed in mid-traffic and back: no
// registration fails (RFC 3263 §4.3).
func TestKamailioFailover(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel() // mostly waiting
			a, b := newKamailio(t), newKamailio(t)
			a.start()
			b.start()
			r := newRig(t, a.addr, func(c *Config) {
				c.NextHops = []NextHop{{transport, a.addr.String()}, {transport, b.addr.String()}}
				c.Limits.Rate = -1 // as fast as it goes
				c.Core.Failover, c.Core.Aside, c.Core.Probe = time.Second, 200*time.Millisecond, 200*time.Millisecond
			})
			traffic := startTraffic(t, r, 10)
			hop := "next_hop=" + transport + ":" + a.addr.String()

			traffic.goOn(50)
			a.kill()
			traffic.goOn(100) // every WIC has met the dead core by now
			if up := r.metric("epcscf_core_next_hop_up", hop); up != 0 {
				t.Error("the dead core is in use")
			}
			a.start()
			eventually(t, "the core is back", func() bool { return r.metric("epcscf_core_next_hop_up", hop) == 1 })
			traffic.goOn(100)
			b.kill() // nobody needs it now
			traffic.goOn(50)
			traffic.stop()

			registered, failed := traffic.registered.Load(), traffic.failed.Load()
			t.Logf("%d registrations, %d failed; requests that went on: %v after silence, %v after a broken connection", registered, failed,
				r.metric("epcscf_core_failovers_total", "reason="+hopSilent), r.metric("epcscf_core_failovers_total", "reason="+hopUnreachable))
			if failed != 0 {
				t.Errorf("%d of %d registrations failed, want none", failed, registered+failed)
			}
		})
	}
}

// traffic is WICs that register again and again, each time with a challenge.
type traffic struct {
	t          *testing.T
	registered atomic.Int64
	failed     atomic.Int64
	end        chan struct{}
	work       sync.WaitGroup
}

func startTraffic(t *testing.T, r *rig, wics int) *traffic {
	t.Helper()
	tr := &traffic{t: t, end: make(chan struct{})}
	for i := range wics {
		w := r.dial([]string{"alice", "bob"}[i%2])
		w.host = "host" + strconv.Itoa(i) + ".invalid"
		tr.work.Go(func() {
			for {
				select {
				case <-tr.end:
					return
				case <-w.frames: // which nobody else reads
					continue
				default:
				}
				res := w.register(600)
				if res.StatusCode == 401 {
					// As any client does. Kamailio takes no nonce of 3 s before its own start,
					// which the other one may have given before the first was back.
					res = w.register(600)
				}
				if res.StatusCode == 200 {
					tr.registered.Add(1)
				} else {
					tr.failed.Add(1)
					t.Errorf("%s: REGISTER got %d %s", w.host, res.StatusCode, res.Reason)
					return
				}
			}
		})
	}
	t.Cleanup(tr.stop)
	return tr
}

// goOn waits for n more registrations.
func (tr *traffic) goOn(n int64) {
	tr.t.Helper()
	until := tr.registered.Load() + n
	eventually(tr.t, fmt.Sprintf("%d more registrations", n), func() bool { return tr.registered.Load() >= until || tr.failed.Load() > 0 })
}

func (tr *traffic) stop() {
	select {
	case <-tr.end:
	default:
		close(tr.end)
	}
	tr.work.Wait()
}

// TestKamailioKilledAndBack: the only core dies: WICs are told 504 and 503 with a time to
// come back, keep their WebSockets, and are served as soon as the core is there again.
func TestKamailioKilledAndBack(t *testing.T) {
	k := newKamailio(t)
	k.start()
	r := newRig(t, k.addr, func(c *Config) {
		c.Core.Failover, c.Core.Timeout = 100*time.Millisecond, 500*time.Millisecond
		c.Core.Aside, c.Core.Probe = 100*time.Millisecond, 100*time.Millisecond
	})
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister()
	bob.mustRegister()
	hop := "next_hop=udp:" + k.addr.String()
	eventually(t, "OPTIONS answered", func() bool {
		r.proxy.core.hops.mu.Lock()
		defer r.proxy.core.hops.mu.Unlock()
		for _, h := range r.proxy.core.hops.hops {
			return h.probed.Load()
		}
		return false
	})
	k.kill()
	eventually(t, "the dead core aside", func() bool { return r.metric("epcscf_core_next_hop_up", hop) == 0 })
	if res := alice.register(600); res.StatusCode != 503 || first(res, "Retry-After") == "" {
		t.Errorf("REGISTER without a core got %d, Retry-After %q, want 503 and a time", res.StatusCode, first(res, "Retry-After"))
	}
	k.start()
	eventually(t, "the core is back", func() bool { return r.metric("epcscf_core_next_hop_up", hop) == 1 })
	alice.mustRegister()
	bob.mustRegister()
	body := bytes.Repeat([]byte("x"), 2000) // by TCP, where Kamailio listens too
	alice.send(alice.request("MESSAGE", bob.aor(), "Content-Type: text/plain", "\n"+string(body)))
	msg := bob.incoming(sip.MESSAGE)
	if !bytes.Equal(msg.Body(), body) {
		t.Errorf("bob got %d octets, want %d", len(msg.Body()), len(body))
	}
	bob.respond(msg, 200, "OK")
	if res := alice.response(sip.MESSAGE); res.StatusCode != 200 {
		t.Errorf("MESSAGE got %d, want 200", res.StatusCode)
	}
	if n := r.metric("epcscf_core_long_requests_total"); n < 1 {
		t.Errorf("%v long requests by TCP, want the MESSAGE at least", n)
	}
}
