package relay

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// The gaps measured in other TURN servers, each a test that ours has it not.

// afterIntegrity appends attributes behind what is signed already.
func afterIntegrity(m *stun.Message, attrs ...stun.RawAttribute) *stun.Message {
	for _, a := range attrs {
		m.Add(a.Type, a.Value)
	}
	return m
}

// RFC 8489 §14.5: attributes after MESSAGE-INTEGRITY are ignored.
func attributesAfterIntegrity(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	first, second := netip.MustParseAddrPort("127.0.0.7:9"), newPeer(t)

	m := c.peerRequest(stun.MethodCreatePermission, []netip.AddrPort{first})
	m = afterIntegrity(m, attr(stun.AttrXORPeerAddress, appendXORAddress(nil, second.addr, m.TransactionID)...))
	wantCode(t, c.do(m), 0)
	c.sendTo(second.addr, "smuggled")
	c.wantSilence()
	second.wantNothing()

	// An unknown attribute there is no reason for 420 either, and LIFETIME 0 deletes nothing.
	m = c.sign(c.request(stun.MethodRefresh))
	wantLifetime(t, c.do(afterIntegrity(m, attr(0x7777), lifetime(0))), defaultLifetime)

	// FINGERPRINT may follow.
	m = c.sign(c.request(stun.MethodRefresh))
	if err := stun.Fingerprint.AddTo(m); err != nil {
		t.Fatal(err)
	}
	res := c.do(m)
	wantCode(t, res, 0)
	if err := stun.Fingerprint.Check(res); err != nil {
		t.Errorf("answer to a request with FINGERPRINT: %v", err)
	}
}

// RFC 8656 §10.2: one denied peer refuses the whole request, and nothing is installed.
func permissionsAreAllOrNothing(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	relayed := c.allocate()
	allowed := newPeer(t)

	res := c.permit(allowed.addr, netip.MustParseAddrPort("10.0.0.1:5"))
	wantCode(t, res, stun.CodeForbidden)
	if err := c.key().Check(res); err != nil {
		t.Errorf("403 is not signed: %v", err)
	}
	c.sendTo(allowed.addr, "x")
	allowed.send(relayed, "y")
	c.wantSilence()
	allowed.wantNothing()
}

// RFC 8656 §10.2: 403, signed.
func deniedPermission(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	for _, peer := range []string{"169.254.169.254:80", "10.0.0.1:5", "0.0.0.0:5", "224.0.0.1:5"} {
		res := c.permit(netip.MustParseAddrPort(peer))
		wantCode(t, res, stun.CodeForbidden)
		if err := c.key().Check(res); err != nil {
			t.Errorf("403 for %s is not signed: %v", peer, err)
		}
	}
}

// RFC 8656 §12.2: 403, and not 401, which would have a client try again.
func deniedChannel(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	for _, peer := range []string{"169.254.169.254:80", "10.0.0.1:5"} {
		wantCode(t, c.bind(0x4000, netip.MustParseAddrPort(peer)), stun.CodeForbidden)
	}
}

// A listener of the server's is no peer, though its range is open.
func listenerIsNoPeer(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	for _, listener := range []netip.AddrPort{w.udp, w.tcp, w.tls} {
		if listener.IsValid() {
			wantCode(t, c.bind(0x4000, listener), stun.CodeForbidden)
		}
	}
}

// RFC 8489 §9.2.4: 401 with REALM and a fresh NONCE, unsigned.
func wrongPassword(t testing.TB, w *world) {
	t.Helper()
	good := w.credential(t, "alice", 1)
	c := w.client(t, UDP, good)
	c.challenge()
	wrong := turncred.NewSecret([]byte("wrong"))
	c.wantUnauthorized(good.Username, wrong, c.realm)
	c.wantUnauthorized("nobody", wrong, c.realm)
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), 0)
}

// RFC 8489 §9.2.4: the realm is the server's, whatever the client says.
func anotherRealm(t testing.TB, w *world) {
	t.Helper()
	good := w.credential(t, "alice", 1)
	c := w.client(t, UDP, good)
	c.challenge()
	c.wantUnauthorized(good.Username, good.Password, "evil.test")
}

// wantUnauthorized sends an Allocate, and returns the 401.
func (c *rawClient) wantUnauthorized(username string, password turncred.Secret, realm string) []byte {
	c.t.Helper()
	m := c.request(stun.MethodAllocate, transportUDP)
	m.Add(stun.AttrUsername, []byte(username))
	m.Add(stun.AttrRealm, []byte(realm))
	m.Add(stun.AttrNonce, []byte(c.nonce))
	if err := stun.NewLongTermIntegrity(username, realm, string(password.Reveal())).AddTo(m); err != nil {
		c.t.Fatal(err)
	}
	res := c.do(m)
	wantCode(c.t, res, stun.CodeUnauthorized)
	if res.Contains(stun.AttrMessageIntegrity) || !res.Contains(stun.AttrNonce) || !res.Contains(stun.AttrRealm) {
		c.t.Error("401 is signed, or lacks NONCE or REALM")
	}
	return res.Raw
}

