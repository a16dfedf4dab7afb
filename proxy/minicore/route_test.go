package minicore

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// outbound gives p an instance, so that it counts as one device.
func outbound(p *phone, instance string) *phone {
	p.params = `;+sip.instance="<urn:uuid:` + instance + `>";reg-id=1`
	return p
}

// pair returns registered phones of alice and bob.
func pair(t *testing.T, core running) (alice, bob *phone) {
	t.Helper()
	alice, bob = newPhone(t, "alice", "udp", core.udp), newPhone(t, "bob", "udp", core.udp)
	alice.register()
	bob.register()
	return alice, bob
}

func serviceRoute(core running) string { return "Route: <sip:orig@" + core.udp + ";lr>" }

func routes(m sipext.HeaderFields) (all []string) {
	for _, row := range sipext.Rows(m, "Route") {
		all = append(all, row.Value())
	}
	return all
}

// values is a row repeated, one entry a value.
func values(m sipext.HeaderFields, name string) (all []string) {
	for _, row := range sipext.Rows(m, name) {
		all = append(all, row.Value())
	}
	return all
}

func TestMessage(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	alice.request("MESSAGE", "sip:bob@"+domain, serviceRoute(core), "Content-Type: text/plain",
		"X-Big: "+strings.Repeat("x", 3000), "Content-Length: 5", "", "hello")
	req := bob.incoming("MESSAGE")
	if got := req.Recipient.String(); got != bob.contact {
		t.Errorf("Request-URI = %s, want the contact %s", got, bob.contact)
	}
	if got := routes(req); len(got) != 1 || got[0] != bob.path {
		t.Errorf("Route = %v, want the Path %s", got, bob.path)
	}
	if got := value(req, "P-Called-Party-ID"); got != "<sip:bob@ims.test>" {
		t.Errorf("P-Called-Party-ID = %q", got)
	}
	if got := value(req, "Max-Forwards"); got != "69" {
		t.Errorf("Max-Forwards = %q, want 69", got)
	}
	if string(req.Body()) != "hello" {
		t.Errorf("body = %q", req.Body())
	}
	bob.answer(req, 200, "OK", "X-Answer: bob")
	res := alice.response("MESSAGE", 200)
	if value(res, "X-Answer") != "bob" || len(values(res, "Via")) != 1 {
		t.Errorf("the answer is not bob's with alice's Via alone:\n%s", res)
	}
}

func TestPathOfTwoHops(t *testing.T) {
	core := start(t, nil)
	alice, bob := newPhone(t, "alice", "udp", core.udp), newPhone(t, "bob", "udp", core.udp)
	last := "<sip:token@edge.invalid;lr;ob>"
	bob.path = strings.Replace(bob.path, ";ob", "", 1) + ", " + last
	bob.register()
	alice.request("OPTIONS", "sip:bob@"+domain)
	req := bob.incoming("OPTIONS")
	if got := routes(req); len(got) != 2 || got[1] != last {
		t.Errorf("Route = %v, want both Paths in order", got)
	}
	bob.answer(req, 200, "OK")
	alice.response("OPTIONS", 200)
}

func TestNoDevice(t *testing.T) {
	core := start(t, nil)
	alice := newPhone(t, "alice", "udp", core.udp)
	mallory := newPhone(t, "mallory", "udp", core.udp)
	for _, tt := range []struct {
		name, uri string
		from      *phone
		rows      []string
		want      int
	}{
		{"unknown user", "sip:dave@" + domain, alice, nil, 404},
		{"not registered", "sip:bob@" + domain, alice, nil, 480},
		{"another domain", "sip:bob@other.test", alice, nil, 404},
		{"no user", "sip:" + domain, alice, nil, 404},
		{"caller unknown", "sip:bob@" + domain, mallory, nil, 403},
		{"caller asserted", "sip:bob@" + domain, mallory, []string{"P-Asserted-Identity: <sip:alice@ims.test>"}, 480},
		{"other caller asserted", "sip:bob@" + domain, alice, []string{"P-Asserted-Identity: <sip:mallory@ims.test>"}, 403},
		{"no hops left", "sip:bob@" + domain, alice, []string{"Max-Forwards: 0"}, 483},
		{"loop", "sip:bob@" + domain, alice, []string{"Via: SIP/2.0/UDP " + core.udp + ";branch=z9hG4bKx"}, 482},
		{"Proxy-Require", "sip:bob@" + domain, alice, []string{"Proxy-Require: sec-agree"}, 420},
		{"next hop unknown", "sip:bob@" + domain, alice, []string{"Route: <sip:edge.invalid;lr>"}, 500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.from.t = t
			tt.from.request("MESSAGE", tt.uri, append(tt.rows, serviceRoute(core))...)
			tt.from.response("MESSAGE", tt.want)
		})
	}
}

