package proxy

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/internal/realpart"
	"epcscf/sipext"
)

// leg is one WIC's end of a call.
type leg struct {
	w      *wic
	rows   []string // From, To, Call-ID and Route of its requests
	target string
}

// callerLeg is the caller's end, by the 2xx.
func callerLeg(t *testing.T, w *wic, ok *sip.Response) *leg {
	t.Helper()
	rows := []string{"From: " + ok.From().Value(), "To: " + ok.To().Value(), "Call-ID: " + ok.CallID().Value()}
	return &leg{w, append(rows, routeSet(ok, true)...), target(t, ok)}
}

// calleeLeg is the callee's end, by the INVITE and what it answered.
func calleeLeg(t *testing.T, w *wic, inv *sip.Request, answer *sip.Response) *leg {
	t.Helper()
	rows := []string{"From: " + answer.To().Value(), "To: " + answer.From().Value(), "Call-ID: " + inv.CallID().Value()}
	return &leg{w, append(rows, routeSet(inv, false)...), target(t, inv)}
}

func (l *leg) send(method string, rows ...string) {
	l.w.t.Helper()
	l.w.send(l.w.request(method, l.target, append(rows, l.rows...)...))
}

// acked sends the ACK of the last INVITE.
func (l *leg) ack(ok *sip.Response) {
	l.w.t.Helper()
	l.send("ACK", fmt.Sprintf("CSeq: %d ACK", ok.CSeq().SeqNo))
}

// to sends a request within the call to another WIC, which takes it.
func (l *leg) to(other *wic, method sip.RequestMethod) {
	l.w.t.Helper()
	l.send(string(method))
	other.respond(other.incoming(method), 200, "OK")
	ok := l.w.response(method)
	if ok.StatusCode != 200 {
		l.w.t.Errorf("%s: %s within the call got %d %s, want 200", l.w.user, method, ok.StatusCode, ok.Reason)
	}
	if method == sip.INVITE {
		l.ack(ok)
		other.incoming(sip.ACK)
	}
}

// newCall gives a WIC another Call-ID.
func (w *wic) newCall() { w.callID, w.fromTag = newTag(), newTag() }

// TestKamailioCallsBetweenWICs: two WICs of this edge with a real registrar and proxy
// between them, which stays in the route: both directions, each way to end.
func TestKamailioCallsBetweenWICs(t *testing.T) {
	for _, mismatch := range []RouteMismatch{RouteReplace, RouteReject} {
		t.Run(string(mismatch), func(t *testing.T) {
			k := newKamailio(t)
			k.start()
			r := newRig(t, k.addr, func(c *Config) { c.RouteMismatch = mismatch })
			alice, bob := r.dial("alice"), r.dial("bob")
			service := []string{"Route: " + first(alice.mustRegister(), "Service-Route")}
			bob.mustRegister()
			for _, pair := range [][2]*wic{{alice, bob}, {bob, alice}} {
				a, b := pair[0], pair[1]
				for _, byCaller := range []bool{true, false} {
					a.newCall()
					a.send(a.request("INVITE", b.aor(), service...))
					inv := b.incoming(sip.INVITE)
					b.respond(inv, 180, "Ringing")
					a.status(180)
					answer := b.respond(inv, 200, "OK")
					ok := a.status(200)
					caller, callee := callerLeg(t, a, ok), calleeLeg(t, b, inv, answer)
					caller.ack(ok)
					b.incoming(sip.ACK)
					for _, method := range []sip.RequestMethod{sip.INVITE, sip.UPDATE, sip.INFO, sip.MESSAGE} {
						caller.to(b, method)
						callee.to(a, method)
					}
					if byCaller {
						caller.to(b, sip.BYE)
					} else {
						callee.to(a, sip.BYE)
					}
				}
				testUnanswered(t, a, b, service)
			}
			eventually(t, "no dialog left", func() bool { return r.metric("epcscf_dialogs") == 0 })
		})
	}
}