// RFC 8489 §9.2.4: whatever the cause of a 401, its bytes are the same.
func TestUnauthorizedTellsNothing(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now = clk.Now })
	good := w.credential(t, "alice", 1)
	c := w.client(t, UDP, good)
	c.challenge()
	guess := turncred.NewSecret([]byte("wrong"))
	wrong := c.wantUnauthorized(good.Username, guess, c.realm)
	unknown := c.wantUnauthorized("nobody", guess, c.realm)
	realm := c.wantUnauthorized(good.Username, good.Password, "evil.test")
	clk.advance(10 * time.Minute)
	expired := c.wantUnauthorized(good.Username, good.Password, c.realm) // 401 before 438: its nonce is old too
	clk.advance(-10 * time.Minute)
	for name, got := range map[string][]byte{"unknown user": unknown, "another realm": realm, "expired": expired} {
		if !bytes.Equal(blank(t, got), blank(t, wrong)) {
			t.Errorf("%s is told apart from a wrong password:\n%x\n%x", name, got, wrong)
		}
	}
}

// blank overwrites transaction id and nonce in a message.
func blank(t testing.TB, b []byte) []byte {
	t.Helper()
	m := &stun.Message{Raw: bytes.Clone(b)}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	v, err := m.Get(stun.AttrNonce)
	if err != nil {
		t.Fatal("no NONCE")
	}
	clear(v)
	m.TransactionID = [stun.TransactionIDSize]byte{}
	m.WriteTransactionID()
	return m.Raw
}

func integrityWithoutTheRest(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	m := c.request(stun.MethodAllocate, transportUDP)
	if err := c.key().AddTo(m); err != nil {
		t.Fatal(err)
	}
	res := c.do(m)
	wantCode(t, res, stun.CodeBadRequest)
	if res.Contains(stun.AttrNonce) || res.Contains(stun.AttrRealm) {
		t.Error("400 bears NONCE or REALM")
	}
}

// RFC 8656 §5: requests that need an allocation get an answer without one.
func noAllocation(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.challenge()
	p := netip.MustParseAddrPort("127.0.0.1:9")
	wantCode(t, c.signed(stun.MethodRefresh), stun.CodeAllocMismatch)
	wantCode(t, c.permit(p), stun.CodeAllocMismatch)
	wantCode(t, c.bind(0x4000, p), stun.CodeAllocMismatch)
	c.sendTo(p, "x")
	c.sendChannel(0x4000, "x")
	c.wantSilence()
}

// RFC 8656 §5: another username on the five-tuple is 441, and an Allocate 437.
func otherUsersAllocation(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	c.cred = w.credential(t, "mallory", 1)
	wantCode(t, c.signed(stun.MethodRefresh, lifetime(0)), stun.CodeWrongCredentials)
	wantCode(t, c.permit(netip.MustParseAddrPort("127.0.0.1:9")), stun.CodeWrongCredentials)
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), stun.CodeAllocMismatch)
}

func onlyUDPIsRelayed(t testing.TB, w *world) {
	t.Helper()
	for _, transport := range []Transport{UDP, TCP} {
		c := w.client(t, transport, w.credential(t, "alice", 1))
		c.challenge()
		wantCode(t, c.signed(stun.MethodAllocate, attr(stun.AttrRequestedTransport, 6, 0, 0, 0)), stun.CodeUnsupportedTransProto)
		wantCode(t, c.signed(stun.MethodAllocate), stun.CodeBadRequest)
		wantCode(t, c.signed(stun.MethodAllocate, attr(stun.AttrRequestedTransport, 17)), stun.CodeBadRequest)
	}
}

func TestPermissionsAreBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxPermissions = 8 })
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	peerAt := func(i byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, i}), 1000)
	}
	for i := range byte(8) {
		wantCode(t, c.permit(peerAt(i)), 0)
	}
	wantCode(t, c.permit(peerAt(8)), stun.CodeInsufficientCapacity)
	wantCode(t, c.bind(0x4000, peerAt(8)), stun.CodeInsufficientCapacity)
	wantCode(t, c.permit(peerAt(3)), 0) // a refresh always works
	for i := range uint16(8) {
		wantCode(t, c.bind(0x4000+i, netip.AddrPortFrom(peerAt(0).Addr(), 2000+i)), 0)
	}
	wantCode(t, c.bind(0x4FFF, netip.AddrPortFrom(peerAt(0).Addr(), 3000)), stun.CodeInsufficientCapacity)
	if got := w.Allocations()[0]; got.Permissions != 8 || got.Channels != 8 {
		t.Errorf("%d permissions, %d channels, want 8 and 8", got.Permissions, got.Channels)
	}
}

