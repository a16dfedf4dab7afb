package proxy

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// wire is a UDP socket that keeps what is written to it.
type wire struct {
	net.PacketConn
	sent []string
}

// ReadFromUDPAddrPort implements datagrams; nobody reads.
func (w *wire) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	return 0, netip.AddrPort{}, net.ErrClosed
}

// WriteToUDPAddrPort implements datagrams.
func (w *wire) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) {
	w.sent = append(w.sent, string(b))
	return len(b), nil
}

// underway starts a REGISTER on an edge without sockets; the flow takes no answer.
func underway(t *testing.T) (*registering, *wire) {
	t.Helper()
	p, f := fuzzEdge(t)
	f.closed = true
	out := &wire{}
	p.core.udp = out
	p.registers.ticking.Store(true) // the test is the clock
	raw := lines("REGISTER sip:ims.test SIP/2.0", "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1", "From: <sip:alice@ims.test>;tag=1", "To: <sip:alice@ims.test>",
		"Call-ID: 1", "CSeq: 1 REGISTER", "Contact: <sip:alice@a.invalid;transport=ws>", "Content-Type: text/plain")
	buffer := []byte(raw + "a body")
	m, err := sipext.Scan(buffer, sipext.Limits{})
	if err == nil {
		err = p.dispatch(m, peer{flow: f, conn: f, transport: "WSS"})
	}
	clear(buffer) // which the next message of the flow is read into
	if err != nil || len(out.sent) != 1 || len(f.registering) != 1 {
		t.Fatalf("REGISTER: %v, %d sent, %d under way", err, len(out.sent), len(f.registering))
	}
	return f.registering[0], out
}

// answerFrom gives the core's answer to what was sent first.
func (w *wire) answerFrom(t *testing.T, r *registering, status int, rows ...string) {
	t.Helper()
	m, err := sipext.Scan([]byte(w.sent[0]), sipext.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	res := answerTo(m, status, "Reason")
	for _, row := range rows {
		name, value, _ := strings.Cut(row, ": ")
		res.Add(sipext.NameOf(name), value)
	}
	if err := r.p.dispatch(res, peer{}); err != nil {
		t.Fatal(err)
	}
}

// TestTimerE: when a REGISTER is sent again over UDP, the same each time (RFC 3261 §17.1.2.2),
// until nobody waits for it.
func TestTimerE(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		at     time.Duration // of the status; 0: never
		want   []time.Duration
	}{
		{"silence", 0, 0, []time.Duration{500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500}},
		{"100 after 0.6 s", 100, 600, []time.Duration{500, 1500, 5500, 9500, 13500, 17500, 21500, 25500, 29500}},
		{"200 after 2 s", 200, 2000, []time.Duration{500, 1500}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, out := underway(t)
			began := r.attempts[0].began
			var got []time.Duration
			for at := time.Duration(0); at <= 30_000; at += 20 {
				if at == tt.at && at > 0 {
					out.answerFrom(t, r, tt.status)
				}
				n := len(out.sent)
				if r.tick(began.Add(at * time.Millisecond)); len(out.sent) > n {
					got = append(got, at)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("sent again after %d ms, want %d", got, tt.want)
			}
			for _, s := range out.sent {
				if s != out.sent[0] || !strings.HasSuffix(s, "Content-Length: 6\r\n\r\na body") {
					t.Errorf("sent again as\n%s\nand not as\n%s", s, out.sent[0])
				}
			}
			eventually(t, "the end of the transaction", func() bool {
				r.f.mu.Lock()
				defer r.f.mu.Unlock()
				return len(r.f.registering) == 0 && r.f.pending == 0 && len(r.p.registers.open(nil)) == 0
			})
		})
	}
}

// TestRegisterRepeatedByWIC: what a WIC sends again while the core is silent goes nowhere, and
// one answer comes (RFC 3261 §17.2.2).
func TestRegisterRepeatedByWIC(t *testing.T) {
	core, addr := startStub(t)
	r := newRig(t, addr, nil)
	w := r.dial("alice")
	req := w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">")
	w.send(req)
	first := core.request(sip.REGISTER)
	w.send(req)
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Call-ID: another"))
	if got := core.request(sip.REGISTER); got.CallID().Value() != "another" {
		t.Errorf("the retransmission reached the core:\n%s", got)
	}
	core.respond(r.edge, first, 200, "Contact: <"+w.contact()+">;expires=600")
	core.respond(r.edge, first, 200, "Contact: <"+w.contact()+">;expires=600") // and again
	if res := w.response(sip.REGISTER); res.StatusCode != 200 || r.pending(0) != 1 {
		t.Errorf("REGISTER got %d, %d are open, want 200 and the other one", res.StatusCode, r.pending(0))
	}
	eventually(t, "the second 200 dropped", func() bool { return r.metric("epcscf_sip_dropped_total", "reason="+dropStray) == 1 })
}

// slowRelay is a Provisioner that waits for its relay.
type slowRelay struct {
	turncred.Provisioner
	asked chan struct{}
	let   chan struct{}
}

func (s *slowRelay) wait() {
	s.asked <- struct{}{}
	<-s.let
}

// Immediate hides that the Provisioner beneath is.
func (*slowRelay) Immediate() bool { return false }

// Provision implements turncred.Provisioner.
func (s *slowRelay) Provision(ctx context.Context, r turncred.Request) (turncred.Credential, error) {
	s.wait()
	return s.Provisioner.Provision(ctx, r)
}

// Revoke implements turncred.Provisioner.
func (s *slowRelay) Revoke(ctx context.Context, scope turncred.Scope) error {
	s.wait()
	return s.Provisioner.Revoke(ctx, scope)
}

