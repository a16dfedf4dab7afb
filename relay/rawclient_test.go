package relay

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// rawClient speaks STUN by hand, so that it can be wrong on purpose.
type rawClient struct {
	t      testing.TB
	conn   net.Conn
	frames *frames // of a stream
	cred   turncred.Credential
	realm  string
	nonce  string
}

func newRawClient(t testing.TB, conn net.Conn, cred turncred.Credential) *rawClient {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	c := &rawClient{t: t, conn: conn, cred: cred}
	if conn.RemoteAddr().Network() != "udp" {
		c.frames = newFrames(conn)
	}
	return c
}

func (w *world) client(t testing.TB, network Transport, cred turncred.Credential) *rawClient {
	t.Helper()
	var conn net.Conn
	var err error
	switch network {
	case UDP:
		conn, err = net.Dial("udp4", w.udp.String())
	case TCP:
		conn, err = net.Dial("tcp4", w.tcp.String())
	case TLS:
		conn, err = tls.Dial("tcp4", w.tls.String(), &tls.Config{RootCAs: w.roots})
	}
	if err != nil {
		t.Fatal(err)
	}
	return newRawClient(t, conn, cred)
}

// build makes a message with the given attributes; sign adds the credential.
func build(method stun.Method, class stun.MessageClass, attrs ...stun.RawAttribute) *stun.Message {
	m := stun.New()
	m.Type = stun.NewType(method, class)
	m.TransactionID = stun.NewTransactionID()
	m.WriteHeader()
	for _, a := range attrs {
		m.Add(a.Type, a.Value)
	}
	return m
}

func (c *rawClient) request(method stun.Method, attrs ...stun.RawAttribute) *stun.Message {
	return build(method, stun.ClassRequest, attrs...)
}

// sign adds USERNAME, REALM, NONCE and MESSAGE-INTEGRITY.
func (c *rawClient) sign(m *stun.Message) *stun.Message {
	c.t.Helper()
	c.identify(m)
	if err := c.key().AddTo(m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *rawClient) identify(m *stun.Message) {
	m.Add(stun.AttrUsername, []byte(c.cred.Username))
	m.Add(stun.AttrRealm, []byte(c.realm))
	m.Add(stun.AttrNonce, []byte(c.nonce))
}

func (c *rawClient) longTermKey() turncred.LongTermKey {
	return turncred.NewLongTermKey(c.cred.Username, turncred.Realm(c.realm), c.cred.Password)
}

func (c *rawClient) key() stun.MessageIntegrity {
	return stun.NewLongTermIntegrity(c.cred.Username, c.realm, string(c.cred.Password.Reveal()))
}

func (c *rawClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// receive returns the next message, or nil if none came within d.
func (c *rawClient) receive(d time.Duration) []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(d))
	if c.frames != nil {
		b, err := c.frames.next(longestFrame)
		return c.unless(b, err)
	}
	b := make([]byte, largeDatagram)
	n, err := c.conn.Read(b)
	return c.unless(b[:n:n], err)
}

func (c *rawClient) unless(b []byte, err error) []byte {
	c.t.Helper()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return b
}

// answerWait is long enough for a busy machine; an answer comes at once.
const answerWait = 5 * time.Second

// do sends m and returns its answer.
func (c *rawClient) do(m *stun.Message) *stun.Message {
	c.t.Helper()
	c.send(m.Raw)
	for {
		b := c.receive(answerWait)
		if b == nil {
			c.t.Fatalf("no answer to %s", m.Type)
		}
		if b[0] >= 4 {
			continue
		}
		res := &stun.Message{Raw: b}
		if err := res.Decode(); err != nil {
			c.t.Fatalf("answer: %v", err)
		}
		if res.TransactionID == m.TransactionID {
			return res
		}
	}
}

// challenge fetches realm and nonce.
func (c *rawClient) challenge() *stun.Message {
	c.t.Helper()
	res := c.do(c.request(stun.MethodAllocate, transportUDP))
	wantCode(c.t, res, stun.CodeUnauthorized)
	c.learn(res)
	return res
}

func (c *rawClient) learn(res *stun.Message) {
	realm, _ := res.Get(stun.AttrRealm)
	nonce, _ := res.Get(stun.AttrNonce)
	c.realm, c.nonce = string(realm), string(nonce)
}

// signed sends a signed request and checks that the answer is signed too.
func (c *rawClient) signed(method stun.Method, attrs ...stun.RawAttribute) *stun.Message {
	c.t.Helper()
	res := c.do(c.sign(c.request(method, attrs...)))
	if code := codeOf(res); code != stun.CodeUnauthorized && code != stun.CodeBadRequest {
		if err := c.key().Check(res); err != nil {
			c.t.Errorf("answer %s %d: %v", res.Type, code, err)
		}
	}
	return res
}

// allocate makes an allocation and returns its relayed address.
func (c *rawClient) allocate(attrs ...stun.RawAttribute) netip.AddrPort {
	c.t.Helper()
	c.challenge()
	res := c.signed(stun.MethodAllocate, append([]stun.RawAttribute{transportUDP}, attrs...)...)
	wantCode(c.t, res, 0)
	return c.relayed(res)
}

func (c *rawClient) relayed(res *stun.Message) netip.AddrPort {
	c.t.Helper()
	v, err := res.Get(stun.AttrXORRelayedAddress)
	if err != nil {
		c.t.Fatal("no XOR-RELAYED-ADDRESS")
	}
	a, ok := parseXORAddress(v, res.TransactionID)
	if !ok {
		c.t.Fatalf("XOR-RELAYED-ADDRESS %x", v)
	}
	return a
}

