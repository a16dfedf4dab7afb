package proxy

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
)

// clock is a clock that a test turns.
type clock struct{ now atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.now.Store(time.Now().UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.now.Load()) }
func (c *clock) forward(d time.Duration) { c.now.Add(int64(d)) }

// TestRateOfAFlow: what is too much gets 503 with a time to come back (RFC 3261 §21.5.4);
// what ends something is always taken.
func TestRateOfAFlow(t *testing.T) {
	clk := newClock()
	r, core, w, reg := registered(t, func(c *Config) { c.Limits.Rate, c.Limits.Burst, c.Now = 2, 4, clk.Now })
	c := callIn(t, r, core, w, pathOf(reg)) // its INVITE is not the WIC's
	clk.forward(time.Minute)
	for i := range 6 {
		w.send(w.request("OPTIONS", "sip:"+testDomain))
		if res, want := w.response(sip.OPTIONS), []int{200, 503}[i/4]; res.StatusCode != want || want == 503 && first(res, "Retry-After") != "1" {
			t.Errorf("request %d: got %d, Retry-After %q, want %d", i+1, res.StatusCode, first(res, "Retry-After"), want)
		}
	}
	if n := r.metric("epcscf_sip_limited_total", "reason="+limitRate); n != 2 {
		t.Errorf("%v counted, want 2", n)
	}
	c.send("BYE")
	core.respond(r.edge, core.request(sip.BYE), 200)
	if res := w.response(sip.BYE); res.StatusCode != 200 {
		t.Errorf("BYE got %d, want 200", res.StatusCode)
	}
	w.send(w.request("CANCEL", "sip:bob@ims.test"))
	if res := w.response(sip.CANCEL); res.StatusCode != 481 {
		t.Errorf("CANCEL got %d, want 481: it is looked at", res.StatusCode)
	}
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Expires: 0"))
	core.respond(r.edge, core.request(sip.REGISTER), 200)
	if res := w.response(sip.REGISTER); res.StatusCode != 200 {
		t.Errorf("a REGISTER that ends the registration got %d, want 200", res.StatusCode)
	}
	clk.forward(time.Minute)
	w.send(w.request("OPTIONS", "sip:"+testDomain))
	if res := w.response(sip.OPTIONS); res.StatusCode != 403 {
		t.Errorf("later: got %d, want 403", res.StatusCode)
	}
}

// TestFlood: who does not heed 503 is closed, be it with requests or with what is none.
func TestFlood(t *testing.T) {
	clk := newClock()
	for name, msg := range map[string]func(*wic) string{
		"requests":  func(w *wic) string { return w.request("OPTIONS", "sip:"+testDomain) },
		"malformed": func(w *wic) string { return w.request("OPTIONS", "sip:"+testDomain, "Content-Length: 7") },
		"BYE":       func(w *wic) string { return w.request("BYE", "sip:"+testDomain) },
	} {
		r, _, w, _ := registered(t, func(c *Config) { c.Limits.Rate, c.Limits.Burst, c.Now = 1, 2, clk.Now })
		for range 22 {
			w.send(msg(w))
		}
		if got := w.closeCode(); got != websocket.ClosePolicyViolation {
			t.Errorf("%s: close %d, want 1008", name, got)
		}
		eventually(t, "counted", func() bool { return r.metric("epcscf_flows_closed_total", "reason="+closedFlood) == 1 })
	}
}

func TestAddressOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32",
		"[2001:db8:1:2:3:4:5:6]:5": "2001:db8:1:2::/64", "[2001:db8:1:2::9]:5": "2001:db8:1:2::/64", "[fe80::1%eth0]:5": "fe80::/64",
	} {
		if got := addressOf(remote); got != netip.MustParsePrefix(want) {
			t.Errorf("addressOf(%s) = %v, want %s", remote, got, want)
		}
	}
	if got := addressOf("@"); got.IsValid() {
		t.Errorf("addressOf(@) = %v, want none", got)
	}
}

func TestFlowsOfAnAddress(t *testing.T) {
	_, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Limits.FlowsPerAddress = 2 })
	a, _ := r.dial("alice"), r.dial("bob")
	_, res, err := dialer().Dial(r.url, http.Header{"Origin": {testOrigin}})
	if err == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Fatalf("third: %v, want 503 with Retry-After", err)
	}
	if body, _ := io.ReadAll(res.Body); !strings.Contains(string(body), "this address has as many") {
		t.Errorf("body %q does not say why", body)
	}
	if n := r.metric("epcscf_upgrades_refused_total", "reason="+refusedAddress); n != 1 {
		t.Errorf("%v counted, want 1", n)
	}
	_ = a.ws.Close()
	eventually(t, "the first flow ended", func() bool { return r.metric("epcscf_flows") == 1 })
	r.dial("carol")
}