// A nonce is good for its source and for nobody else: what was captured is of no use.
func nonceOfAnother(t testing.TB, w *world) {
	t.Helper()
	cred := w.credential(t, "alice", 1)
	a, b := w.client(t, UDP, cred), w.client(t, UDP, cred)
	a.challenge()
	b.challenge()
	b.nonce = a.nonce
	res := b.signed(stun.MethodAllocate, transportUDP)
	wantCode(t, res, stun.CodeStaleNonce)
	b.learn(res)
	wantCode(t, b.signed(stun.MethodAllocate, transportUDP), 0)
}

// A nonce is good for nonceLife.
func TestNonceExpires(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now = clk.Now })
	b := w.client(t, UDP, provision(t, w.sharedKey, "alice", 1, time.Hour))
	b.allocate()
	clk.advance(nonceLife)
	res := b.signed(stun.MethodRefresh)
	wantCode(t, res, stun.CodeStaleNonce)
	b.learn(res)
	wantCode(t, b.signed(stun.MethodRefresh), stun.CodeAllocMismatch) // 600 s have passed for it too
}

// RFC 8656 §7.2: max(600, min(asked, 3600)).
func lifetimes(t testing.TB, w *world) {
	t.Helper()
	for asked, want := range map[time.Duration]time.Duration{
		time.Second: 600 * time.Second, 3599 * time.Second: 3599 * time.Second, 86400 * time.Second: 3600 * time.Second,
	} {
		c := w.client(t, UDP, w.credential(t, "alice", 1))
		c.challenge()
		res := c.signed(stun.MethodAllocate, transportUDP, lifetime(asked))
		wantCode(t, res, 0)
		wantLifetime(t, res, want)
		wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(asked)), want)
	}
}

func unknownAttributes(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	want := func(res *stun.Message, types ...stun.AttrType) {
		t.Helper()
		wantCode(t, res, stun.CodeUnknownAttribute)
		v, _ := res.Get(stun.AttrUnknownAttributes)
		if !bytes.Equal(v, unknownValue(types)) {
			t.Errorf("UNKNOWN-ATTRIBUTES %x, want %v", v, types)
		}
	}
	want(c.do(c.request(stun.MethodBinding, attr(0x7777), attr(0xFFFE), attr(0x0003, 0, 0, 0, 0))), 0x7777, 0x0003)
	c.challenge()
	wantCode(t, c.do(c.request(stun.MethodAllocate, transportUDP, attr(0x7777))), stun.CodeUnauthorized) // RFC 8489 §6.3: that first
	want(c.signed(stun.MethodAllocate, transportUDP, attr(0x7778), attr(0x7777)), 0x7778, 0x7777)
	want(c.signed(stun.MethodAllocate, transportUDP, attr(0x001B, 1, 2, 3, 4)), 0x001B)
}

// What is not STUN or not whole gets no answer.
func malformedIsDropped(t testing.TB, w *world) {
	t.Helper()
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	binding := build(stun.MethodBinding, stun.ClassRequest).Raw
	cookie := bytes.Clone(binding)
	cookie[4] ^= 1
	length := bytes.Clone(binding)
	binary.BigEndian.PutUint16(length[2:], 0xFFEC)
	fingerprint := build(stun.MethodBinding, stun.ClassRequest)
	if err := stun.Fingerprint.AddTo(fingerprint); err != nil {
		t.Fatal(err)
	}
	notLast := afterIntegrity(fingerprint, attr(stun.AttrSoftware, 'x'))
	for _, b := range [][]byte{
		{}, {0}, {0, 1, 0, 0}, binding[:19], append(bytes.Clone(binding), 0, 0, 0, 0), cookie, length, notLast.Raw,
		build(stun.MethodBinding, stun.ClassSuccessResponse).Raw,
		build(stun.MethodConnect, stun.ClassRequest).Raw,
		build(stun.MethodBinding, stun.ClassIndication).Raw,
		{0x40}, {0x50, 0, 0, 0}, {0x80, 0, 0, 0}, {0xFF, 0xFF, 0xFF, 0xFF},
	} {
		c.send(b)
		c.wantSilence()
	}
}
