package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// TestLongRequests: RFC 3261 §18.1.1.
func TestLongRequests(t *testing.T) {
	for _, tt := range []struct {
		clause     string
		transports []string
		size       int
		want       string
	}{
		{"up to 1,300 octets: UDP", []string{"udp", "tcp"}, 100, "udp"},
		{"longer: TCP", []string{"udp", "tcp"}, 1300, "tcp"},
		{"longer, TCP refused: UDP", []string{"udp"}, 1300, "udp"},
		{"what a UDP datagram holds, TCP refused: UDP", []string{"udp"}, 50_000, "udp"},
	} {
		t.Run(tt.clause, func(t *testing.T) {
			core := startTestCore(t, "127.0.0.1:0", nil, tt.transports...)
			r := newRig(t, core.addr, func(c *Config) { impatient(c, core.at("udp")) })
			w := r.dial("alice")
			w.enrol(t)
			path := first(core.request(sip.REGISTER).Request, "Path")
			if strings.Contains(path, "transport=") {
				t.Errorf("Path = %s, want UDP: the hop is", path)
			}
			for range 2 {
				w.send(w.request("MESSAGE", "sip:bob@ims.test", "Content-Type: text/plain", "\n"+strings.Repeat("x", tt.size)))
				if res := w.response(sip.MESSAGE); res.StatusCode != 200 {
					t.Fatalf("MESSAGE got %d", res.StatusCode)
				}
				got := core.request(sip.MESSAGE)
				if via := strings.ToLower(got.Via().Transport); got.transport != tt.want || via != tt.want || len(got.Body()) != tt.size {
					t.Errorf("%d octets by %s, Via %s, want %d by %s", len(got.Body()), got.transport, via, tt.size, tt.want)
				}
			}
		})
	}
}

// TestLongInvite: the CANCEL and the ACK of a long INVITE go its way (RFC 3261 §9.1, §17.1.1.3).
func TestLongInvite(t *testing.T) {
	core := startTestCore(t, "127.0.0.1:0", nil, "udp", "tcp")
	r := newRig(t, core.addr, func(c *Config) { impatient(c, core.at("udp")) })
	w := r.dial("alice")
	w.enrol(t)
	core.set(func(req *sip.Request, transport string) *sip.Response {
		if req.Method == sip.INVITE {
			return answerOf(req, 180)
		}
		return ok(req, transport)
	})
	invite := w.request("INVITE", "sip:bob@ims.test", "Content-Type: text/plain")
	w.send(invite + strings.Repeat("x", 2000))
	w.status(180)
	inv := core.request(sip.INVITE)
	w.send(strings.ReplaceAll(invite, "INVITE", "CANCEL"))
	if cancel := core.request(sip.CANCEL); cancel.conn != inv.conn || cancel.Via().Value() != inv.Via().Value() {
		t.Errorf("CANCEL by %s with %s, INVITE by %s with %s", cancel.transport, cancel.Via().Value(), inv.transport, inv.Via().Value())
	}
	_, _ = inv.conn.Write(encode(answerOf(inv.Request, 487)))
	if ack := core.request(sip.ACK); ack.conn != inv.conn {
		t.Errorf("ACK by %s, want the INVITE's connection", ack.transport)
	}
	w.status(487)
}

// TestConnectionReuse: RFC 3261 §18: one connection serves all, and another after its end.
func TestConnectionReuse(t *testing.T) {
	core := startTestCore(t, "127.0.0.1:0", nil, "tcp")
	r := newRig(t, core.addr, func(c *Config) { impatient(c, core.at("tcp")) })
	a, b := r.dial("alice"), r.dial("bob")
	a.enrol(t)
	b.enrol(t)
	reg := core.request(sip.REGISTER)
	if other := core.request(sip.REGISTER); other.conn != reg.conn {
		t.Error("two WICs, two connections")
	}
	if path := first(reg.Request, "Path"); !strings.Contains(path, ";transport=tcp;lr;ob>") {
		t.Errorf("Path = %s, want TCP (RFC 3327 §5.2)", path)
	}
	_ = reg.conn.Close()
	if res := a.enrol(t); res.StatusCode != 200 {
		t.Errorf("REGISTER after the connection's end got %d", res.StatusCode)
	}
}

// TestPathFollowsTheHop: Path and Record-Route name the transport of the hop in use.
func TestPathFollowsTheHop(t *testing.T) {
	udp, tcp := startTestCore(t, "127.0.0.1:0", nil, "udp"), startTestCore(t, "127.0.0.1:0", nil, "tcp")
	r := newRig(t, udp.addr, func(c *Config) { impatient(c, udp.at("udp"), tcp.at("tcp")) })
	udp.set(silence)
	w := r.dial("alice")
	w.enrol(t)
	for c, want := range map[*testCore]string{udp: "@" + r.edge.String() + ";lr;ob>", tcp: "@" + r.edge.String() + ";transport=tcp;lr;ob>"} {
		if path := first(c.request(sip.REGISTER).Request, "Path"); !strings.HasSuffix(path, want) {
			t.Errorf("Path = %s, want %s", path, want)
		}
	}
	w.send(w.request("SUBSCRIBE", "sip:bob@ims.test", "Event: presence"))
	rr := elements(tcp.request(sip.SUBSCRIBE).Request, "Record-Route")
	if len(rr) != 2 || rr[0] != "<sip:"+r.edge.String()+";transport=tcp;lr>" || !strings.Contains(rr[1], "transport=ws") {
		t.Errorf("Record-Route = %q, want TCP toward the core", rr)
	}
}