// TestKamailioCallOutlivesTheCore: an answered call has nothing in the core but its route, so
// it goes on when the core has died and come back (see release.go).
func TestKamailioCallOutlivesTheCore(t *testing.T) {
	k := newKamailio(t)
	k.start()
	r := newRig(t, k.addr, nil)
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister()
	bob.mustRegister()
	alice.newCall()
	alice.send(alice.request("INVITE", bob.aor()))
	inv := bob.incoming(sip.INVITE)
	answer := bob.respond(inv, 200, "OK")
	ok := alice.status(200)
	caller, callee := callerLeg(t, alice, ok), calleeLeg(t, bob, inv, answer)
	caller.ack(ok)
	bob.incoming(sip.ACK)
	k.kill()
	k.start()
	callee.to(alice, sip.UPDATE)
	caller.to(bob, sip.BYE)
	eventually(t, "no dialog left", func() bool { return r.metric("epcscf_dialogs") == 0 })
}

// testUnanswered: a text, and the calls that come to nothing.
func testUnanswered(t *testing.T, a, b *wic, service []string) {
	t.Helper()
	a.newCall()
	a.send(a.request("MESSAGE", b.aor(), append(service, "Content-Type: text/plain", "\nhello")...))
	msg := b.incoming(sip.MESSAGE)
	if string(msg.Body()) != "hello" {
		t.Errorf("body %q, want hello", msg.Body())
	}
	b.respond(msg, 200, "OK")
	if res := a.response(sip.MESSAGE); res.StatusCode != 200 {
		t.Errorf("MESSAGE got %d, want 200", res.StatusCode)
	}

	for _, tt := range []struct {
		name, uri string
		want      int
	}{{"busy", b.aor(), 486}, {"unknown", "sip:nobody@" + testDomain, 404}, {"not registered", "sip:carol@" + testDomain, 480}} {
		a.newCall()
		a.send(a.request("INVITE", tt.uri, service...))
		if tt.want == 486 {
			b.respond(b.incoming(sip.INVITE), 486, "Busy Here")
			b.incoming(sip.ACK)
		}
		if res := a.response(sip.INVITE); res.StatusCode != tt.want {
			t.Errorf("%s: got %d %s, want %d", tt.name, res.StatusCode, res.Reason, tt.want)
		}
	}

	a.newCall()
	invite := a.request("INVITE", b.aor(), service...)
	a.send(invite)
	inv := b.incoming(sip.INVITE)
	b.respond(inv, 180, "Ringing")
	a.status(180)
	a.send(strings.ReplaceAll(invite, "INVITE", "CANCEL"))
	b.respond(b.incoming(sip.CANCEL), 200, "OK")
	b.respond(inv, 487, "Request Terminated")
	if res := a.response(sip.INVITE); res.StatusCode != 487 {
		t.Errorf("a canceled call got %d, want 487", res.StatusCode)
	}
}

// sipp writes scenarios for SIPp, the peer on the core's side.
type sipp struct{ b strings.Builder }

func (s *sipp) recv(what, name string, extra ...string) *sipp {
	fmt.Fprintf(&s.b, "<recv %s=%q %s>\n", what, name, strings.Join(extra, " "))
	// The parties as they stand in a request of the other side, to write ours.
	s.b.WriteString(`<action><ereg regexp=".*" search_in="hdr" header="From:" assign_to="them"/>` +
		`<ereg regexp=".*" search_in="hdr" header="To:" assign_to="us"/></action></recv>` + "\n")
	return s
}

func (s *sipp) send(retransmit bool, rows ...string) *sipp {
	retrans := ""
	if retransmit {
		retrans = ` retrans="500"`
	}
	fmt.Fprintf(&s.b, "<send%s><![CDATA[\n\n%s\nContent-Length: 0\n\n]]></send>\n", retrans, strings.Join(rows, "\n"))
	return s
}

// respond answers the last request; the answers that begin a call bring a tag and the route.
func (s *sipp) respond(status string, initial bool) *sipp {
	tag := ""
	if initial {
		tag = ";tag=[call_number]-[pid]"
	}
	return s.send(initial && status >= "2", "SIP/2.0 "+status, "[last_Via:]", "[last_From:]", "[last_To:]"+tag, "[last_Call-ID:]", "[last_CSeq:]",
		"[last_Record-Route:]", "Contact: <sip:sipp@[local_ip]:[local_port]>")
}