func TestOptionsToDomain(t *testing.T) {
	core := start(t, nil)
	for _, network := range []string{"udp", "tcp"} {
		addr := map[string]string{"udp": core.udp, "tcp": core.tcp}[network]
		p := newPhone(t, "alice", network, addr)
		p.request("OPTIONS", "sip:"+domain)
		if res := p.response("OPTIONS", 200); value(res, "Allow") == "" {
			t.Errorf("no Allow:\n%s", res)
		}
	}
}

func TestMalformed(t *testing.T) {
	core := start(t, nil)
	p := newPhone(t, "alice", "udp", core.udp)
	good := p.text("OPTIONS", "sip:"+domain, "z9hG4bKgood")
	for _, tt := range []struct{ name, old, new string }{
		{"no From", "From:", "X-From:"},
		{"no From tag", ";tag=", ";tug="},
		{"no Call-ID", "Call-ID:", "X-Call-ID:"},
		{"no To", "To: <", "X-To: <"},
		{"another CSeq method", " OPTIONS\r\n", " MESSAGE\r\n"},
		{"old branch", "z9hG4bKgood", "1"},
	} {
		p.send(strings.Replace(good, tt.old, tt.new, 1))
		if res, ok := p.read().(*sip.Response); !ok || res.StatusCode != 400 {
			t.Errorf("%s: got %v, want 400", tt.name, res)
		}
	}
	for _, junk := range []string{"\r\n\r\n", "junk", "SIP/2.0 200 OK\r\n\r\n", "OPTIONS sip:x SIP/2.0\r\n\r\n"} {
		p.send(junk)
	}
	p.send(good)
	p.response("OPTIONS", 200)
}

func TestCall(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	invite := alice.request("INVITE", "sip:bob@"+domain, serviceRoute(core), "Contact: "+alice.bound())
	in := bob.incoming("INVITE")
	if rr := values(in, "Record-Route"); len(rr) != 0 {
		t.Errorf("Record-Route = %v, want none", rr)
	}
	bob.answer(in, 180, "Ringing")
	alice.response("INVITE", 180)
	bob.answer(in, 200, "OK", "Contact: "+bob.bound())
	alice.response("INVITE", 200)

	// A 2xx that comes again, since its ACK was lost, goes up again (RFC 6026).
	bob.answer(in, 200, "OK", "Contact: "+bob.bound())
	alice.response("INVITE", 200)

	// An ACK and a BYE that pass the core although it is in no route set: contact to Path.
	alice.send(alice.text("ACK", bob.contact, invite+"-ack", "To: <sip:bob@ims.test>;tag=to-"+bob.callID))
	ack := bob.incoming("ACK")
	if got := routes(ack); len(got) != 1 || got[0] != bob.path {
		t.Errorf("ACK Route = %v, want %s", got, bob.path)
	}
	alice.request("BYE", bob.contact, "To: <sip:bob@ims.test>;tag=to-"+bob.callID)
	bob.answer(bob.incoming("BYE"), 200, "OK")
	alice.response("BYE", 200)
}

func TestCallWithRecordRoute(t *testing.T) {
	core := start(t, func(c *Config) { c.RecordRoute = true })
	alice, bob := pair(t, core)
	alice.request("INVITE", "sip:bob@"+domain, serviceRoute(core), "Contact: "+alice.bound(), "Record-Route: <sip:edge@192.0.2.1;lr>")
	in := bob.incoming("INVITE")
	want := []string{"<sip:" + core.udp + ";lr>", "<sip:edge@192.0.2.1;lr>"}
	if got := values(in, "Record-Route"); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("Record-Route = %v, want %v", got, want)
	}
	bob.answer(in, 200, "OK", "Contact: "+bob.bound())
	alice.response("INVITE", 200)
	to := "To: <sip:bob@ims.test>;tag=to-" + bob.callID
	set := []string{to, "Route: <sip:" + core.udp + ";lr>", "Route: " + bob.path}
	alice.send(alice.text("ACK", bob.contact, "z9hG4bKack", set...))
	if got := routes(bob.incoming("ACK")); len(got) != 1 || got[0] != bob.path {
		t.Errorf("ACK Route = %v, want %s", got, bob.path)
	}
	alice.request("BYE", bob.contact, set...)
	bye := bob.incoming("BYE")
	if rr := values(bye, "Record-Route"); len(rr) != 0 {
		t.Errorf("BYE Record-Route = %v, want none", rr)
	}
	bob.answer(bye, 200, "OK")
	alice.response("BYE", 200)
}