// TestSlowWriter: a message that does not come to its end, pongs or not.
func TestSlowWriter(t *testing.T) {
	r, _, w, _ := registered(t, func(c *Config) { c.Limits.Read, c.Limits.Ping = 50*time.Millisecond, 10*time.Millisecond })
	// The first of two frames: text, not final, four octets, masked with zeros.
	if _, err := w.ws.NetConn().Write([]byte{0x01, 0x84, 0, 0, 0, 0, 'I', 'N', 'V', 'I'}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the flow cut off", func() bool { return r.metric("epcscf_flows_closed_total", "reason="+closedSlowWrite) == 1 })
}

func TestDialogLimit(t *testing.T) {
	r, core, w, reg := registered(t, func(c *Config) { c.Limits.Dialogs = 1 })
	c := callOut(t, r, core, w)
	w.callID = newTag()
	w.send(w.request("INVITE", "sip:bob@ims.test"))
	if res := w.response(sip.INVITE); res.StatusCode != 503 || first(res, "Retry-After") == "" {
		t.Errorf("a second call got %d, want 503 with Retry-After", res.StatusCode)
	}
	core.send(r.edge, core.ask("INVITE", w.contact(), "Route: "+pathOf(reg)))
	if res := finalAt(core); res.StatusCode != 480 {
		t.Errorf("a call toward the WIC got %d, want 480: 503 would put the edge aside", res.StatusCode)
	}
	if n := r.metric("epcscf_sip_limited_total", "reason="+limitDialogs); n != 2 {
		t.Errorf("%v counted, want 2", n)
	}
	w.send(w.request("MESSAGE", "sip:bob@ims.test")) // makes no dialog
	core.respond(r.edge, core.request(sip.MESSAGE), 200)
	w.response(sip.MESSAGE)
	c.send("BYE")
	core.respond(r.edge, core.request(sip.BYE), 200)
	w.response(sip.BYE)
	callOut(t, r, core, w)
}

func TestTransactionLimit(t *testing.T) {
	r, core, w, _ := registered(t, func(c *Config) { c.Limits.Transactions = 1 })
	// RFC 3261 §17.2.2: over a reliable transport a non-INVITE transaction ends with its
	// answer, but a WIC may have that a moment before.
	idle := func() bool { return r.pending(0) == 0 }
	eventually(t, "no transaction left of the registration", idle)
	w.send(w.request("MESSAGE", "sip:bob@ims.test"))
	msg := core.request(sip.MESSAGE)
	w.send(w.request("INFO", "sip:bob@ims.test"))
	if res := w.response("INFO"); res.StatusCode != 503 {
		t.Errorf("a second open request got %d, want 503", res.StatusCode)
	}
	core.respond(r.edge, msg, 200)
	w.response(sip.MESSAGE)
	if n := r.metric("epcscf_sip_limited_total", "reason="+limitTransactions); n != 1 {
		t.Errorf("%v counted, want 1", n)
	}
	eventually(t, "no transaction left", idle)
}

// pending is the number of requests of the edge's i-th flow that have no answer yet.
func (r *rig) pending(i int) int {
	f := r.proxy.flows.all()[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending
}

// TestSilentWIC: a request that a WIC does not answer ends by our own deadline (TS 24.229
// 7.7): 408 to an INVITE, nothing to others (RFC 4320 §4.2), no transaction left behind.
func TestSilentWIC(t *testing.T) {
	r, core, w, reg := registered(t, func(c *Config) { c.Limits.Answer = 30 * time.Millisecond })
	core.send(r.edge, core.ask("INVITE", w.contact(), "Route: "+pathOf(reg)))
	w.incoming(sip.INVITE)
	if res := finalAt(core); res.StatusCode != 408 {
		t.Errorf("INVITE got %d, want 408", res.StatusCode)
	}
	core.send(r.edge, core.ask("MESSAGE", w.contact(), "Route: "+pathOf(reg)))
	msg := w.incoming(sip.MESSAGE)
	eventually(t, "the transaction ended", func() bool {
		r.proxy.txs.mu.Lock()
		defer r.proxy.txs.mu.Unlock()
		for _, s := range r.proxy.txs.servers {
			if s.req.Method == sip.MESSAGE {
				return false
			}
		}
		return true
	})
	w.respond(msg, 200, "OK") // too late
	eventually(t, "the late answer dropped", func() bool { return r.metric("epcscf_sip_dropped_total", "reason="+dropStray) == 1 })
}
