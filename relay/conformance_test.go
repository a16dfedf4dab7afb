package relay

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// row is a requirement on a TURN server, with what shows that it is met.
type row struct {
	name   string // P1 to P16 are gaps measured in other servers
	clause string
	// raw is our own client's part and pion pion's, over real sockets.
	raw, pion func(testing.TB, *world)
	// own is a test of ours that needs more than a client sees: a clock to turn, a setting, a
	// look inside. coturn is not asked.
	own func(*testing.T)
	// coturn says how coturn 4.6.1 differs; "" where it does the same. The test asks it.
	coturn string
}

// rows is the conformance suite.
var rows = []row{
	{name: "UDP, TCP and TLS; Send, Data and channels", clause: "RFC 8656 §5 to §12", raw: everyWay, pion: everyWayByPion},
	{name: "retransmitted Allocate", clause: "RFC 8656 §7.2, step 2", raw: retransmittedAllocate, coturn: "does not sign 437"},
	{name: "families and ports", clause: "RFC 8656 §7.2, steps 5 to 9", own: TestAllocateFamiliesAndPorts},
	{name: "dual allocation", clause: "RFC 8656 §7.2, step 9, §8.1", own: TestDualAllocation},
	{name: "EVEN-PORT and RESERVATION-TOKEN", clause: "RFC 8656 §7.2, step 8", raw: evenPort, coturn: "leaves the token out of the answer to a retransmission"},
	{name: "DONT-FRAGMENT", clause: "RFC 8656 §7.2, step 4, §14", raw: dontFragmentIsTaken},
	{name: "external address", clause: "RFC 8656 §5", own: TestExternalAddress},

	{name: "P1: attributes after MESSAGE-INTEGRITY", clause: "RFC 8489 §14.5", raw: attributesAfterIntegrity, coturn: "processes them"},
	{name: "P2: one denied peer among others", clause: "RFC 8656 §10.2", raw: permissionsAreAllOrNothing},
	{name: "P3: CreatePermission for a denied peer", clause: "RFC 8656 §10.2", raw: deniedPermission, pion: deniedPermissionByPion, coturn: "takes private ranges unless each is listed"},
	{name: "P4: ChannelBind for a denied peer", clause: "RFC 8656 §12.2", raw: deniedChannel},
	{name: "P5: wrong password, unknown user", clause: "RFC 8489 §9.2.4", raw: wrongPassword, pion: wrongPasswordByPion, coturn: "answers 437 to another user name on a five-tuple that was refused"},
	{name: "P5: the same bytes for every cause", clause: "RFC 8489 §9.2.4", own: TestUnauthorizedTellsNothing},
	{name: "P6: no allocation", clause: "RFC 8656 §5", raw: noAllocation, coturn: "answers a Refresh of lifetime 0 with success, and others with 400"},
	{name: "P7: REQUESTED-TRANSPORT TCP", clause: "RFC 8656 §7.2, step 3", raw: onlyUDPIsRelayed, coturn: "relays TCP, and answers 400 over UDP"},
	{name: "P8: hundreds of permissions", clause: "RFC 8656 §5, §21.1.3", raw: hundredsOfPermissions, coturn: "grants them all"},
	{name: "P8: permissions and channels are bounded", clause: "RFC 8656 §5", own: TestPermissionsAreBounded},
	{name: "P9: a realm of the client's choice", clause: "RFC 8489 §9.2.4", raw: anotherRealm, coturn: "answers 437"},
	{name: "P10: nonce of another client", clause: "RFC 8489 §9.2.4", raw: nonceOfAnother, coturn: "does not sign 438"},
	{name: "P10: old nonce", clause: "RFC 8489 §9.2.4", own: TestNonceExpires},
	{name: "P11: LIFETIME", clause: "RFC 8656 §7.2, §8.2", raw: lifetimes},
	{name: "P11: LIFETIME never past what the credential allows", clause: "RFC 8656 §8.2", own: TestAfterExpiry},
	{name: "P12: plaintext on TLS frees its descriptor", clause: "RFC 8656 §21.1", own: TestPlaintextOnTLSFreesDescriptors},
	{name: "P13: silent stream", clause: "RFC 8656 §21.3.1", own: TestSilentStreamIsClosed},
	{name: "P13: TLS handshake", clause: "RFC 8656 §21.3.1", own: TestTLSHandshakeDeadline},
	{name: "P14: a flood of mutated datagrams", clause: "RFC 8489 §6.3", own: mutatedDatagrams},
	{name: "P14: ten log lines a second", clause: "RFC 8489 §16", own: TestLogIsLimited},
	{name: "P15: amplification", clause: "RFC 8489 §16.1.2", own: TestAmplification},
	{name: "P15: rate of challenges", clause: "RFC 8489 §16.1.2", own: TestChallengeRate},
	{name: "P16: thousands of mutated streams", clause: "RFC 8489 §6.2.2", own: mutatedStreams},

	{name: "integrity without USERNAME, REALM, NONCE: 400", clause: "RFC 8489 §9.2.4", raw: integrityWithoutTheRest},
	{name: "unknown attributes: 420", clause: "RFC 8489 §6.3.1", raw: unknownAttributes, coturn: "passes over them"},
	{name: "another user's allocation: 441, 437", clause: "RFC 8656 §5, §7.2", raw: otherUsersAllocation, coturn: "does not sign them"},
	{name: "the other family: 440, 443", clause: "RFC 8656 §7.2, §8.2, §10.2", own: TestRefreshOfTheOtherFamilyIs443},
	{name: "quota: 486", clause: "RFC 8656 §7.2, step 10", own: TestQuota},
	{name: "quota, by pion's client", clause: "RFC 8656 §7.2, step 10", own: quotaByPion},
	{name: "no port: 508", clause: "RFC 8656 §7.2", own: TestNoPortIs508},
	{name: "channels", clause: "RFC 8656 §12.2", own: TestChannelBind},
	{name: "permissions and channels expire", clause: "RFC 8656 §9, §12", own: TestPermissionAndChannelExpire},
	{name: "malformed messages", clause: "RFC 8489 §6.3", raw: malformedIsDropped, coturn: "answers some"},
	{name: "length 0xFFEC on TCP", clause: "RFC 8489 §6.2.2", own: TestLengthThatWrapsCostsNothing},
	{name: "LIFETIME 1 and the end", clause: "RFC 8656 §8.2", own: TestRequestsAroundTheEnd},
	{name: "SHA-256", clause: "RFC 8489 §9.2, §14.6", own: TestPasswordAlgorithms},
	{name: "both integrities", clause: "RFC 8489 §9.2.4", own: TestBothIntegrities},
	{name: "USERHASH", clause: "RFC 8489 §14.4", own: TestUserhash},
	{name: "vectors", clause: "RFC 5769 §2", own: TestRFC5769},
	{name: "vectors", clause: "RFC 8489 B.1", own: TestRFC8489VectorB1},
	{name: "access tokens", clause: "RFC 7635 §4, §7", own: TestAccessToken},
	{name: "renewal by another token", clause: "RFC 7635 §9", own: TestTokenRenewal},
	{name: "tokens are off: 420", clause: "RFC 7635 §7", own: TestTokensOffIs420},

	{name: "relay to relay", clause: "RFC 8656 §3.1", raw: relayToRelay, pion: relayToRelayByPion},
	{name: "a listener as peer", clause: "RFC 8656 §21.1.7", raw: listenerIsNoPeer, coturn: "takes it where its range is open"},
	{name: "nothing loops", clause: "RFC 8656 §21.1.7", own: TestNothingLoops},
	{name: "denied ranges, in every encoding", clause: "RFC 8656 §21.2", own: noPacketLeaves},
}

