package minicore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"go.uber.org/goleak"

	"epcscf/sipext"
	"epcscf/turncred"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	domain   = "ims.test"
	deadline = 10 * time.Second
)

// clock is a time that tests turn.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

type running struct {
	*Core
	udp, tcp string
}

func users() map[string]turncred.Secret {
	all := map[string]turncred.Secret{}
	for _, u := range []string{"alice", "bob", "carol"} {
		all[u] = turncred.NewSecret([]byte(u + "-password"))
	}
	return all
}

// start runs a core with alice, bob and carol on loopback until the test ends.
func start(t *testing.T, change func(*Config)) running {
	t.Helper()
	cfg := Config{Domain: domain, Users: users()}
	if change != nil {
		change(&cfg)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return running{serve(t, cfg, udp, tcp), udp.LocalAddr().String(), tcp.Addr().String()}
}

func serve(t *testing.T, cfg Config, udp net.PacketConn, tcp net.Listener) *Core {
	t.Helper()
	core, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- core.Serve(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return core
}

// phone is an edge with one device behind it, in one: it writes raw SIP.
type phone struct {
	t        *testing.T
	user     string
	conn     net.Conn
	stream   *sip.ParserStream
	buf      []byte
	pending  []sip.Message
	tp       string
	callID   string
	cseq     int
	branches int
	path     string // Path of its REGISTERs
	contact  string // Contact of its REGISTERs, without parameters
	params   string // parameters of its Contact
}

var phones atomic.Int64

func newPhone(t *testing.T, user, network, core string) *phone {
	t.Helper()
	conn, err := net.Dial(network, core)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n := phones.Add(1)
	p := &phone{
		t: t, user: user, conn: conn, tp: strings.ToUpper(network), buf: make([]byte, 65535),
		callID:  fmt.Sprintf("call-%d", n),
		contact: fmt.Sprintf("sip:%s%d@d%d.invalid;transport=ws", user, n, n),
	}
	p.path = fmt.Sprintf("<sip:flow%d@%s;lr;ob>", n, conn.LocalAddr())
	if network == "tcp" {
		p.stream = sip.NewParser().NewSIPStream()
		p.path = ""
	}
	return p
}

// request sends a request; rows are further header rows, after an empty one the body.
func (p *phone) request(method, uri string, rows ...string) (branch string) {
	p.t.Helper()
	p.branches++
	p.cseq++
	branch = fmt.Sprintf("z9hG4bK-%s-%d", p.callID, p.branches)
	p.send(p.text(method, uri, branch, rows...))
	return branch
}

func (p *phone) text(method, uri, branch string, rows ...string) string {
	head := []string{
		method + " " + uri + " SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/%s %s;branch=%s;rport", p.tp, p.conn.LocalAddr(), branch),
		fmt.Sprintf("From: <sip:%s@%s>;tag=from-%s", p.user, domain, p.user),
		"Call-ID: " + p.callID,
		fmt.Sprintf("CSeq: %d %s", p.cseq, method),
	}
	all, body, _ := strings.Cut(strings.Join(append(head, rows...), "\r\n"), "\r\n\r\n")
	for name, row := range map[string]string{
		"\r\nTo:": "To: <" + uri + ">", "\r\nMax-Forwards:": "Max-Forwards: 70", "\r\nContent-Length:": "Content-Length: 0",
	} {
		if !strings.Contains(all, name) {
			all += "\r\n" + row
		}
	}
	return all + "\r\n\r\n" + body
}

func (p *phone) send(text string) {
	p.t.Helper()
	if _, err := p.conn.Write([]byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next message.
func (p *phone) read() sip.Message {
	p.t.Helper()
	m, err := p.readWithin(deadline)
	if err != nil {
		p.t.Fatalf("%s: read: %v", p.user, err)
	}
	return m
}

func (p *phone) readWithin(d time.Duration) (sip.Message, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(d))
	for len(p.pending) == 0 {
		n, err := p.conn.Read(p.buf)
		if err != nil {
			return nil, err
		}
		if p.stream != nil {
			err = p.stream.ParseSIPStream(p.buf[:n], func(m sip.Message) { p.pending = append(p.pending, m) })
			if err != nil && !errors.Is(err, sip.ErrParseSipPartial) {
				return nil, err
			}
			continue
		}
		m, err := sip.ParseMessage(append([]byte(nil), p.buf[:n]...))
		if err != nil {
			return nil, err
		}
		p.pending = append(p.pending, m)
	}
	m := p.pending[0]
	p.pending = p.pending[1:]
	return m, nil
}

// response returns the next response to method that is not a 100, and checks its code.
func (p *phone) response(method string, code int) *sip.Response {
	p.t.Helper()
	for {
		m := p.read()
		res, ok := m.(*sip.Response)
		if !ok || string(res.CSeq().MethodName) != method || res.StatusCode == 100 {
			continue
		}
		if res.StatusCode != code {
			p.t.Fatalf("%s: %s got %d %s, want %d", p.user, method, res.StatusCode, res.Reason, code)
		}
		return res
	}
}

// incoming returns the next request of a method.
func (p *phone) incoming(method string) *sip.Request {
	p.t.Helper()
	for {
		if req, ok := p.read().(*sip.Request); ok && string(req.Method) == method {
			return req
		}
	}
}

// answer responds to an incoming request.
func (p *phone) answer(req *sip.Request, code int, reason string, rows ...string) {
	p.t.Helper()
	res := sip.NewResponseFromRequest(req, code, reason, nil)
	if to := res.To(); code > 100 {
		to.Params.Add("tag", "to-"+p.callID)
	}
	for _, r := range rows {
		name, value, _ := strings.Cut(r, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	p.send(res.String())
}

func (p *phone) registerRows(contact string, more ...string) []string {
	rows := append([]string{"To: <sip:" + p.user + "@" + domain + ">", "Supported: path, outbound", "Require: path"}, more...)
	if contact != "" {
		rows = append(rows, "Contact: "+contact)
	}
	if p.path != "" {
		rows = append(rows, "Path: "+p.path)
	}
	return rows
}

func (p *phone) bound() string { return "<" + p.contact + ">" + p.params }

// challenge sends a REGISTER without credentials and returns the challenge for an algorithm.
func (p *phone) challenge(algorithm string, rows ...string) *digest.Challenge {
	p.t.Helper()
	p.request("REGISTER", "sip:"+domain, rows...)
	return challengeOf(p.t, p.response("REGISTER", 401), algorithm)
}

func challengeOf(t *testing.T, res *sip.Response, algorithm string) *digest.Challenge {
	t.Helper()
	for _, row := range res.GetHeaders("WWW-Authenticate") {
		ch, err := digest.ParseChallenge(row.Value())
		if err != nil {
			t.Fatal(err)
		}
		if ch.Algorithm == algorithm {
			return ch
		}
	}
	t.Fatalf("no challenge for %s", algorithm)
	return nil
}

// authorization answers a challenge.
func (p *phone) authorization(ch *digest.Challenge, username, password string, count int) string {
	p.t.Helper()
	cred, err := digest.Digest(ch, digest.Options{
		Method: "REGISTER", URI: "sip:" + domain, Username: username, Password: password, Count: count,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return "Authorization: " + cred.String()
}

// registerWith does the whole registration with given contact rows and returns the final response.
func (p *phone) registerWith(code int, rows ...string) *sip.Response {
	p.t.Helper()
	ch := p.challenge("MD5", rows...)
	p.request("REGISTER", "sip:"+domain, append(rows, p.authorization(ch, p.user, p.user+"-password", 1))...)
	return p.response("REGISTER", code)
}

func (p *phone) register() *sip.Response {
	p.t.Helper()
	return p.registerWith(200, p.registerRows(p.bound())...)
}

func value(m sipext.HeaderFields, name string) string { return headerValue(m, name) }

func expires(t *testing.T, res *sip.Response, contact string) int {
	t.Helper()
	for _, row := range res.GetHeaders("Contact") {
		if c := row.(*sip.ContactHeader); c.Address.String() == contact {
			v, _ := c.Params.Get("expires")
			n, err := strconv.Atoi(v)
			if err != nil {
				t.Fatalf("Contact %s: expires %q", contact, v)
			}
			return n
		}
	}
	t.Fatalf("200 has no Contact %s", contact)
	return 0
}
