package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
	"github.com/icholy/digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"epcscf/proxy/minicore"
	"epcscf/sipext"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

const (
	testDomain = "ims.test"
	testOrigin = "https://wic.example"
	patience   = 30 * time.Second // on a busy machine, with the race detector
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an edge with its sockets, before a core.
type rig struct {
	t     *testing.T
	proxy *Proxy
	url   string
	reg   *prometheus.Registry
	core  netip.AddrPort // the core's address
	edge  netip.AddrPort // ours, as the core knows it
}

func udpSocket(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// socketPair opens UDP and TCP on one port: the kernel's choice for the one may be taken
// for the other.
func socketPair(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 50 {
		udp := udpSocket(t)
		tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		_ = udp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func addrOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// newRig starts an edge before the core that listens at core; change may edit the config.
func newRig(t *testing.T, core netip.AddrPort, change func(*Config)) *rig {
	t.Helper()
	udp, tcp := socketPair(t)
	return newRigOn(t, udp, tcp, core, change)
}

// newRigOn is newRig with the edge's sockets toward the core.
func newRigOn(t *testing.T, udp net.PacketConn, tcp net.Listener, core netip.AddrPort, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, reg: prometheus.NewRegistry(), core: core, edge: addrOf(udp.LocalAddr())}
	cfg := Config{
		Domain: testDomain, CoreAddr: r.edge, NextHops: []NextHop{{"udp", core.String()}},
		Origins: []string{testOrigin}, Metrics: r.reg,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.proxy, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.proxy.ServeCore(ctx, udp, tcp) }()
	eventually(t, "the core's sockets served", func() bool {
		r.proxy.core.mu.Lock()
		defer r.proxy.core.mu.Unlock()
		return r.proxy.core.udp != nil
	})
	srv := httptest.NewTLSServer(r.proxy)
	r.url = "wss" + strings.TrimPrefix(srv.URL, "https")
	t.Cleanup(func() {
		if err := r.proxy.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("ServeCore: %v", err)
		}
		srv.Close()
	})
	return r
}

// metric returns a counter's or gauge's value; labels are name=value.
func (r *rig) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, fam := range families {
		if fam.GetName() != name {
			continue
		}
	metrics:
		for _, m := range fam.GetMetric() {
			for _, want := range labels {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName()+"="+l.GetValue() == want
				}
				if !found {
					continue metrics
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	r.t.Fatalf("no metric %s %v", name, labels)
	return 0
}

// eventually polls, since what a test waits for happens in other goroutines.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// startMinicore runs the miniature core for alice, bob and carol.
func startMinicore(t *testing.T, change func(*minicore.Config)) netip.AddrPort {
	t.Helper()
	_, addr := runMinicore(t, change)
	return addr
}

func runMinicore(t *testing.T, change func(*minicore.Config)) (*minicore.Core, netip.AddrPort) {
	t.Helper()
	cfg := minicore.Config{Domain: testDomain, Users: map[string]turncred.Secret{}, RecordRoute: true}
	for _, u := range []string{"alice", "bob", "carol"} {
		cfg.Users[u] = turncred.NewSecret([]byte(u + "-password"))
	}
	if change != nil {
		change(&cfg)
	}
	core, err := minicore.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp := socketPair(t)
	addr := addrOf(udp.LocalAddr())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- core.Serve(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("minicore: %v", err)
		}
	})
	return core, addr
}

// ending is how a WIC's connection ended.
type ending struct{ err error }

// wic is a client over a real WebSocket.
type wic struct {
	t        *testing.T
	user     string
	ws       *websocket.Conn
	instance string
	host     string // its .invalid name
	in       chan sip.Message
	passed   []*sip.Request // that nobody waited for yet
	frames   chan int       // kinds of the frames that SIP came in
	closed   chan ending
	pings    chan struct{}
	pongs    chan string
	mu       sync.Mutex // guards seq
	seq      int
	callID   string
	fromTag  string
}

func dialer() *websocket.Dialer {
	return &websocket.Dialer{
		Subprotocols:    []string{"sip"},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // httptest's own certificate
	}
}

func (r *rig) dial(user string) *wic {
	r.t.Helper()
	return r.dialBy(user, dialer())
}

func (r *rig) dialBy(user string, d *websocket.Dialer) *wic {
	r.t.Helper()
	ws, res, err := d.Dial(r.url, http.Header{"Origin": {testOrigin}})
	if err != nil {
		r.t.Fatalf("dial: %v (%v)", err, res)
	}
	w := &wic{
		t: r.t, user: user, ws: ws, instance: "<urn:uuid:00000000-0000-4000-8000-" + fmt.Sprintf("%012x", time.Now().UnixNano()&0xffffffffffff) + ">",
		host: user + "1.invalid", in: make(chan sip.Message, 64), frames: make(chan int, 64), closed: make(chan ending, 1), pings: make(chan struct{}, 100), pongs: make(chan string, 100),
		callID: newTag(), fromTag: newTag(),
	}
	pong := ws.PingHandler()
	ws.SetPingHandler(func(s string) error {
		select {
		case w.pings <- struct{}{}:
		default:
		}
		return pong(s)
	})
	ws.SetPongHandler(func(s string) error {
		select {
		case w.pongs <- s:
		default:
		}
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			kind, data, err := ws.ReadMessage()
			if err != nil {
				w.closed <- ending{err}
				return
			}
			if len(data) <= 4 {
				w.frames <- -len(data)
				continue
			}
			m, err := sip.ParseMessage(data)
			if err != nil && strings.HasPrefix(string(data), "SIP/2.0 400 Malformed CSeq") {
				m, err = asSent(data), nil // the bad CSeq comes back, as it must
			}
			if err != nil {
				w.t.Errorf("edge sent what does not parse: %v\n%s", err, data)
				continue
			}
			select {
			case w.frames <- kind:
			default: // few tests ask
			}
			w.in <- m
		}
	}()
	r.t.Cleanup(func() { _ = ws.Close(); <-done })
	return w
}

// asSent takes an answer's rows as they are.
func asSent(data []byte) *sip.Response {
	raw, _ := sipext.Scan(data, sipext.Limits{})
	res := sip.NewResponse(raw.Status, raw.Phrase)
	for _, f := range raw.Fields {
		if f.Name != "CSeq" {
			res.AppendHeader(sip.NewHeader(f.Name, f.Value))
		}
	}
	res.AppendHeader(&sip.CSeqHeader{})
	return res
}

func (w *wic) aor() string     { return "sip:" + w.user + "@" + testDomain }
func (w *wic) contact() string { return "sip:" + w.user + "@" + w.host + ";transport=ws" }

func (w *wic) send(text string) {
	w.t.Helper()
	if err := w.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		w.t.Fatalf("%s: send: %v", w.user, err)
	}
}

// lines joins with CRLF and ends the header.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

// request writes a request of this WIC; extra rows may repeat From, To and the like by
// naming them, and then replace the usual ones.
func (w *wic) request(method, uri string, extra ...string) string {
	w.mu.Lock()
	w.seq++
	seq := w.seq
	w.mu.Unlock()
	rows := []string{
		"Via: SIP/2.0/WSS " + w.host + ";branch=" + newBranch(),
		"Max-Forwards: 70",
		"From: <" + w.aor() + ">;tag=" + w.fromTag,
		"To: <" + uri + ">",
		"Call-ID: " + w.callID,
		fmt.Sprintf("CSeq: %d %s", seq, method),
		"Contact: <" + w.contact() + ">",
	}
	var out, body []string
	for _, row := range rows {
		name, _, _ := strings.Cut(row, ":")
		keep := true
		for _, e := range extra {
			keep = keep && !strings.HasPrefix(e, name+":")
		}
		if keep {
			out = append(out, row)
		}
	}
	for _, e := range extra {
		if b, ok := strings.CutPrefix(e, "\n"); ok {
			body = append(body, b)
			continue
		}
		if !strings.HasSuffix(e, ":") { // "Name:" leaves a row out
			out = append(out, e)
		}
	}
	return lines(append([]string{method + " " + uri + " SIP/2.0"}, out...)...) + strings.Join(body, "")
}

// next returns the next message that match takes. It drops responses that it passes over, and
// keeps requests for who waits for them: one may overtake the response to another.
func next[M sip.Message](w *wic, what string, match func(M) bool) M {
	w.t.Helper()
	for i, m := range w.passed {
		if got, ok := sip.Message(m).(M); ok && match(got) {
			w.passed = slices.Delete(w.passed, i, i+1)
			return got
		}
	}
	deadline := time.After(patience)
	for {
		select {
		case m := <-w.in:
			if got, ok := m.(M); ok && match(got) {
				return got
			}
			if req, ok := m.(*sip.Request); ok {
				w.passed = append(w.passed, req)
			}
		case <-deadline:
			w.t.Fatalf("%s: no %s in %v", w.user, what, patience)
		}
	}
}

// response waits for a final response to a method.
func (w *wic) response(method sip.RequestMethod) *sip.Response {
	w.t.Helper()
	return next(w, "final response to "+string(method), func(r *sip.Response) bool {
		return r.StatusCode >= 200 && r.CSeq().MethodName == method
	})
}

// status waits for a response with that status.
func (w *wic) status(code int) *sip.Response {
	w.t.Helper()
	return next(w, fmt.Sprint(code), func(r *sip.Response) bool { return r.StatusCode == code })
}

// incoming waits for a request.
func (w *wic) incoming(method sip.RequestMethod) *sip.Request {
	w.t.Helper()
	return next(w, string(method), func(r *sip.Request) bool { return r.Method == method })
}

// register registers with digest and returns the final response; extra goes into both
// REGISTERs.
func (w *wic) register(expires int, extra ...string) *sip.Response {
	w.t.Helper()
	rows := append([]string{
		"To: <" + w.aor() + ">", fmt.Sprintf("Expires: %d", expires), "Supported: path, outbound, gruu",
		"Contact: <" + w.contact() + ">;+sip.instance=\"" + w.instance + "\";reg-id=1",
	}, extra...)
	w.send(w.request("REGISTER", "sip:"+testDomain, rows...))
	res := w.response(sip.REGISTER)
	if res.StatusCode != 401 {
		return res
	}
	w.send(w.request("REGISTER", "sip:"+testDomain, append(rows, w.authorization(res))...))
	return w.response(sip.REGISTER)
}

func (w *wic) authorization(res *sip.Response) string {
	w.t.Helper()
	chal, err := digest.ParseChallenge(first(res, "WWW-Authenticate"))
	if err != nil {
		w.t.Fatalf("challenge: %v", err)
	}
	cred, err := digest.Digest(chal, digest.Options{
		Method: "REGISTER", URI: "sip:" + testDomain, Username: w.user + "@" + testDomain, Password: w.user + "-password",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return "Authorization: " + cred.String()
}

// mustRegister registers and wants 200.
func (w *wic) mustRegister(extra ...string) *sip.Response {
	w.t.Helper()
	res := w.register(600, extra...)
	if res.StatusCode != 200 {
		w.t.Fatalf("%s: REGISTER got %d %s, want 200", w.user, res.StatusCode, res.Reason)
	}
	return res
}

// credential returns the header of a response.
func (w *wic) credential(res *sip.Response) sipext.TurnCred {
	w.t.Helper()
	c, ok, err := sipext.TurnCredOf(res)
	if err != nil || !ok {
		w.t.Fatalf("%s: no credential on %d: %v\n%s", w.user, res.StatusCode, err, res)
	}
	return c
}

// respond answers a request as a user agent does.
func (w *wic) respond(req *sip.Request, code int, reason string, extra ...string) *sip.Response {
	w.t.Helper()
	re := newReply(req)
	if code < 180 {
		re.tagged = true
	}
	re.tag = w.fromTag
	res := re.response(code, reason)
	for _, h := range sipext.Rows(req, "Record-Route") {
		res.AppendHeader(h)
	}
	res.AppendHeader(sip.NewHeader("Contact", "<"+w.contact()+">"))
	for _, e := range extra {
		name, value, _ := strings.Cut(e, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	w.send(string(encode(res)))
	return res
}

// relayStub is the relay as the edge knows it.
type relayStub struct {
	mu      sync.Mutex
	revoked []turncred.Revocation
}

func (s *relayStub) Revoke(ctx context.Context, r turncred.Revocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = append(s.revoked, r)
	return nil
}

func (s *relayStub) all() []turncred.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]turncred.Revocation(nil), s.revoked...)
}

var testSecret = turncred.NewSecret([]byte("0123456789abcdef0123456789abcdef"))

func newMinter(t *testing.T, relay turncred.Revoker) (*turncred.Minter, *turncred.TidCodec) {
	t.Helper()
	codec, err := turncred.NewTidCodec(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{
		Codec: codec, Realm: "turn.test", Revoker: relay,
		URIs: []string{"turns:127.0.0.1:5349?transport=tcp", "turn:127.0.0.1:3478?transport=udp"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, codec
}

// sharedKey returns an issuer of approach 1.
func sharedKey(t *testing.T, relay turncred.Revoker) turncred.Provisioner {
	t.Helper()
	m, _ := newMinter(t, relay)
	ring, err := turncred.NewKeyRing(turncred.Key{ID: "k1", Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	return sharedkey.NewIssuer(m, ring, sharedkey.HMACSHA1)
}

// pushed returns an issuer of approach 2 and its table.
func pushed(t *testing.T, relay turncred.Revoker) (turncred.Provisioner, *push.Table) {
	t.Helper()
	m, _ := newMinter(t, relay)
	table := push.NewTable("turn.test", nil)
	return push.NewIssuer(m, "k1", table), table
}