// TestConformance asks our relay, and coturn's server, for each row.
func TestConformance(t *testing.T) {
	ours := newWorld(t, nil)
	coturn := startCoturn(t)
	for _, r := range rows {
		t.Run(r.name+", "+r.clause, func(t *testing.T) {
			if r.own != nil {
				r.own(t)
				return
			}
			r.raw(t, ours)
			if r.pion != nil {
				r.pion(t, ours)
			}
			if coturn == nil {
				return
			}
			failure := attempt(t, func(t testing.TB) { r.raw(t, coturn) })
			if r.coturn == "" && failure != "" {
				t.Errorf("coturn: %s", failure)
			}
			if r.coturn != "" && failure == "" {
				t.Errorf("coturn does it too, though the row says that it %s", r.coturn)
			}
			if r.coturn != "" {
				t.Logf("coturn %s: %s", r.coturn, failure)
			}
		})
	}
}

// attempt runs f and returns why it failed, or "".
func attempt(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	a := &trial{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(a)
	}()
	<-done
	return a.failure()
}

// trial is a testing.TB whose failures are no failures of the test.
type trial struct {
	testing.TB
	mu   sync.Mutex // guards said
	said []string
}

func (a *trial) failure() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.said, "; ")
}

// Errorf implements testing.TB.
func (a *trial) Errorf(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = append(a.said, fmt.Sprintf(format, args...))
}

// Error implements testing.TB.
func (a *trial) Error(args ...any) { a.Errorf("%s", fmt.Sprint(args...)) }