// TestSlowRelayHoldsUpNobody: while one WIC's 200 waits for the relay, for a credential or
// for its revocation, the core's other messages are read.
func TestSlowRelayHoldsUpNobody(t *testing.T) {
	for _, tt := range []struct{ name, contact string }{
		{"a credential", ";expires=600"},
		{"a revocation, asked for", ";expires=0"},
		{"a revocation, as the core grants nothing", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			relay := &slowRelay{sharedKey(t, &relayStub{}), make(chan struct{}), make(chan struct{})}
			r := newRig(t, addr, func(c *Config) { c.Provisioner, c.AllowUnauthorized = relay, true })
			alice, bob := r.dial("alice"), r.dial("bob")
			alice.send(alice.request("REGISTER", "sip:"+testDomain, "To: <"+alice.aor()+">", "Contact: <"+alice.contact()+">"+tt.contact, askHeader))
			req := core.request(sip.REGISTER)
			var granted []string
			if tt.contact != "" {
				granted = []string{"Contact: <" + alice.contact() + ">" + tt.contact}
			}
			core.respond(r.edge, req, 200, granted...)
			<-relay.asked
			bob.send(bob.request("REGISTER", "sip:"+testDomain, "To: <"+bob.aor()+">"))
			core.accept(r.edge)
			if res := bob.response(sip.REGISTER); res.StatusCode != 200 {
				t.Errorf("the other REGISTER got %d, want 200", res.StatusCode)
			}
			close(relay.let)
			if res := alice.response(sip.REGISTER); res.StatusCode != 200 {
				t.Errorf("the REGISTER that waited got %d, want 200", res.StatusCode)
			}
		})
	}
}

// TestRefreshKeepsRegistration: a 200 that grants the same again moves the expiry, and one
// that grants something else is read anew.
func TestRefreshKeepsRegistration(t *testing.T) {
	for _, tt := range []struct {
		name string
		rows []string // of the second 200, beside the usual ones
		same bool
		want []IMPU
	}{
		{"the same", nil, true, []IMPU{"sip:alice@ims.test", "tel:+15551234"}},
		{"another identity", []string{"P-Associated-URI: <sip:new@ims.test>"}, false, []IMPU{"sip:alice@ims.test", "tel:+15551234", "sip:new@ims.test"}},
		{"another route", []string{"Service-Route: <sip:third.ims.test;lr>"}, false, []IMPU{"sip:alice@ims.test", "tel:+15551234"}},
		{"charging", []string{"P-Charging-Function-Addresses: ccf=new"}, false, []IMPU{"sip:alice@ims.test", "tel:+15551234"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			r, core, w, _ := registered(t, func(c *Config) { c.Now = func() time.Time { return now } })
			f := r.proxy.flows.all()[0]
			before := f.registrationsOf("sip:alice@ims.test")[0]
			now = now.Add(time.Minute)
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
			core.accept(r.edge, tt.rows...)
			w.response(sip.REGISTER)
			after := f.registrationsOf("sip:alice@ims.test")
			if len(after) != 1 || (after[0] == before) != tt.same {
				t.Fatalf("%d registrations, kept: %v, want one, kept: %v", len(after), after[0] == before, tt.same)
			}
			if got := after[0].identities(); !slices.Equal(got, tt.want) {
				t.Errorf("implicit set %v, want %v", got, tt.want)
			}
			if got, want := after[0].identity().expires, now.Add(600*time.Second); !got.Equal(want) {
				t.Errorf("expires %v, want %v", got, want)
			}
		})
	}
	t.Run("an identity that the core took away", func(t *testing.T) {
		r, core, w, _ := registered(t, nil)
		f := r.proxy.flows.all()[0]
		f.registrationsOf("sip:alice@ims.test")[0].disown("tel:+15551234")
		w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
		core.accept(r.edge)
		w.response(sip.REGISTER)
		if got := f.registrationsOf("sip:alice@ims.test")[0].identities(); len(got) != 2 {
			t.Errorf("after the next 200 the implicit set is %v, want both again", got)
		}
	})
}

// TestRefusedWithNobodyElse: the 503 of the hop in use is passed on where the next one cannot
// be reached (RFC 3261 §16.7 step 6).
func TestRefusedWithNobodyElse(t *testing.T) {
	a, b := startTestCore(t, "127.0.0.1:0", nil, "udp"), startTestCore(t, "127.0.0.1:0", nil, "tcp")
	r := newRig(t, a.addr, func(c *Config) { impatient(c, a.at("udp"), b.at("tcp")) })
	a.set(unavailableHere)
	b.kill()
	if res := r.dial("alice").enrol(t); res.StatusCode != 503 || first(res, "Retry-After") != "7" {
		t.Errorf("REGISTER got %d, Retry-After %q, want the core's 503", res.StatusCode, first(res, "Retry-After"))
	}
}

// TestProvisionalKeepsHop: a hop that has said it is at work is waited for.
func TestProvisionalKeepsHop(t *testing.T) {
	r, a, b := twoCores(t, "udp", func(c *Config) { c.Core.Failover = 200 * time.Millisecond })
	a.set(func(req *sip.Request, _ string) *sip.Response { return answerOf(req, 100) })
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	req := a.request(sip.REGISTER)
	a.request(sip.REGISTER) // Timer E, after 500 ms
	a.say(t, r, answerOf(req.Request, 200))
	if res := w.response(sip.REGISTER); res.StatusCode != 200 || !b.sawNone(sip.REGISTER) {
		t.Errorf("REGISTER got %d, or the second hop got it too", res.StatusCode)
	}
}