// peerRequest makes a request that names peers; XOR-PEER-ADDRESS of IPv6 needs the
// transaction id.
func (c *rawClient) peerRequest(method stun.Method, peers []netip.AddrPort, attrs ...stun.RawAttribute) *stun.Message {
	m := c.request(method)
	for _, p := range peers {
		m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p, m.TransactionID))
	}
	for _, a := range attrs {
		m.Add(a.Type, a.Value)
	}
	return c.sign(m)
}

func (c *rawClient) permit(peers ...netip.AddrPort) *stun.Message {
	c.t.Helper()
	return c.do(c.peerRequest(stun.MethodCreatePermission, peers))
}

func (c *rawClient) bind(number uint16, peer netip.AddrPort) *stun.Message {
	c.t.Helper()
	return c.do(c.peerRequest(stun.MethodChannelBind, []netip.AddrPort{peer}, channelNumber(number)))
}

// sendTo sends a Send indication.
func (c *rawClient) sendTo(peer netip.AddrPort, data string) {
	c.t.Helper()
	m := build(stun.MethodSend, stun.ClassIndication)
	m.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, peer, m.TransactionID))
	m.Add(stun.AttrData, []byte(data))
	c.send(m.Raw)
}

// sendChannel sends ChannelData, padded.
func (c *rawClient) sendChannel(number uint16, data string) {
	c.t.Helper()
	b := binary.BigEndian.AppendUint16(nil, number)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	c.send(b)
}

// wantData checks that the next message is a Data indication from peer.
func (c *rawClient) wantData(peer netip.AddrPort, data string) {
	c.t.Helper()
	b := c.receive(answerWait)
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil || m.Type != dataIndication {
		c.t.Fatalf("received %x, want a Data indication", b)
	}
	pv, _ := m.Get(stun.AttrXORPeerAddress)
	got, _ := parseXORAddress(pv, m.TransactionID)
	dv, _ := m.Get(stun.AttrData)
	if got != peer || string(dv) != data {
		c.t.Fatalf("Data from %s: %q, want from %s: %q", got, dv, peer, data)
	}
}

// wantChannel checks that the next message is ChannelData.
func (c *rawClient) wantChannel(number uint16, data string) {
	c.t.Helper()
	b := c.receive(answerWait)
	if len(b) < 4 || binary.BigEndian.Uint16(b) != number || string(b[4:4+int(binary.BigEndian.Uint16(b[2:]))]) != data {
		c.t.Fatalf("received %x, want channel %#x: %q", b, number, data)
	}
}

// wantSilence checks that nothing came: a Binding after it is answered first. It holds
// where the relay's own path keeps the order; a peer's datagram must have had time.
func (c *rawClient) wantSilence() {
	c.t.Helper()
	probe := build(stun.MethodBinding, stun.ClassRequest)
	c.send(probe.Raw)
	b := c.receive(answerWait)
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil || m.TransactionID != probe.TransactionID {
		c.t.Fatalf("received %x, want silence", b)
	}
}

// Attributes of requests.
var transportUDP = stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{protocolUDP, 0, 0, 0}}

func lifetime(d time.Duration) stun.RawAttribute {
	return stun.RawAttribute{Type: stun.AttrLifetime, Value: lifetimeValue(d)}
}

func channelNumber(n uint16) stun.RawAttribute {
	return stun.RawAttribute{Type: stun.AttrChannelNumber, Value: append(binary.BigEndian.AppendUint16(nil, n), 0, 0)}
}

func attr(t stun.AttrType, v ...byte) stun.RawAttribute { return stun.RawAttribute{Type: t, Value: v} }

// codeOf returns the error code of an answer, or 0 for success.
func codeOf(m *stun.Message) stun.ErrorCode {
	if m.Type.Class == stun.ClassSuccessResponse {
		return 0
	}
	var e stun.ErrorCodeAttribute
	if e.GetFrom(m) != nil {
		return -1
	}
	return e.Code
}

func wantCode(t testing.TB, m *stun.Message, want stun.ErrorCode) {
	t.Helper()
	if got := codeOf(m); got != want {
		t.Fatalf("%s: code %d, want %d", m.Type, got, want)
	}
}

// wantLifetime checks LIFETIME of an answer.
func wantLifetime(t testing.TB, m *stun.Message, want time.Duration) {
	t.Helper()
	v, _ := m.Get(stun.AttrLifetime)
	if got, ok := lifetimeOf(v); !ok || got != want {
		t.Fatalf("LIFETIME %v, want %v", got, want)
	}
}

// peer is a UDP socket outside the relay.
type peer struct {
	t    testing.TB
	conn *net.UDPConn
	addr netip.AddrPort
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	return newPeerAt(t, netip.AddrPortFrom(loopback, 0))
}

func newPeerAt(t testing.TB, at netip.AddrPort) *peer {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peer{t, c, addrPortOf(c.LocalAddr())}
}

func (p *peer) send(to netip.AddrPort, data string) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort([]byte(data), to); err != nil {
		p.t.Fatal(err)
	}
}

// want checks that the next datagram is data from from.
func (p *peer) want(from netip.AddrPort, data string) {
	p.t.Helper()
	b := make([]byte, largeDatagram)
	_ = p.conn.SetReadDeadline(time.Now().Add(answerWait))
	n, got, err := p.conn.ReadFromUDPAddrPort(b)
	if err != nil || unmapped(got) != from || string(b[:n]) != data {
		p.t.Fatalf("peer received %q from %s (%v), want %q from %s", b[:n], got, err, data, from)
	}
}

// wantNothing checks that no datagram has come; what was sent over loopback is there.
func (p *peer) wantNothing() {
	p.t.Helper()
	b := make([]byte, largeDatagram)
	_ = p.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, from, err := p.conn.ReadFromUDPAddrPort(b); err == nil {
		p.t.Fatalf("peer received %q from %s, want nothing", b[:n], from)
	}
}
