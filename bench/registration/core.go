package main

import (
	"bytes"
	"net"
	"net/netip"
	"sync/atomic"
)

// core is the least that answers a REGISTER as an IMS core does: 200 at once, with Path and
// Contact as they came, a Service-Route and an implicit set of one identity.
type core struct {
	conn     *net.UDPConn
	requests atomic.Int64
	done     chan struct{}
}

func newCore() (*core, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil, err
	}
	// A storm must not overflow the stub: what is measured is the edge.
	_ = conn.SetReadBuffer(4 << 20)
	c := &core{conn: conn, done: make(chan struct{})}
	go c.serve()
	return c, nil
}

func (c *core) addr() string { return c.conn.LocalAddr().String() }

func (c *core) close() {
	_ = c.conn.Close()
	<-c.done
}

func (c *core) serve() {
	defer close(c.done)
	in, out := make([]byte, 1<<16), make([]byte, 0, 1<<16)
	for {
		n, from, err := c.conn.ReadFromUDPAddrPort(in)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(in[:n], []byte("REGISTER ")) {
			continue
		}
		c.requests.Add(1)
		out = answer(out[:0], in[:n])
		_, _ = c.conn.WriteToUDPAddrPort(out, from)
	}
}

// answer appends the 200 to a REGISTER.
func answer(out, req []byte) []byte {
	out = append(out, "SIP/2.0 200 OK\r\n"...)
	_, rest, _ := bytes.Cut(req, []byte("\r\n"))
	for {
		line, next, ok := bytes.Cut(rest, []byte("\r\n"))
		if !ok || len(line) == 0 {
			break
		}
		rest = next
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch string(bytes.ToLower(name)) {
		case "via", "v", "from", "f", "call-id", "i", "cseq", "path", "contact", "m":
			out = append(append(out, line...), "\r\n"...)
		case "to", "t":
			out = append(append(out, line...), ";tag=core\r\n"...)
			out = append(append(append(out, "P-Associated-URI:"...), value...), "\r\n"...)
		}
	}
	return append(out, "Service-Route: <sip:scscf."+domain+";lr>\r\nContent-Length: 0\r\n\r\n"...)
}
