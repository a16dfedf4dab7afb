package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/internal/realpart"
	"epcscf/sipext"
)

// stub is a core of one UDP socket, for what a sound core never does.
type stub struct {
	t    *testing.T
	conn net.PacketConn
	in   chan sip.Message
}

func startStub(t *testing.T) (*stub, netip.AddrPort) {
	t.Helper()
	s := &stub{t: t, conn: udpSocket(t), in: make(chan sip.Message, 64)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, _, err := s.conn.ReadFrom(buf)
			if err != nil {
				return
			}
			m, err := sip.ParseMessage(buf[:n])
			if err != nil {
				t.Errorf("the core got what does not parse: %v\n%s", err, buf[:n])
				continue
			}
			select {
			case s.in <- m:
			default: // retransmissions that the test does not read
			}
		}
	}()
	t.Cleanup(func() { _ = s.conn.Close(); <-done })
	return s, addrOf(s.conn.LocalAddr())
}

func (s *stub) send(edge netip.AddrPort, data []byte) {
	s.t.Helper()
	if _, err := s.conn.WriteTo(data, net.UDPAddrFromAddrPort(edge)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stub) next() sip.Message {
	s.t.Helper()
	select {
	case m := <-s.in:
		return m
	case <-time.After(patience):
		s.t.Fatal("nothing came to the core")
		return nil
	}
}

func (s *stub) request(method sip.RequestMethod) *sip.Request {
	s.t.Helper()
	for {
		if req, ok := s.next().(*sip.Request); ok && req.Method == method {
			return req
		}
	}
}

// response returns the next response of that status.
func (s *stub) response(status int) *sip.Response {
	s.t.Helper()
	for {
		if res, ok := s.next().(*sip.Response); ok && res.StatusCode == status {
			return res
		}
	}
}

func (s *stub) respond(edge netip.AddrPort, req *sip.Request, code int, extra ...string) {
	s.t.Helper()
	res := newReply(req).response(code, "Reason")
	for _, e := range extra {
		name, value, _ := strings.Cut(e, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	s.send(edge, encode(res))
}

// accept answers the next REGISTER with 200 and returns it.
func (s *stub) accept(edge netip.AddrPort, extra ...string) *sip.Request {
	s.t.Helper()
	req := s.request(sip.REGISTER)
	s.respond(edge, req, 200, append([]string{
		"Contact: " + first(req, "Contact") + ";expires=600",
		"Service-Route: <sip:orig@scscf.ims.test;lr>", "Service-Route: <sip:second.ims.test;lr>",
		"P-Associated-URI: <sip:alice@ims.test>, <tel:+15551234>",
	}, extra...)...)
	return req
}

// ask writes a request of the core.
func (s *stub) ask(method, uri string, rows ...string) []byte {
	return []byte(lines(append([]string{
		method + " " + uri + " SIP/2.0",
		"Via: SIP/2.0/UDP " + s.conn.LocalAddr().String() + ";branch=" + newBranch(),
		"From: <sip:x@ims.test>;tag=1", "To: <" + uri + ">", "Call-ID: " + newTag(), "CSeq: 1 " + method,
		"Max-Forwards: 70", "Content-Length: 0",
	}, rows...)...))
}

func registered(t *testing.T, change func(*Config), extra ...string) (*rig, *stub, *wic, *sip.Request) {
	t.Helper()
	core, addr := startStub(t)
	r := newRig(t, addr, change)
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, append([]string{"To: <" + w.aor() + ">"}, extra...)...))
	req := core.accept(r.edge)
	if res := w.response(sip.REGISTER); res.StatusCode != 200 {
		t.Fatalf("REGISTER got %d", res.StatusCode)
	}
	return r, core, w, req
}

func TestRegisterTowardCore(t *testing.T) {
	r, _, _, req := registered(t, nil, "Path: <sip:evil.example;lr>", "P-Charging-Vector: icid-value=mine",
		"Route: <sip:127.0.0.1:8443;transport=ws;lr>",
		`Authorization: Digest username="alice@ims.test", integrity-protected="yes", response=""`)
	path := elements(req, "Path")
	if len(path) != 1 || !strings.Contains(path[0], "@"+r.edge.String()+";lr;ob>") {
		t.Errorf("Path = %q, want ours alone", path)
	}
	for name, want := range map[string]string{
		"Require": "path", "P-Visited-Network-ID": testDomain, "Max-Forwards": "69", "Route": "",
		"Authorization": `Digest username="alice@ims.test", response=""`,
	} {
		if got := first(req, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if v := first(req, "P-Charging-Vector"); strings.Contains(v, "mine") || !strings.Contains(v, "icid-value=") {
		t.Errorf("P-Charging-Vector = %q, want a fresh one", v)
	}
}

func TestChallengePassesWithoutKeys(t *testing.T) {
	core, addr := startStub(t)
	r := newRig(t, addr, nil)
	w := r.dial("alice")
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", askHeader))
	core.respond(r.edge, core.request(sip.REGISTER), 401,
		`WWW-Authenticate: Digest realm="ims.test", nonce="a,b", ck="00", IK = "11", algorithm=MD5`,
		sipext.TurnCredHeader+": evil:1:aaaa", "P-Charging-Function-Addresses: ccf=x")
	res := w.response(sip.REGISTER)
	if got, want := first(res, "WWW-Authenticate"), `Digest realm="ims.test", nonce="a,b", algorithm=MD5`; got != want {
		t.Errorf("WWW-Authenticate = %q, want %q", got, want)
	}
	for _, name := range []string{sipext.TurnCredHeader, "P-Charging-Function-Addresses"} {
		if got := first(res, name); got != "" {
			t.Errorf("%s = %q reached the WIC", name, got)
		}
	}
}

// TestUnauthorizedGetsNoCredential: the core let the REGISTER in without Authorization.
func TestUnauthorizedGetsNoCredential(t *testing.T) {
	for _, allow := range []bool{false, true} {
		core, addr := startStub(t)
		r := newRig(t, addr, func(c *Config) { c.Provisioner, c.AllowUnauthorized = sharedKey(t, &relayStub{}), allow })
		w := r.dial("alice")
		w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", askHeader))
		core.accept(r.edge)
		c := w.credential(w.response(sip.REGISTER))
		if got := c.Kind == sipext.KindCredential; got != allow {
			t.Errorf("AllowUnauthorized %v: got %v", allow, c)
		}
	}
}

func TestInitialRequestTowardCore(t *testing.T) {
	_, core, w, _ := registered(t, nil)
	w.send(w.request("SUBSCRIBE", "sip:bob@ims.test", "Event: presence", "Route: <sip:evil.example;lr>",
		"P-Asserted-Identity: <sip:president@ims.test>", "p-asserted-IDENTITY : <sip:president@ims.test>",
		"P-Preferred-Identity: <tel:+15551234>", "From: <sip:anonymous@anonymous.invalid>;tag=1"))
	req := core.request(sip.SUBSCRIBE)
	if got := elements(req, "Route"); len(got) != 2 || got[0] != "<sip:orig@scscf.ims.test;lr>" {
		t.Errorf("Route = %q, want the stored Service-Route", got)
	}
	if got := elements(req, "P-Asserted-Identity"); len(got) != 1 || got[0] != "<tel:+15551234>" {
		t.Errorf("P-Asserted-Identity = %q, want the preferred one of the implicit set", got)
	}
	if got := elements(req, "Record-Route"); len(got) != 2 || strings.Contains(got[0], "transport=ws") || !strings.Contains(got[1], "transport=ws") {
		t.Errorf("Record-Route = %q, want the core's side over the WIC's", got)
	}
	if got := first(req, "Content-Length"); got != "0" {
		t.Errorf("Content-Length = %q, want it computed", got)
	}
}

func TestRequestsTowardWIC(t *testing.T) {
	r, core, w, reg := registered(t, nil)
	path := elements(reg, "Path")[0]
	forged := strings.Replace(path, "sip:", "sip:A", 1)
	gone := strings.Replace(path, string(tokenOf(t, path)), string(r.proxy.tokens.seal(99)), 1)
	for _, tt := range []struct {
		name string
		rows []string
		want int
	}{
		{"no token", nil, 404},
		{"forged token", []string{"Route: " + forged}, 403},
		{"flow gone", []string{"Route: " + gone}, 430},
		{"no hops left", []string{"Route: " + path, "Max-Forwards:"}, 483},
	} {
		msg := string(core.ask("MESSAGE", w.contact(), tt.rows...))
		if tt.want == 483 {
			msg = strings.Replace(strings.Replace(msg, "Max-Forwards: 70", "Max-Forwards: 0", 1), "Max-Forwards:\r\n", "", 1)
		}
		core.send(r.edge, []byte(msg))
		core.response(tt.want)
	}

	core.send(r.edge, core.ask("INVITE", w.contact(), "Route: "+path, "P-Charging-Vector: icid-value=x",
		"P-Asserted-Identity: <sip:x@ims.test>", "Privacy: id", sipext.TurnCredHeader+": evil:1:aaaa",
		"K: outbound,"+sipext.OptionTag))
	inv := w.incoming(sip.INVITE)
	for _, name := range []string{"P-Charging-Vector", "P-Asserted-Identity", sipext.TurnCredHeader, "Route"} {
		if got := first(inv, name); got != "" {
			t.Errorf("%s = %q reached the WIC", name, got)
		}
	}
	if got := first(inv, "Supported"); got != "outbound" {
		t.Errorf("Supported = %q, want outbound", got)
	}
	if got := elements(inv, "Record-Route"); len(got) != 2 || !strings.Contains(got[0], "transport=ws") {
		t.Errorf("Record-Route = %q, want the WIC's side over the core's", got)
	}
	w.respond(inv, 486, "Busy Here", "P-Asserted-Identity: <sip:president@ims.test>", sipext.TurnCredHeader+": request")
	res := core.response(486)
	for _, name := range []string{"P-Asserted-Identity", sipext.TurnCredHeader} {
		if got := first(res, name); got != "" {
			t.Errorf("%s = %q reached the core", name, got)
		}
	}

	core.send(r.edge, core.ask("OPTIONS", "sip:"+r.edge.String()))
	core.response(200)
}

func tokenOf(t *testing.T, path string) FlowToken {
	t.Helper()
	u, ok := parseURI(path)
	if !ok {
		t.Fatalf("no URI in %q", path)
	}
	return FlowToken(u.User)
}

// TestResponsesGoToTheirFlow: equal branches on two flows, and strays.
func TestResponsesGoToTheirFlow(t *testing.T) {
	r, core, alice, reg := registered(t, nil)
	bob := r.dial("bob")
	bob.send(bob.request("REGISTER", "sip:"+testDomain, "To: <"+bob.aor()+">"))
	core.accept(r.edge)
	bob.response(sip.REGISTER)

	core.send(r.edge, core.ask("MESSAGE", alice.contact(), "Route: "+elements(reg, "Path")[0]))
	msg := alice.incoming(sip.MESSAGE)
	bob.respond(msg, 200, "OK") // bob has guessed the branch
	eventually(t, "bob's answer dropped", func() bool { return r.metric("epcscf_sip_dropped_total", "reason="+dropStray) == 1 })
	alice.respond(msg, 202, "Accepted")
	core.response(202)

	// A final response with our Via, for no request, goes nowhere.
	core.send(r.edge, []byte(lines("SIP/2.0 200 OK", "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKx",
		"From: <sip:a@b>;tag=1", "To: <sip:a@b>;tag=2", "Call-ID: 1", "CSeq: 1 MESSAGE", "Content-Length: 0")))
	eventually(t, "the stray dropped", func() bool { return r.metric("epcscf_sip_dropped_total", "reason="+dropStray) == 2 })
}

func TestLargeRequestByUDP(t *testing.T) {
	_, core, w, _ := registered(t, nil)
	body := strings.Repeat("x", 20_000)
	w.send(w.request("MESSAGE", "sip:bob@ims.test", "Content-Type: text/plain", "\n"+body))
	if got := len(core.request(sip.MESSAGE).Body()); got != len(body) {
		t.Errorf("the core got %d octets, want %d", got, len(body))
	}
}

func TestCoreByTCP(t *testing.T) {
	core := startMinicore(t, nil)
	r := newRig(t, core, func(c *Config) { c.NextHops = []NextHop{{"tcp", core.String()}} })
	alice, bob := r.dial("alice"), r.dial("bob")
	alice.mustRegister()
	bob.mustRegister()
	alice.send(alice.request("MESSAGE", bob.aor(), "Content-Type: text/plain", "\nhello"))
	bob.respond(bob.incoming(sip.MESSAGE), 200, "OK")
	if res := alice.response(sip.MESSAGE); res.StatusCode != 200 {
		t.Errorf("MESSAGE got %d, want 200", res.StatusCode)
	}
}

func TestCoreUnreachable(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := addrOf(l.Addr())
	_ = l.Close()
	r := newRig(t, addr, func(c *Config) { c.NextHops = []NextHop{{"tcp", addr.String()}} })
	w := r.dial("alice")
	if res := w.register(600); res.StatusCode != 504 {
		t.Errorf("REGISTER without a core got %d, want 504", res.StatusCode)
	}
}

func TestFlowLostWhileCoreWaits(t *testing.T) {
	r, core, w, reg := registered(t, nil)
	core.send(r.edge, core.ask("INVITE", w.contact(), "Route: "+elements(reg, "Path")[0]))
	w.incoming(sip.INVITE)
	_ = w.ws.Close()
	core.response(430)
}

// TestLate2xx: a retransmitted 2xx and that of another fork reach the caller, whose ACKs
// end them (RFC 6026 §7.2).
func TestLate2xx(t *testing.T) {
	r, core, w, _ := registered(t, nil)
	w.send(w.request("INVITE", "sip:bob@ims.test"))
	inv := core.request(sip.INVITE)
	contact := "Contact: <sip:bob@192.0.2.1>"
	core.respond(r.edge, inv, 200, contact)
	first := w.status(200)
	core.respond(r.edge, inv, 200, contact) // newReply tags each anew: a fork
	second := w.status(200)
	if toTag(first) == toTag(second) {
		t.Fatalf("the stub sent one tag twice: %s", toTag(first))
	}
	for _, ok := range []*sip.Response{first, second} {
		w.send(w.request("ACK", "sip:bob@192.0.2.1", "To: "+ok.To().Value(), "CSeq: 1 ACK"))
		if got := toTag(core.request(sip.ACK)); got != toTag(ok) {
			t.Errorf("the core got an ACK with tag %s, want %s", got, toTag(ok))
		}
	}
}

// TestCancelWaitsForProvisional: RFC 3261 §9.1.
func TestCancelWaitsForProvisional(t *testing.T) {
	r, core, w, _ := registered(t, nil)
	invite := w.request("INVITE", "sip:bob@ims.test")
	w.send(invite)
	inv := core.request(sip.INVITE)
	w.send(strings.Replace(strings.ReplaceAll(invite, "INVITE", "CANCEL"), "Max-Forwards", "Reason: SIP;cause=200\r\nMax-Forwards", 1))
	w.response(sip.CANCEL)
	core.respond(r.edge, inv, 180)
	cancel := core.request(sip.CANCEL)
	if cancel.Via().Value() != inv.Via().Value() || len(sipext.Rows(cancel, "Via")) != 1 || first(cancel, "Reason") != "SIP;cause=200" {
		t.Errorf("CANCEL does not match its INVITE:\n%s", cancel)
	}
	core.respond(r.edge, cancel, 200)
	core.respond(r.edge, inv, 487)
	w.status(487)
}

// TestTimerC: an INVITE that rings too long is canceled (RFC 3261 §16.8).
func TestTimerC(t *testing.T) {
	r, core, w, _ := registered(t, func(c *Config) { c.Limits.TimerC = 50 * time.Millisecond })
	w.send(w.request("INVITE", "sip:bob@ims.test"))
	inv := core.request(sip.INVITE)
	core.respond(r.edge, inv, 180)
	core.respond(r.edge, core.request(sip.CANCEL), 200)
	core.respond(r.edge, inv, 487)
	w.status(487)
}

// TestNoSecretInLogs: passwords, tokens and Authorization at debug level.
func TestNoSecretInLogs(t *testing.T) {
	var log realpart.Output
	r := newRig(t, startMinicore(t, nil), func(c *Config) {
		c.Provisioner = sharedKey(t, &relayStub{})
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w := r.dial("alice")
	cred := w.credential(w.mustRegister(askHeader))
	w.send(w.request("MESSAGE", "sip:bob@ims.test", "Subject: a\nb"))
	w.response(sip.MESSAGE)
	f := r.proxy.flows.all()[0]
	for what, secret := range map[string]string{
		"TURN password": cred.Tpwd, "flow token": string(f.token), "digest response": "response=", "SIP password": "alice-password",
	} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s stands in the log:\n%s", what, log.String())
		}
	}
}

func TestServeCoreEndsWithContext(t *testing.T) {
	p, err := New(Config{
		Domain: testDomain, CoreAddr: netip.MustParseAddrPort("127.0.0.1:5060"),
		NextHops: []NextHop{{"udp", "127.0.0.1:1"}}, AllowNoOrigin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.ServeCore(ctx, udpSocket(t), nil) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ServeCore = %v, want nil", err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
