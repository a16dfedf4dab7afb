package proxy

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// impatient is a Core whose times suit a test; OPTIONS only where a test turns them on.
func impatient(c *Config, hops ...NextHop) {
	c.NextHops = hops
	c.Core.Failover, c.Core.Timeout, c.Core.Aside, c.Core.Probe = 60*time.Millisecond, 5*time.Second, time.Minute, -1
}

// twoCores starts an edge before two cores, the first of which is preferred.
func twoCores(t *testing.T, transport string, change func(*Config)) (r *rig, a, b *testCore) {
	t.Helper()
	a, b = startTestCore(t, "127.0.0.1:0", nil, transport), startTestCore(t, "127.0.0.1:0", nil, transport)
	r = newRig(t, a.addr, func(c *Config) {
		impatient(c, a.at(transport), b.at(transport))
		if change != nil {
			change(c)
		}
	})
	return r, a, b
}

// enrol registers without a challenge.
func (w *wic) enrol(t *testing.T) *sip.Response {
	t.Helper()
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	return w.response(sip.REGISTER)
}

func unavailableHere(req *sip.Request, _ string) *sip.Response {
	return answerOf(req, 503, sip.NewHeader("Retry-After", "7"))
}

// TestRegisterFailsOver: RFC 3263 §4.3: a timeout, a transport failure or a 503 takes the
// request to the next hop, as a transaction of its own.
func TestRegisterFailsOver(t *testing.T) {
	for _, tt := range []struct {
		clause, transport, reason string
		fail                      func(*testCore)
		aside                     bool
	}{
		{"RFC 3263 §4.3: no answer", "udp", hopSilent, func(c *testCore) { c.set(silence) }, true},
		{"RFC 3263 §4.3: no connection", "tcp", "", (*testCore).kill, true},
		{"RFC 3263 §4.3: 503", "udp", hopRefused, func(c *testCore) { c.set(unavailableHere) }, false},
		{"RFC 3263 §4.3: the connection ends under the request", "tcp", hopUnreachable, func(c *testCore) {
			c.set(func(*sip.Request, string) *sip.Response { go c.kill(); return nil })
		}, true},
	} {
		t.Run(tt.clause, func(t *testing.T) {
			r, a, b := twoCores(t, tt.transport, func(c *Config) {
				if tt.reason == hopUnreachable {
					c.Core.Failover = time.Minute // the connection's end alone must do
				}
			})
			tt.fail(a)
			w := r.dial("alice")
			if res := w.enrol(t); res.StatusCode != 200 {
				t.Fatalf("REGISTER got %d, want 200", res.StatusCode)
			}
			second := b.request(sip.REGISTER)
			if got := len(sipext.Rows(second.Request, "Via")); got != 2 {
				t.Errorf("%d Via rows at the second hop, want ours and the WIC's", got)
			}
			if tt.reason != "" {
				if branch, _ := a.request(sip.REGISTER).Via().Params.Get("branch"); branch == mustParam(second.Via(), "branch") {
					t.Errorf("both hops got branch %s (RFC 3261 §16.6 step 8)", branch)
				}
				if got := r.metric("epcscf_core_failovers_total", "reason="+tt.reason); got != 1 {
					t.Errorf("%v failovers by %s, want 1", got, tt.reason)
				}
			}
			if up := r.metric("epcscf_core_next_hop_up", "next_hop="+a.at(tt.transport).String()); (up == 0) != tt.aside {
				t.Errorf("first hop up is %v, want aside %v", up, tt.aside)
			}
			if !tt.aside {
				return
			}
			a.sawNone("")
			if res := w.enrol(t); res.StatusCode != 200 || !a.sawNone(sip.REGISTER) {
				t.Errorf("the next REGISTER got %d, and went to the dead hop again", res.StatusCode)
			}
		})
	}
}

func mustParam(v *sip.ViaHeader, name string) string {
	s, _ := v.Params.Get(name)
	return s
}

// TestInviteFailsOver: the call goes to the second hop; the first, when it wakes up, is
// canceled and its 487 reaches nobody.
func TestInviteFailsOver(t *testing.T) {
	r, a, b := twoCores(t, "udp", nil)
	w := r.dial("alice")
	w.enrol(t)
	a.set(silence)
	b.set(func(req *sip.Request, _ string) *sip.Response { return answerOf(req, 180) })
	w.send(w.request("INVITE", "sip:bob@ims.test"))
	w.status(180)
	late := a.request(sip.INVITE)

	a.set(ok)
	a.say(t, r, answerOf(late.Request, 100)) // RFC 3261 §9.1: now it may be canceled
	cancel := a.request(sip.CANCEL)
	if cancel.Via().Value() != late.Via().Value() {
		t.Errorf("CANCEL with %s, want the INVITE's %s", cancel.Via().Value(), late.Via().Value())
	}
	a.say(t, r, answerOf(late.Request, 487))
	a.request(sip.ACK)
	inv := b.request(sip.INVITE)
	b.say(t, r, answerOf(inv.Request, 200))
	if res := w.response(sip.INVITE); res.StatusCode != 200 {
		t.Errorf("INVITE got %d, want the second hop's 200", res.StatusCode)
	}
}