// Fatalf implements testing.TB.
func (a *trial) Fatalf(format string, args ...any) {
	a.Errorf(format, args...)
	runtime.Goexit()
}

// Fatal implements testing.TB.
func (a *trial) Fatal(args ...any) { a.Fatalf("%s", fmt.Sprint(args...)) }

// everyWay relays in both directions, with and without a channel, on each transport.
func everyWay(t testing.TB, w *world) {
	t.Helper()
	for _, transport := range w.transports() {
		c := w.client(t, transport, w.credential(t, "alice", 1))
		relayed, p := c.allocate(), newPeer(t)
		wantCode(t, c.permit(p.addr), 0)
		c.sendTo(p.addr, "by Send")
		p.want(relayed, "by Send")
		p.send(relayed, "by Data")
		c.wantData(p.addr, "by Data")
		wantCode(t, c.bind(0x4000, p.addr), 0)
		c.sendChannel(0x4000, "odd")
		p.want(relayed, "odd")
		p.send(relayed, "back")
		c.wantChannel(0x4000, "back")
		wantLifetime(t, c.signed(stun.MethodRefresh, lifetime(0)), 0)
	}
}

// transports are those on which w listens.
func (w *world) transports() (all []Transport) {
	for transport, at := range map[Transport]bool{UDP: w.udp.IsValid(), TCP: w.tcp.IsValid(), TLS: w.tls.IsValid()} {
		if at {
			all = append(all, transport)
		}
	}
	return all
}

// everyWayByPion is everyWay by pion's client, which begins with Send and binds a channel
// meanwhile.
func everyWayByPion(t testing.TB, w *world) {
	t.Helper()
	for _, transport := range w.transports() {
		relay, err := pionClient(t, w, transport, w.credential(t, "alice", 1)).Allocate()
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t)
		for i := range 5 {
			echoThrough(t, relay, p, fmt.Sprintf("message %d", i))
		}
		if err := relay.Close(); err != nil {
			t.Errorf("Refresh with lifetime 0: %v", err)
		}
	}
}

// echoThrough sends data to p and back.
func echoThrough(t testing.TB, relay net.PacketConn, p *peer, data string) {
	t.Helper()
	if _, err := relay.WriteTo([]byte(data), net.UDPAddrFromAddrPort(p.addr)); err != nil {
		t.Fatal(err)
	}
	p.want(addrPortOf(relay.LocalAddr()), data)
	p.send(addrPortOf(relay.LocalAddr()), data)
	b := make([]byte, 100)
	_ = relay.SetReadDeadline(time.Now().Add(answerWait))
	if n, _, err := relay.ReadFrom(b); err != nil || string(b[:n]) != data {
		t.Fatalf("back: %q, %v", b[:n], err)
	}
}

func deniedPermissionByPion(t testing.TB, w *world) {
	t.Helper()
	c := pionClient(t, w, UDP, w.credential(t, "alice", 1))
	relay, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = relay.Close() }()
	if err := c.CreatePermission(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("CreatePermission for a denied peer: %v, want 403", err)
	}
}

func quotaByPion(t *testing.T) {
	t.Helper()
	w := newWorld(t, func(c *Config) { c.MaxAllocationsPerSubject = 1 })
	relay, err := pionClient(t, w, UDP, w.credential(t, "alice", 1)).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = relay.Close() }()
	if _, err := pionClient(t, w, TCP, w.credential(t, "alice", 2)).Allocate(); err == nil || !strings.Contains(err.Error(), "486") {
		t.Errorf("one allocation too many: %v, want 486", err)
	}
}

func relayToRelayByPion(t testing.TB, w *world) {
	t.Helper()
	var ends [2]net.PacketConn
	for i, transport := range []Transport{UDP, TCP} {
		var err error
		if ends[i], err = pionClient(t, w, transport, w.credential(t, "alice", 1)).Allocate(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ends[i].Close() }()
	}
	b := make([]byte, 100)
	for i := range 10 { // the other's permission comes with its first answer
		from, to := ends[i%2], ends[1-i%2]
		if _, err := from.WriteTo([]byte("hello"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		_ = to.SetReadDeadline(time.Now().Add(answerWait))
		if n, at, err := to.ReadFrom(b); err != nil || string(b[:n]) != "hello" || at.String() != from.LocalAddr().String() {
			t.Fatalf("message %d: %q from %v, %v", i, b[:n], at, err)
		}
	}
}

func wrongPasswordByPion(t testing.TB, w *world) {
	t.Helper()
	cred := w.credential(t, "alice", 1)
	cred.Password = turncred.NewSecret([]byte("wrong"))
	if _, err := pionClient(t, w, UDP, cred).Allocate(); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("Allocate with a wrong password: %v, want 401", err)
	}
}