// TestIPv6Hop: RFC 5118 §4: addresses stand in brackets, by each transport.
func TestIPv6Hop(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			pc, err := net.ListenPacket("udp6", "[::1]:0")
			if err != nil {
				t.Skipf("no IPv6 here: %v", err)
			}
			core := startTestCore(t, "[::1]:0", nil, transport)
			r := newRigOn(t, pc, nil, core.addr, func(c *Config) { impatient(c, core.at(transport)) })
			w := r.dial("alice")
			if res := w.enrol(t); res.StatusCode != 200 {
				t.Fatalf("REGISTER got %d", res.StatusCode)
			}
			req := core.request(sip.REGISTER)
			if path := first(req.Request, "Path"); !strings.Contains(path, "@[::1]:"+strconv.Itoa(int(r.edge.Port()))) {
				t.Errorf("Path = %s", path)
			}
			if transport == "udp" {
				core.say(t, r, answerOf(req.Request, 200)) // a stray is no matter
			}
		})
	}
}

// TestWeights: RFC 2782: shares of WICs follow the weights, and a WIC keeps its hop.
func TestWeights(t *testing.T) {
	z := zone{}.a("a.ims.test", "127.0.0.1")
	weights := map[uint16]uint16{5001: 60, 5002: 30, 5003: 10, 5004: 0}
	for port, weight := range weights {
		z.srv("_sip._udp.ims.test", 1, weight, port, "a.ims.test")
	}
	z.srv("_sip._udp.ims.test", 2, 100, 5005, "a.ims.test")
	p := bareProxy(t, func(c *Config) {
		c.NextHops = []NextHop{{"udp", "ims.test"}, {"udp", "127.0.0.1:5006"}}
		c.Core.Nameservers = []netip.AddrPort{startDNS(t, z).addr}
	})
	eventually(t, "DNS asked", func() bool { up, _ := p.core.hops.wait(t.Context(), 0); return len(up) == 6 })
	const wics = 20_000
	firsts := map[uint16]int{}
	for key := range uint64(wics) {
		up, _ := p.core.hops.wait(t.Context(), key)
		if len(up) != 6 || up[4].addr.Port() != 5005 || up[5].addr.Port() != 5006 {
			t.Fatalf("order %v, want five of one domain, priority 2 last, then the second next hop", up)
		}
		firsts[up[0].addr.Port()]++
		if again, _ := p.core.hops.wait(t.Context(), key); again[0] != up[0] || again[3] != up[3] {
			t.Fatalf("WIC %d is sent elsewhere the next time", key)
		}
	}
	for port, weight := range weights {
		want := wics * float64(weight) / 100
		// Five standard deviations: the hash's seed is another each time.
		if got := float64(firsts[port]); math.Abs(got-want) > 5*math.Sqrt(want)+10 {
			t.Errorf("weight %d drew %v of %d, want about %v", weight, got, wics, want)
		}
	}
}

func bareProxy(t *testing.T, change func(*Config)) *Proxy {
	t.Helper()
	cfg := Config{Domain: testDomain, CoreAddr: mustAddr("127.0.0.1:5060"), NextHops: []NextHop{{"udp", "127.0.0.1:5070"}}, AllowNoOrigin: true}
	change(&cfg)
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestDNSChanges: what DNS says anew is used, what it drops is forgotten, and where it is
// silent the last answer holds.
func TestDNSChanges(t *testing.T) {
	at := func(ip string) zone { return zone{}.a("core.ims.test", ip) }
	dns := startDNS(t, at("192.0.2.1"))
	p := bareProxy(t, func(c *Config) {
		c.NextHops = []NextHop{{"udp", "core.ims.test:5060"}}
		c.Core.Nameservers, c.Core.Refresh = []netip.AddrPort{dns.addr}, time.Millisecond
	})
	is := func(want string) func() bool {
		return func() bool {
			up, _ := p.core.hops.wait(t.Context(), 0)
			return len(up) == 1 && up[0].addr.Addr().String() == want
		}
	}
	eventually(t, "the first address", is("192.0.2.1"))
	dns.set(at("192.0.2.2"), false)
	eventually(t, "the second address", is("192.0.2.2"))
	p.core.hops.mu.Lock()
	if n := len(p.core.hops.hops); n != 1 {
		t.Errorf("%d hops are remembered, want 1", n)
	}
	p.core.hops.mu.Unlock()
	dns.set(zone{}, false) // the name is gone: an operator's slip must not end the service
	for range 20 {
		if !is("192.0.2.2")() {
			t.Fatal("an answer without the name ended the service")
		}
	}
}

// testPKI makes certificates of one authority.
type testPKI struct {
	t    *testing.T
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newTestPKI(t *testing.T) *testPKI {
	t.Helper()
	p := &testPKI{t: t, pool: x509.NewCertPool()}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	p.ca, p.key = p.sign(ca)
	p.pool.AddCert(p.ca)
	return p
}

func (p *testPKI) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := p.ca, p.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		p.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return made, key
}

// config is a TLS configuration of one host of the authority, for both roles.
func (p *testPKI) config(name string) *tls.Config {
	p.t.Helper()
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	c, key := p.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, ExtKeyUsage: usage})
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: p.pool, ClientCAs: p.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: key}},
	}
}