// say sends a response to the edge by UDP.
func (c *testCore) say(t *testing.T, r *rig, res *sip.Response) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.sockets[0].(net.PacketConn).WriteTo(encode(res), net.UDPAddrFromAddrPort(r.edge)); err != nil {
		t.Fatal(err)
	}
}

// TestSlowHopStillCounts: a hop that is slow and not dead answers in the end, and nobody
// else can.
func TestSlowHopStillCounts(t *testing.T) {
	r, a, b := twoCores(t, "udp", nil)
	a.set(silence)
	b.set(silence)
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	slow := a.request(sip.REGISTER)
	b.request(sip.REGISTER)
	a.say(t, r, answerOf(slow.Request, 200))
	if res := w.response(sip.REGISTER); res.StatusCode != 200 {
		t.Errorf("REGISTER got %d, want the slow hop's 200", res.StatusCode)
	}
}

// TestCanceledCallGoesNowhereElse: RFC 3261 §16.10: a CANCEL ends the attempts.
func TestCanceledCallGoesNowhereElse(t *testing.T) {
	r, a, b := twoCores(t, "udp", func(c *Config) { c.Core.Failover = 300 * time.Millisecond })
	w := r.dial("alice")
	w.enrol(t)
	a.set(silence)
	invite := w.request("INVITE", "sip:bob@ims.test")
	w.send(invite)
	inv := a.request(sip.INVITE)
	w.send(strings.ReplaceAll(invite, "INVITE", "CANCEL"))
	w.response(sip.CANCEL)
	a.set(ok)
	a.say(t, r, answerOf(inv.Request, 100))
	a.request(sip.CANCEL)
	a.say(t, r, answerOf(inv.Request, 487))
	w.status(487)
	if !b.sawNone(sip.INVITE) {
		t.Error("the canceled call went to the second hop")
	}
}

// TestMessageIsNotDoubled: a callee may take long to answer a MESSAGE; it must not get it
// by another hop too while the first one lives.
func TestMessageIsNotDoubled(t *testing.T) {
	r, a, b := twoCores(t, "udp", func(c *Config) { c.Core.Probe = time.Hour })
	w := r.dial("alice")
	w.enrol(t)
	slow := make(chan *sip.Request, 100)
	a.set(func(req *sip.Request, transport string) *sip.Response {
		if req.Method == sip.MESSAGE {
			slow <- req
			return nil
		}
		return ok(req, transport)
	})
	w.send(w.request("MESSAGE", "sip:bob@ims.test", "Content-Type: text/plain", "\nhello"))
	a.request(sip.OPTIONS) // asked twice whether it lives
	a.request(sip.OPTIONS)
	a.say(t, r, answerOf(<-slow, 202))
	if res := w.response(sip.MESSAGE); res.StatusCode != 202 || !b.sawNone(sip.MESSAGE) {
		t.Errorf("MESSAGE got %d, or the second hop got it too", res.StatusCode)
	}
	// Dead it is another matter.
	a.set(silence)
	w.send(w.request("MESSAGE", "sip:bob@ims.test", "Content-Type: text/plain", "\nhello"))
	b.request(sip.MESSAGE)
	if res := w.response(sip.MESSAGE); res.StatusCode != 200 {
		t.Errorf("MESSAGE got %d, want the second hop's 200", res.StatusCode)
	}
}

// TestNobodyServes is what a WIC is told where no hop serves it.
func TestNobodyServes(t *testing.T) {
	for _, tt := range []struct {
		clause, transport string
		fail              func(*testCore)
		register, again   int // and of a second REGISTER
		message           int // while registered
		retry             bool
	}{
		{"TS 24.229 5.2.2: nobody answers", "udp", func(c *testCore) { c.set(silence) }, 504, 503, 503, true},
		{"RFC 3261 §16.9: nobody can be reached", "tcp", (*testCore).kill, 504, 503, 503, true},
		{"RFC 3261 §16.7 step 6: all say 503", "udp", func(c *testCore) { c.set(unavailableHere) }, 503, 503, 500, false},
	} {
		t.Run(tt.clause, func(t *testing.T) {
			r, a, b := twoCores(t, tt.transport, func(c *Config) { c.Core.Timeout = 300 * time.Millisecond })
			w, x := r.dial("alice"), r.dial("bob")
			w.enrol(t)
			tt.fail(a)
			tt.fail(b)
			if res := x.enrol(t); res.StatusCode != tt.register {
				t.Errorf("REGISTER got %d, want %d", res.StatusCode, tt.register)
			}
			res := x.enrol(t)
			if n := seconds(first(res, "Retry-After")); res.StatusCode != tt.again || n < 1 {
				t.Errorf("the next REGISTER got %d, Retry-After %q, want %d and a time", res.StatusCode, first(res, "Retry-After"), tt.again)
			}
			w.send(w.request("MESSAGE", "sip:bob@ims.test"))
			if res := w.response(sip.MESSAGE); res.StatusCode != tt.message || tt.retry != (seconds(first(res, "Retry-After")) >= 60) {
				t.Errorf("MESSAGE got %d, Retry-After %q, want %d", res.StatusCode, first(res, "Retry-After"), tt.message)
			}
		})
	}
}

