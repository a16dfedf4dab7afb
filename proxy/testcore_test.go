package proxy

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// testCore is a core whose answers a test decides, at one address by UDP, TCP and TLS.
type testCore struct {
	t    *testing.T
	addr netip.AddrPort
	// answer is called for each request but ACK; nil: silence.
	answer atomic.Pointer[func(req *sip.Request, transport string) *sip.Response]
	seen   chan seenRequest

	mu      sync.Mutex // guards what follows
	sockets []interface{ Close() error }
	conns   []net.Conn
	work    sync.WaitGroup
}

type seenRequest struct {
	*sip.Request
	transport string
	conn      net.Conn // nil by UDP
}

// ok answers everything with 200, a REGISTER with its contact.
func ok(req *sip.Request, _ string) *sip.Response { return answerOf(req, 200) }

func silence(*sip.Request, string) *sip.Response { return nil }

func answerOf(req *sip.Request, status int, extra ...sip.Header) *sip.Response {
	if c := first(req, "Contact"); c != "" && status == 200 {
		extra = append(extra, sip.NewHeader("Contact", c+";expires=600"))
	}
	return newReply(req).response(status, "Reason", extra...)
}

// startTestCore listens at address, such as 127.0.0.1:0; transports are udp, tcp and tls.
func startTestCore(t *testing.T, address string, cfg *tls.Config, transports ...string) *testCore {
	t.Helper()
	c := &testCore{t: t, seen: make(chan seenRequest, 4096)}
	c.set(ok)
	if len(transports) > 1 && address == "127.0.0.1:0" { // one port for both
		pc, ln := socketPair(t)
		address = pc.LocalAddr().String()
		_, _ = pc.Close(), ln.Close()
	}
	for _, transport := range transports {
		if transport == "udp" {
			pc, err := net.ListenPacket("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			c.addr, c.sockets = addrOf(pc.LocalAddr()), append(c.sockets, pc)
			c.work.Go(func() { c.readUDP(pc) })
			continue
		}
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.addr, c.sockets = addrOf(ln.Addr()), append(c.sockets, ln)
		if transport == "tls" {
			ln = tls.NewListener(ln, cfg)
		}
		c.work.Go(func() { c.accept(ln, transport) })
	}
	t.Cleanup(c.kill)
	return c
}

func (c *testCore) set(f func(*sip.Request, string) *sip.Response) { c.answer.Store(&f) }

// kill closes everything, as the end of a process does.
func (c *testCore) kill() {
	c.mu.Lock()
	for _, s := range c.sockets {
		_ = s.Close()
	}
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.sockets, c.conns = nil, nil
	c.mu.Unlock()
	c.work.Wait()
}

// at returns the address as a next hop.
func (c *testCore) at(transport string) NextHop { return NextHop{transport, c.addr.String()} }

func (c *testCore) readUDP(pc net.PacketConn) {
	buf := make([]byte, 65535)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if res := c.take(append([]byte(nil), buf[:n]...), "udp", nil); res != nil {
			_, _ = pc.WriteTo(res, from)
		}
	}
}

func (c *testCore) accept(ln net.Listener, transport string) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
		c.work.Go(func() {
			defer func() { _ = conn.Close() }()
			for r := bufio.NewReader(conn); ; {
				msg, err := readFramed(r, func() {})
				if err != nil {
					return
				}
				if res := c.take(msg, transport, conn); res != nil {
					_, _ = conn.Write(res)
				}
			}
		})
	}
}

func (c *testCore) take(data []byte, transport string, conn net.Conn) []byte {
	m, err := sip.ParseMessage(data)
	req, isRequest := m.(*sip.Request)
	if err != nil || !isRequest {
		return nil
	}
	select {
	case c.seen <- seenRequest{req, transport, conn}:
	default:
	}
	if req.IsAck() {
		return nil
	}
	if res := (*c.answer.Load())(req, transport); res != nil {
		return encode(res)
	}
	return nil
}

// request returns the next request of that method.
func (c *testCore) request(method sip.RequestMethod) seenRequest {
	c.t.Helper()
	var got seenRequest
	eventually(c.t, string(method)+" at the core", func() bool {
		for {
			select {
			case got = <-c.seen:
				if got.Method == method {
					return true
				}
			default:
				return false
			}
		}
	})
	return got
}

// sawNone reports whether no request of that method has come.
func (c *testCore) sawNone(method sip.RequestMethod) bool {
	for {
		select {
		case got := <-c.seen:
			if got.Method == method {
				return false
			}
		default:
			return true
		}
	}
}