// TestTLSHop: RFC 3261 §26.3.1, RFC 5922 §4: mutual, and the name is the domain asked for.
func TestTLSHop(t *testing.T) {
	pki, strangers := newTestPKI(t), newTestPKI(t)
	for _, tt := range []struct {
		clause, names string // in the core's certificate
		edge          *tls.Config
		want          int
	}{
		{"RFC 5922 §4: the domain, whatever SRV names", "ims.test", pki.config("edge.ims.test"), 200},
		{"RFC 5922 §4: the host that SRV names is not enough", "core.ims.test", pki.config("edge.ims.test"), 504},
		{"RFC 3261 §26.3.1: an edge whose certificate the core does not trust", "ims.test", func() *tls.Config {
			c := strangers.config("edge.ims.test")
			c.RootCAs = pki.pool
			return c
		}(), 504},
		{"RFC 3261 §26.3.1: a core whose certificate the edge does not trust", "ims.test", func() *tls.Config {
			c := pki.config("edge.ims.test")
			c.RootCAs = strangers.pool
			return c
		}(), 504},
	} {
		t.Run(tt.clause, func(t *testing.T) {
			core := startTestCore(t, "127.0.0.1:0", pki.config(tt.names), "tls")
			dns := startDNS(t, zone{}.a("core.ims.test", "127.0.0.1").
				naptr("ims.test", 1, 1, "s", "SIPS+D2T", "_sips._tcp.ims.test").srv("_sips._tcp.ims.test", 0, 0, core.addr.Port(), "core.ims.test"))
			r := newRig(t, core.addr, func(c *Config) {
				impatient(c, NextHop{"sip", "ims.test"})
				c.Core.TLS, c.Core.TLSPort, c.Core.Nameservers = tt.edge, 5999, []netip.AddrPort{dns.addr}
				c.Core.Failover, c.Core.Timeout = 2*time.Second, 2*time.Second
			})
			w := r.dial("alice")
			if res := w.enrol(t); res.StatusCode != tt.want {
				t.Fatalf("REGISTER got %d, want %d", res.StatusCode, tt.want)
			}
			if tt.want != 200 {
				return
			}
			req := core.request(sip.REGISTER)
			if path := first(req.Request, "Path"); !strings.HasSuffix(path, "@127.0.0.1:5999;transport=tls;lr;ob>") {
				t.Errorf("Path = %s, want our TLS port", path)
			}
			if v := req.Via(); v.Transport != "TLS" || v.Port != 5999 {
				t.Errorf("Via = %s, want TLS and our TLS port (RFC 3261 §18.2.2)", v.Value())
			}
		})
	}
}

// TestCoreComesByTLS: requests of the core by the TLS listener, and those of a stranger.
func TestCoreComesByTLS(t *testing.T) {
	pki, strangers := newTestPKI(t), newTestPKI(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core := startTestCore(t, "127.0.0.1:0", pki.config("ims.test"), "tls")
	r := newRig(t, core.addr, func(c *Config) {
		impatient(c, core.at("tls"))
		c.Core.TLS, c.Core.TLSPort = pki.config("edge.ims.test"), addrOf(ln.Addr()).Port()
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.proxy.ServeCoreTLS(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("ServeCoreTLS: %v", err)
		}
	})
	ask := func(cfg *tls.Config) error {
		cfg.ServerName = "edge.ims.test"
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(patience))
		uri := "sip:" + ln.Addr().String() + ";transport=tls"
		if _, err := conn.Write([]byte(lines("OPTIONS "+uri+" SIP/2.0", "Via: SIP/2.0/TLS 127.0.0.1:9;branch="+newBranch(),
			"From: <sip:x@ims.test>;tag=1", "To: <"+uri+">", "Call-ID: "+newTag(), "CSeq: 1 OPTIONS", "Max-Forwards: 70", "Content-Length: 0"))); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err == nil && !strings.HasPrefix(string(buf[:n]), "SIP/2.0 200") {
			return fmt.Errorf("answer %q", buf[:n])
		}
		return err
	}
	if err := ask(pki.config("core.ims.test")); err != nil {
		t.Errorf("the core: %v", err)
	}
	stranger := strangers.config("core.ims.test")
	stranger.RootCAs = pki.pool
	if err := ask(stranger); err == nil {
		t.Error("a stranger was answered")
	}
}