// TestDeadHopComesBack: by OPTIONS, or after Aside where OPTIONS was never answered.
func TestDeadHopComesBack(t *testing.T) {
	for _, probe := range []time.Duration{10 * time.Millisecond, -1} {
		t.Run(fmt.Sprint("probe ", probe), func(t *testing.T) {
			r, a, b := twoCores(t, "udp", func(c *Config) { c.Core.Probe, c.Core.Aside = probe, 20*time.Millisecond })
			name := "next_hop=" + a.at("udp").String()
			if probe > 0 {
				a.request(sip.OPTIONS)
			}
			a.set(silence)
			w := r.dial("alice")
			eventually(t, "the dead hop aside", func() bool {
				w.enrol(t)
				return r.metric("epcscf_core_next_hop_up", name) == 0
			})
			a.set(ok)
			eventually(t, "the hop back", func() bool {
				w.enrol(t)
				return r.metric("epcscf_core_next_hop_up", name) == 1
			})
			b.sawNone("")
			a.sawNone("")
			w.enrol(t)
			if !b.sawNone(sip.REGISTER) || a.sawNone(sip.REGISTER) {
				t.Error("the WIC stayed with the second hop")
			}
		})
	}
}

// TestOptionsFindsTheDead: before any WIC has to.
func TestOptionsFindsTheDead(t *testing.T) {
	r, a, _ := twoCores(t, "udp", func(c *Config) { c.Core.Probe, c.Core.Aside = 10*time.Millisecond, 20*time.Millisecond })
	req := a.request(sip.OPTIONS)
	if got := req.MaxForwards(); got == nil || *got != 0 {
		t.Errorf("Max-Forwards = %v, want 0: no further than the hop", got)
	}
	name := "next_hop=" + a.at("udp").String()
	a.set(silence)
	eventually(t, "the silent hop aside", func() bool { return r.metric("epcscf_core_next_hop_up", name) == 0 })
	a.set(ok)
	eventually(t, "the hop back", func() bool { return r.metric("epcscf_core_next_hop_up", name) == 1 })
	a.set(unavailableHere) // RFC 3261 §21.5.4
	eventually(t, "the refusing hop aside", func() bool { return r.metric("epcscf_core_next_hop_up", name) == 0 })
}

// TestMuteHopIsNotJudgedByOptions: a core that drops OPTIONS serves all the same.
func TestMuteHopIsNotJudgedByOptions(t *testing.T) {
	a := startTestCore(t, "127.0.0.1:0", nil, "udp")
	a.set(func(req *sip.Request, transport string) *sip.Response {
		if req.Method == sip.OPTIONS {
			return nil
		}
		return ok(req, transport)
	})
	r := newRig(t, a.addr, func(c *Config) {
		impatient(c, a.at("udp"))
		c.Core.Probe, c.Core.Failover = 10*time.Millisecond, 10*time.Millisecond
	})
	for range 8 { // retransmissions of one, or several
		a.request(sip.OPTIONS)
	}
	if res := r.dial("alice").enrol(t); res.StatusCode != 200 {
		t.Errorf("REGISTER got %d, want 200", res.StatusCode)
	}
}

// TestStormFailsOver: many WICs at once, the preferred core killed under them.
func TestStormFailsOver(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			r, a, _ := twoCores(t, transport, func(c *Config) { c.Core.Failover = 200 * time.Millisecond })
			const wics, rounds = 20, 20
			var all sync.WaitGroup
			for i := range wics {
				w := r.dial("user" + strconv.Itoa(i))
				all.Go(func() {
					for n := range rounds {
						if i == 0 && n == rounds/4 {
							a.kill()
						}
						w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
						select {
						case m := <-w.in:
							if res, ok := m.(*sip.Response); !ok || res.StatusCode != 200 {
								t.Errorf("%s: %s", w.user, m)
							}
						case <-time.After(patience):
							t.Errorf("%s: no answer", w.user)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