func TestRefusedCall(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	invite := alice.request("INVITE", "sip:bob@"+domain, "Contact: "+alice.bound())
	in := bob.incoming("INVITE")
	bob.answer(in, 486, "Busy Here")
	ack := bob.incoming("ACK") // from the core, hop by hop
	if got := len(values(ack, "Via")); got != 1 {
		t.Errorf("ACK of a 486 has %d Vias, want 1", got)
	}
	if got := routes(ack); len(got) != 1 || got[0] != bob.path {
		t.Errorf("ACK Route = %v, want %s", got, bob.path)
	}
	alice.response("INVITE", 486)
	alice.send(alice.text("ACK", "sip:bob@"+domain, invite))
}

func TestCancel(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	branch := alice.request("INVITE", "sip:bob@"+domain, "Contact: "+alice.bound())
	in := bob.incoming("INVITE")
	bob.answer(in, 180, "Ringing")
	alice.response("INVITE", 180)
	alice.send(alice.text("CANCEL", "sip:bob@"+domain, branch))
	alice.response("CANCEL", 200)
	c := bob.incoming("CANCEL")
	if c.Via().Value() != in.Via().Value() || c.Recipient.String() != in.Recipient.String() || len(routes(c)) != 1 {
		t.Errorf("CANCEL does not match its INVITE:\n%s", c)
	}
	bob.answer(c, 200, "OK")
	bob.answer(in, 487, "Request Terminated")
	bob.incoming("ACK")
	alice.response("INVITE", 487)

	alice.send(alice.text("CANCEL", "sip:bob@"+domain, "z9hG4bKnone"))
	alice.response("CANCEL", 481)
}

// A CANCEL waits for a provisional response (RFC 3261 §9.1).
func TestEarlyCancel(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	branch := alice.request("INVITE", "sip:bob@"+domain, "Contact: "+alice.bound())
	in := bob.incoming("INVITE")
	alice.send(alice.text("CANCEL", "sip:bob@"+domain, branch))
	alice.response("CANCEL", 200)
	bob.answer(in, 100, "Trying")
	bob.answer(bob.incoming("CANCEL"), 200, "OK")
	bob.answer(in, 487, "Request Terminated")
	alice.response("INVITE", 487)
}

func TestForkAnswered(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	other := newPhone(t, "bob", "udp", core.udp)
	other.register()
	alice.request("INVITE", "sip:bob@"+domain, "Contact: "+alice.bound())
	in1, in2 := bob.incoming("INVITE"), other.incoming("INVITE")
	bob.answer(in1, 180, "Ringing")
	alice.response("INVITE", 180)
	other.answer(in2, 180, "Ringing")
	alice.response("INVITE", 180)
	other.answer(in2, 200, "OK", "Contact: "+other.bound(), "X-Answer: other")
	if res := alice.response("INVITE", 200); value(res, "X-Answer") != "other" {
		t.Errorf("the 200 is not the other device's:\n%s", res)
	}
	bob.answer(bob.incoming("CANCEL"), 200, "OK")
	bob.answer(in1, 487, "Request Terminated")
	bob.incoming("ACK")
}

func TestForkBestResponse(t *testing.T) {
	core := start(t, nil)
	for _, tt := range []struct{ first, second, want int }{
		{480, 486, 486}, {486, 480, 486}, {486, 600, 600}, {404, 503, 404}, {500, 486, 486},
		{430, 486, 486}, {503, 503, 500}, {401, 486, 401},
	} {
		alice, bob := pair(t, core)
		other := newPhone(t, "bob", "udp", core.udp)
		other.register()
		alice.request("MESSAGE", "sip:bob@"+domain)
		bob.answer(bob.incoming("MESSAGE"), tt.first, "First")
		other.answer(other.incoming("MESSAGE"), tt.second, "Second")
		alice.response("MESSAGE", tt.want)
		for _, p := range []*phone{bob, other} {
			p.registerWith(200, p.registerRows("*", "Expires: 0")...)
		}
	}
}

