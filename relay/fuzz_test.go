package relay

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// fuzzRelay is a relay without sockets, and one live allocation on it.
func fuzzRelay(t testing.TB) (*worker, FiveTuple, *rawClient) {
	t.Helper()
	cfg := Config{
		Realm: testRealm, RelayIP: loopback, AllowPeers: []netip.Prefix{loopbackP}, ListenPacket: listenMemory,
		Now: time.Now, Logger: slog.New(slog.DiscardHandler), ChallengeRate: 1 << 20,
	}
	_, cfg.Tokens = tokenSide(t)
	w := &world{}
	w.credentials(t, &cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Server = s
	t.Cleanup(func() { _ = s.Close() })
	five := FiveTuple{UDP, netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.1:3478")}
	c := &rawClient{t: t, cred: w.credential(t, "alice", 1), realm: string(testRealm)}
	c.nonce = string(s.nonces.appendTo(nil, five, time.Now()))
	work := newWorker(s)
	handle := func(m *stun.Message) { work.handle(m.Raw[:len(m.Raw):len(m.Raw)], five, &sink{}) }
	handle(c.sign(c.request(stun.MethodAllocate, transportUDP)))
	handle(c.peerRequest(stun.MethodChannelBind, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, channelNumber(0x4000)))
	if live, _, _ := s.totals(); live != 1 {
		t.Fatal("no allocation to begin with")
	}
	return work, five, c
}

// seeds are messages of each kind.
func seeds(t testing.TB, c *rawClient) [][]byte {
	peers := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("[2001:db8::1]:9")}
	send := build(stun.MethodSend, stun.ClassIndication)
	send.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, peers[0], send.TransactionID))
	send.Add(stun.AttrData, []byte("data"))
	all := [][]byte{
		build(stun.MethodBinding, stun.ClassRequest).Raw,
		c.request(stun.MethodAllocate, transportUDP).Raw,
		c.sign(c.request(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80))).Raw,
		c.sign(c.request(stun.MethodRefresh, lifetime(600*time.Second))).Raw,
		c.peerRequest(stun.MethodCreatePermission, peers).Raw,
		c.peerRequest(stun.MethodChannelBind, peers[:1], channelNumber(0x4001)).Raw,
		send.Raw, {0x40, 0, 0, 4, 'd', 'a', 't', 'a'},
	}
	for _, rfc := range []string{"rfc5769", "rfc8489"} {
		for _, v := range vectors(t, rfc) {
			all = append(all, v)
		}
	}
	alg := c.request(stun.MethodRefresh, algorithms...)
	c.identify(alg)
	integritySHA256.addTo(alg, c.longTermKey().SHA256.Reveal())
	tok := sealed(t, foreignKey, serverName, 20, time.Now(), time.Minute)
	byToken := c.request(stun.MethodAllocate, transportUDP, attr(attrAccessToken, tok.Raw...), attr(stun.AttrUsername, []byte(tok.KeyID)...), attr(stun.AttrNonce, []byte(c.nonce)...))
	integritySHA1.addTo(byToken, tok.MACKey.Reveal())
	all = append(all, alg.Raw, byToken.Raw)
	return all
}

// FuzzHandle: whatever a client sends, nothing panics, each message has one answer at most,
// and no allocation is made without a credential.
func FuzzHandle(f *testing.F) {
	work, five, c := fuzzRelay(f)
	for _, b := range seeds(f, c) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bytes.Clone(in)
		out := &sink{}
		work.handle(b[:len(b):len(b)], five, out)
		other := five
		other.Client = netip.AddrPortFrom(loopback, 4001)
		b = bytes.Clone(in)
		work.handle(b[:len(b):len(b)], other, out)
		if out.n > 2 {
			t.Errorf("%d answers to two messages", out.n)
		}
		if live, _, _ := work.s.totals(); live > 1 {
			t.Error("an allocation without a credential for its five-tuple")
		}
	})
}

// Mutated messages, without the sockets of mutatedDatagrams: the worker holds no more.
func TestMutatedMessages(t *testing.T) {
	work, five, c := fuzzRelay(t)
	all := seeds(t, c)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 10_000 {
		b := mutate(r, all[i%len(all)])
		work.handle(b[:len(b):len(b)], five, &sink{})
	}
	out := &sink{}
	b := build(stun.MethodBinding, stun.ClassRequest).Raw
	work.handle(b[:len(b):len(b)], five, out)
	if out.n != 1 {
		t.Error("no answer to Binding afterwards")
	}
	if cap(work.in.Attributes) > 2*maxKeptAttributes {
		t.Errorf("room for %d attributes kept", cap(work.in.Attributes))
	}
}

// FuzzPeerPolicy: an encoding never opens what the plain address does not.
func FuzzPeerPolicy(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte{8, 8, 8, 8})
	p := newTestPolicy(Config{})
	f.Fuzz(func(t *testing.T, b []byte) {
		ip, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		v := p.judge(ip)
		if v == open && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified()) {
			t.Errorf("judge(%s) = open", ip)
		}
		if !ip.Is4() {
			return
		}
		for name, hidden := range encodings(ip) {
			if p.judge(hidden) > v {
				t.Errorf("judge(%s), %s of %s, is wider", hidden, name, ip)
			}
		}
	})
}