// take takes a request within the call with 200.
func (s *sipp) take(methods ...string) *sipp {
	for _, m := range methods {
		s.recv("request", m).respond("200 OK", false)
		if m == "INVITE" {
			s.recv("request", "ACK")
		}
	}
	return s
}

// ask sends requests within the call from the callee and wants 200.
func (s *sipp) ask(methods ...string) *sipp {
	for i, m := range methods {
		s.send(true, m+" [next_url] SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]", "[routes]", "From:[$us]", "To:[$them]",
			"[last_Call-ID:]", fmt.Sprintf("CSeq: %d %s", i+10, m), "Max-Forwards: 70", "Contact: <sip:sipp@[local_ip]:[local_port]>")
		fmt.Fprintf(&s.b, "<recv response=\"200\"/>\n")
	}
	return s
}

// invite calls, and notes the parties as in a request of the other side.
func (s *sipp) invite(user string) *sipp {
	from := "From: <sip:+15550100@" + testDomain + ">;tag=[call_number]-[pid]"
	s.send(true, "INVITE sip:"+user+"@"+testDomain+" SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]", from,
		"To: <sip:"+user+"@"+testDomain+">", "Call-ID: [call_id]", "CSeq: 1 INVITE", "Max-Forwards: 70", "Contact: <sip:sipp@[local_ip]:[local_port]>")
	s.b.WriteString(`<recv response="100" optional="true"/>` + "\n" + `<recv response="180" optional="true"/>` + "\n" +
		`<recv response="200" rrs="true"><action><ereg regexp=".*" search_in="hdr" header="To:" assign_to="them"/>` +
		`<ereg regexp=".*" search_in="hdr" header="From:" assign_to="us"/></action></recv>` + "\n")
	return s.send(false, "ACK [next_url] SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]", "[routes]", "From:[$us]", "To:[$them]",
		"Call-ID: [call_id]", "CSeq: 1 ACK", "Max-Forwards: 70")
}

// start runs the scenario once; wait returns when it has ended as written.
func (s *sipp) start(t *testing.T, addr, core string) (wait func()) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "scenario.xml")
	text := "<?xml version=\"1.0\" encoding=\"us-ascii\"?>\n<!DOCTYPE scenario SYSTEM \"sipp.dtd\">\n<scenario name=\"peer\">\n" +
		s.b.String() + "<Reference variables=\"us,them\"/>\n</scenario>\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(t.Context(), "sipp", core, "-sf", file, "-i", "127.0.0.1", "-p", port, "-m", "1", "-timeout", "20", "-timeout_error",
		"-nostdin", "-trace_err", "-error_file", filepath.Join(dir, "errors"), "-trace_msg", "-message_file", filepath.Join(dir, "messages"))
	cmd.Env = append(os.Environ(), "TERM=dumb")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		if done != nil {
			_ = cmd.Process.Kill()
			err := <-done
			msgs, _ := os.ReadFile(filepath.Join(dir, "messages"))
			t.Logf("sipp: %v; its messages:\n%s", err, msgs)
		}
	})
	bound(t, addr)
	return func() {
		t.Helper()
		err := <-done
		done = nil
		if err != nil {
			errs, _ := os.ReadFile(filepath.Join(dir, "errors"))
			msgs, _ := os.ReadFile(filepath.Join(dir, "messages"))
			t.Errorf("sipp: %v\n%s\n%s", err, errs, msgs)
		}
	}
}

// bound waits until a program has the UDP port.
func bound(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "the port "+addr+" taken", func() bool {
		c, err := net.ListenPacket("udp4", addr)
		if err == nil {
			_ = c.Close()
			time.Sleep(10 * time.Millisecond) // let the program have it
		}
		return err != nil
	})
}