// A device with a second flow is tried by it when the first is gone (RFC 5626 §7).
func TestFlowFailed(t *testing.T) {
	core := start(t, nil)
	alice := newPhone(t, "alice", "udp", core.udp)
	first := outbound(newPhone(t, "bob", "udp", core.udp), "b")
	first.register()
	second := outbound(newPhone(t, "bob", "udp", core.udp), "b")
	second.params = strings.Replace(second.params, "reg-id=1", "reg-id=2", 1)
	second.register()

	alice.request("MESSAGE", "sip:bob@"+domain)
	second.answer(second.incoming("MESSAGE"), 430, "Flow Failed")
	first.answer(first.incoming("MESSAGE"), 200, "OK")
	alice.response("MESSAGE", 200)
	if got := core.Bindings(); len(got) != 1 || got[0].RegID != 1 {
		t.Errorf("Bindings = %+v, want the first flow alone", got)
	}
	alice.request("MESSAGE", "sip:bob@"+domain)
	first.answer(first.incoming("MESSAGE"), 430, "Flow Failed")
	alice.response("MESSAGE", 480)
}

// A request is sent over TCP where Path says so, to the address that it names.
func TestPathOverTCP(t *testing.T) {
	core := start(t, nil)
	alice, bob := newPhone(t, "alice", "udp", core.udp), newPhone(t, "bob", "tcp", core.tcp)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	bob.path = "<sip:flow@" + l.Addr().String() + ";transport=tcp;lr;ob>"
	bob.register()
	for range 2 { // the second reuses the connection
		alice.request("MESSAGE", "sip:bob@"+domain)
		if bob.conn.LocalAddr().String() != l.Addr().String() {
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			bob.conn = conn
		}
		req := bob.incoming("MESSAGE")
		if got := req.Via().Transport; got != "TCP" {
			t.Errorf("Via transport = %s, want TCP", got)
		}
		bob.answer(req, 200, "OK")
		alice.response("MESSAGE", 200)
	}
}

// Many requests at once to one TCP next hop: whatever connections that makes, the core
// closes them all, which goleak and the end of Serve show.
func TestConcurrentDials(t *testing.T) {
	core := start(t, nil)
	bob := newPhone(t, "bob", "udp", core.udp)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	bob.path = "<sip:flow@" + l.Addr().String() + ";transport=tcp;lr;ob>"
	bob.register()
	for range 8 {
		newPhone(t, "alice", "udp", core.udp).request("MESSAGE", "sip:bob@"+domain)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
}

func TestIPv6(t *testing.T) {
	udp, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	core := serve(t, Config{Domain: domain, Users: users()}, udp, nil)
	addr := udp.LocalAddr().String()
	alice, bob := newPhone(t, "alice", "udp", addr), newPhone(t, "bob", "udp", addr)
	if got, want := value(bob.register(), "Service-Route"), "<sip:orig@"+addr+";lr>"; got != want {
		t.Errorf("Service-Route = %q, want %q", got, want)
	}
	alice.request("MESSAGE", "sip:bob@"+domain, "Route: <sip:orig@"+addr+";lr>")
	bob.answer(bob.incoming("MESSAGE"), 200, "OK")
	alice.response("MESSAGE", 200)
	if n := len(core.Bindings()); n != 1 {
		t.Errorf("Bindings: %d, want 1", n)
	}
}

func TestRetransmission(t *testing.T) {
	core := start(t, nil)
	alice, bob := pair(t, core)
	alice.cseq++
	text := alice.text("MESSAGE", "sip:bob@"+domain, "z9hG4bKtwice")
	alice.send(text)
	req := bob.incoming("MESSAGE")
	bob.answer(req, 200, "OK")
	alice.response("MESSAGE", 200)
	alice.send(text)
	alice.response("MESSAGE", 200)
	if m, err := bob.readWithin(50 * time.Millisecond); err == nil {
		t.Errorf("a retransmission was forwarded:\n%s", m)
	}
}

func TestServe(t *testing.T) {
	core, err := New(Config{Domain: domain, Users: map[string]turncred.Secret{"alice": turncred.NewSecret([]byte("x"))}})
	if err != nil {
		t.Fatal(err)
	}
	if err := core.Serve(t.Context(), nil, nil); err == nil {
		t.Error("Serve without sockets: no error")
	}
	wild, err := net.ListenPacket("udp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = wild.Close() }()
	if err := core.Serve(t.Context(), wild, nil); err == nil || !strings.Contains(err.Error(), "Host") {
		t.Errorf("a socket on 0.0.0.0 without Host: %v, want an error that names Host", err)
	}
	if err := core.Serve(t.Context(), wild, nil); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a second Serve: %v, want an error", err)
	}
}