// TestKamailioCallsWithSIPp: calls between a WIC and SIPp, a UDP user agent on the core's
// side, both ways and ended by both.
func TestKamailioCallsWithSIPp(t *testing.T) {
	realpart.Program(t, "sipp", "sip-tester")
	k := newKamailio(t)
	free := udpSocket(t)
	gateway := free.LocalAddr().String()
	_ = free.Close()
	t.Setenv("GATEWAY", gateway) // docs/kamailio/registrar.cfg: where numbers go
	k.start()
	r := newRig(t, k.addr, nil)
	w := r.dial("alice")
	w.mustRegister()
	const number = "sip:+15550100@" + testDomain
	within := []string{"INVITE", "UPDATE", "INFO"}

	// callOut calls SIPp and has requests within the call both ways.
	callOut := func(t *testing.T) *leg {
		t.Helper()
		w.newCall()
		w.send(w.request("INVITE", number))
		w.status(180)
		ok := w.status(200)
		l := callerLeg(t, w, ok)
		l.ack(ok)
		for _, m := range within {
			l.send(m)
			res := w.response(sip.RequestMethod(m))
			if res.StatusCode != 200 {
				t.Errorf("%s got %d, want 200", m, res.StatusCode)
			}
			if m == "INVITE" {
				l.ack(res)
			}
		}
		return l
	}
	callee := func() *sipp {
		return new(sipp).recv("request", "INVITE", `rrs="true"`).respond("180 Ringing", true).respond("200 OK", true).recv("request", "ACK").take(within...)
	}
	t.Run("out, ended by the WIC", func(t *testing.T) {
		wait := callee().take("BYE").start(t, gateway, k.addr.String())
		l := callOut(t)
		l.send("BYE")
		if res := w.response(sip.BYE); res.StatusCode != 200 {
			t.Errorf("BYE got %d, want 200", res.StatusCode)
		}
		wait()
	})
	t.Run("out, ended by SIPp", func(t *testing.T) {
		wait := callee().ask("UPDATE", "INFO", "BYE").start(t, gateway, k.addr.String())
		callOut(t)
		for _, m := range []sip.RequestMethod{"UPDATE", "INFO", "BYE"} {
			w.respond(w.incoming(m), 200, "OK")
		}
		wait()
	})
	t.Run("busy", func(t *testing.T) {
		wait := new(sipp).recv("request", "INVITE").respond("486 Busy Here", true).recv("request", "ACK").start(t, gateway, k.addr.String())
		w.newCall()
		w.send(w.request("INVITE", number))
		if res := w.response(sip.INVITE); res.StatusCode != 486 {
			t.Errorf("got %d, want 486", res.StatusCode)
		}
		wait()
	})
	testInFromSIPp(t, k.addr.String(), gateway, w)
	eventually(t, "no dialog left", func() bool { return r.metric("epcscf_dialogs") == 0 })
}

func testInFromSIPp(t *testing.T, core, gateway string, w *wic) {
	answer := func() (*sip.Request, *sip.Response) {
		inv := w.incoming(sip.INVITE)
		if len(sipext.Rows(inv, "P-Charging-Vector")) != 0 {
			t.Error("P-Charging-Vector reached the WIC")
		}
		w.respond(inv, 180, "Ringing")
		ok := w.respond(inv, 200, "OK")
		w.incoming(sip.ACK)
		return inv, ok
	}
	t.Run("in, ended by SIPp", func(t *testing.T) {
		wait := new(sipp).invite("alice").ask("UPDATE", "INFO", "BYE").start(t, gateway, core)
		answer()
		for _, m := range []sip.RequestMethod{"UPDATE", "INFO", "BYE"} {
			w.respond(w.incoming(m), 200, "OK")
		}
		wait()
	})
	t.Run("in, ended by the WIC", func(t *testing.T) {
		wait := new(sipp).invite("alice").take("INVITE", "BYE").start(t, gateway, core)
		inv, ok := answer()
		l := calleeLeg(t, w, inv, ok)
		l.send("INVITE")
		again := w.response(sip.INVITE)
		l.ack(again)
		l.send("BYE")
		if res := w.response(sip.BYE); again.StatusCode != 200 || res.StatusCode != 200 {
			t.Errorf("re-INVITE and BYE got %d and %d, want 200", again.StatusCode, res.StatusCode)
		}
		wait()
	})
}
