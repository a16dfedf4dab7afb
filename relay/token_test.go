package relay

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
	"epcscf/turncred/token"
)

const serverName = "turn.ims.test"

// The keys of token tests: one of ours, one of another authorization server, and the three
// that are built into coturn's client.
var (
	ourKey     = token.Key{ID: "t1", Secret: turncred.NewSecret(bytes.Repeat([]byte{11}, 32))}
	foreignKey = token.Key{ID: "as1", Secret: turncred.NewSecret(bytes.Repeat([]byte{12}, 32)), Foreign: true}
	coturnKeys = []token.Key{
		{ID: "north", Secret: fromBase64("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK"), Foreign: true},
		{ID: "union", Secret: fromBase64("MTIzNDU2Nzg5MDEyMzQ1Ngo="), Algorithm: token.A128GCM, Foreign: true},
		{ID: "oldempire", Secret: fromBase64("MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK"), Foreign: true},
	}
)

func fromBase64(s string) turncred.Secret {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return turncred.NewSecret(b)
}

// tokenSide returns the keys, and what a relay asks.
func tokenSide(t testing.TB) (*token.KeyRing, *token.Authenticator) {
	t.Helper()
	ring, err := token.NewKeyRing(append([]token.Key{ourKey, foreignKey}, coturnKeys...)...)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := token.NewAuthenticator(token.AuthenticatorConfig{Ring: ring, ServerName: serverName, Realm: testRealm})
	if err != nil {
		t.Fatal(err)
	}
	return ring, auth
}

// newTokenWorld starts a relay that takes ACCESS-TOKEN.
func newTokenWorld(t testing.TB, edit func(*Config)) *world {
	t.Helper()
	return newWorld(t, func(c *Config) {
		_, c.Tokens = tokenSide(t)
		if edit != nil {
			edit(c)
		}
	})
}

// issue makes a token of ours.
func (w *world) issue(t testing.TB, impi turncred.IMPI, life time.Duration) token.Token {
	t.Helper()
	tok, err := w.tokens.Issue(turncred.Request{IMPI: impi, Life: life})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// sealed makes a token by hand.
func sealed(t testing.TB, k token.Key, server string, macLen int, issued time.Time, life time.Duration) token.Token {
	t.Helper()
	s, err := token.NewSealer(k, server)
	if err != nil {
		t.Fatal(err)
	}
	mac := turncred.NewSecret(bytes.Repeat([]byte{byte(macLen), 0xC3}, macLen/2))
	raw, err := s.Seal(token.Claims{MACKey: mac, Issued: issued, Lifetime: life})
	if err != nil {
		t.Fatal(err)
	}
	return token.Token{KeyID: k.ID, Raw: raw, MACKey: mac}
}

// byToken sends a request as RFC 7635 has it, and checks that the answer is signed.
func (c *rawClient) byToken(tok token.Token, method stun.Method, attrs ...stun.RawAttribute) *stun.Message {
	c.t.Helper()
	return c.byTokenSigned(tok, integritySHA1, tok.MACKey.Reveal(), method, attrs...)
}

func (c *rawClient) byTokenSigned(tok token.Token, i *integrity, key []byte, method stun.Method, attrs ...stun.RawAttribute) *stun.Message {
	c.t.Helper()
	m := c.request(method, attrs...)
	if tok.Raw != nil {
		m.Add(attrAccessToken, tok.Raw)
	}
	m.Add(stun.AttrUsername, []byte(tok.KeyID))
	m.Add(stun.AttrNonce, []byte(c.nonce))
	i.addTo(m, key)
	res := c.do(m)
	if code := codeOf(res); code != stun.CodeUnauthorized && code != stun.CodeBadRequest && !i.holds(res, key) {
		c.t.Errorf("answer %s %d is not signed with the key of the request", res.Type, code)
	}
	return res
}

// allocateByToken makes an allocation and returns the answer.
func (c *rawClient) allocateByToken(tok token.Token, attrs ...stun.RawAttribute) *stun.Message {
	c.t.Helper()
	c.challenge()
	return c.byToken(tok, stun.MethodAllocate, append([]stun.RawAttribute{transportUDP}, attrs...)...)
}

func TestAccessToken(t *testing.T) {
	w := newTokenWorld(t, nil)
	for _, transport := range []Transport{UDP, TCP, TLS} {
		c := w.client(t, transport, turncred.Credential{})
		res := c.challenge()
		if v, err := res.Get(attrThirdPartyAuthorization); err != nil || string(v) != serverName {
			t.Errorf("401: THIRD-PARTY-AUTHORIZATION %q, %v", v, err)
		}
		tok := w.issue(t, "alice", 20*time.Minute)
		res = c.byToken(tok, stun.MethodAllocate, transportUDP)
		wantCode(t, res, 0)
		wantLifetime(t, res, defaultLifetime)
		relayed := c.relayed(res)

		// What follows bears the kid and no token.
		p := newPeer(t)
		bind := c.request(stun.MethodChannelBind, channelNumber(0x4000))
		bind.Add(stun.AttrXORPeerAddress, appendXORAddress(nil, p.addr, bind.TransactionID))
		bind.Add(stun.AttrUsername, []byte(tok.KeyID))
		bind.Add(stun.AttrNonce, []byte(c.nonce))
		integritySHA1.addTo(bind, tok.MACKey.Reveal())
		wantCode(t, c.do(bind), 0)
		c.sendChannel(0x4000, "by token")
		p.want(relayed, "by token")

		fresh := c.nonce
		c.nonce = "stale"
		res = c.byToken(tok, stun.MethodRefresh)
		wantCode(t, res, stun.CodeStaleNonce)
		if !res.Contains(attrThirdPartyAuthorization) {
			t.Error("438 lacks THIRD-PARTY-AUTHORIZATION")
		}
		c.nonce = fresh
		wantCode(t, c.byToken(tok, stun.MethodRefresh), 0)
		if id := w.Allocations()[0]; id.Subject != tok.Identity.Subject || id.Tid.KeyID() != "t1" {
			t.Errorf("allocation of %+v, want subject %s", id, tok.Identity.Subject)
		}
		wantCode(t, c.byToken(tok, stun.MethodRefresh, lifetime(0)), 0)
	}
}

// Session keys of 20 and 32 bytes, and the shortened ones that clients sign with.
func TestMACKeys(t *testing.T) {
	w := newTokenWorld(t, nil)
	short := func(b []byte) []byte { return b[:16] }
	for name, tt := range map[string]struct {
		macLen int
		sign   *integrity
		key    func([]byte) []byte
		ok     bool
	}{
		"20":               {20, integritySHA1, nil, true},
		"20, coturn's way": {20, integritySHA1, short, true},
		"32":               {32, integritySHA1, nil, true},
		"32, Appendix B":   {32, integritySHA1, func(b []byte) []byte { h := sha1.Sum(b); return h[:] }, true},
		"32, coturn's way": {32, integritySHA1, short, true},
		"32, SHA-256":      {32, integritySHA256, nil, true},
		"20, SHA-256":      {20, integritySHA256, nil, true},
		"20 cut to 15":     {20, integritySHA1, func(b []byte) []byte { return b[:15] }, false},
		"32 cut, SHA-256":  {32, integritySHA256, short, false},
	} {
		c := w.client(t, UDP, turncred.Credential{})
		c.challenge()
		tok := sealed(t, foreignKey, serverName, tt.macLen, time.Now(), time.Minute)
		key := tok.MACKey.Reveal()
		if tt.key != nil {
			key = tt.key(key)
		}
		want := stun.ErrorCode(0)
		if !tt.ok {
			want = stun.CodeUnauthorized
		}
		if got := codeOf(c.byTokenSigned(tok, tt.sign, key, stun.MethodAllocate, transportUDP)); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		if tt.ok {
			tok.Raw = nil // the allocation's key goes on
			wantCode(t, c.byTokenSigned(tok, tt.sign, key, stun.MethodRefresh), 0)
		}
	}
	ours := w.issue(t, "alice", time.Minute)
	c := w.client(t, UDP, turncred.Credential{})
	c.challenge()
	wantCode(t, c.byTokenSigned(ours, integritySHA1, ours.MACKey.Reveal()[:16], stun.MethodAllocate, transportUDP), 0)
}

// Whatever is wrong with a token, the answer is that to a wrong password.
func TestBadTokensAre401(t *testing.T) {
	clk := newClock()
	w := newTokenWorld(t, func(c *Config) { c.Now = clk.Now })
	now := clk.Now()
	good := sealed(t, foreignKey, serverName, 20, now, time.Minute)
	edited := good
	edited.Raw = bytes.Clone(good.Raw)
	edited.Raw[40] ^= 1
	otherKid := good
	otherKid.KeyID = "t1"
	otherMAC := good
	otherMAC.MACKey = turncred.NewSecret(make([]byte, 20))
	stranger := token.Key{ID: "as1", Secret: turncred.NewSecret(make([]byte, 32)), Foreign: true}

	c := w.client(t, UDP, turncred.Credential{})
	c.cred.Username, c.cred.Password = "nobody", turncred.NewSecret([]byte("x"))
	c.challenge()
	unknown := c.signed(stun.MethodAllocate, transportUDP)
	wantCode(t, unknown, stun.CodeUnauthorized)
	for name, tok := range map[string]token.Token{
		"edited": edited, "another kid": otherKid, "another mac_key": otherMAC, "empty": {KeyID: "as1", Raw: []byte{}, MACKey: good.MACKey},
		"another server":     sealed(t, foreignKey, "turn.example.org", 20, now, time.Minute),
		"another key":        sealed(t, stranger, serverName, 20, now, time.Minute),
		"expired":            sealed(t, foreignKey, serverName, 20, now.Add(-time.Minute-token.Delta), time.Minute),
		"from the future":    sealed(t, foreignKey, serverName, 20, now.Add(token.Delta+time.Second), time.Minute),
		"in an hour":         sealed(t, foreignKey, serverName, 20, now.Add(time.Hour), 2*time.Hour),
		"lifetime 0":         sealed(t, foreignKey, serverName, 20, now, 0),
		"lifetime too long":  sealed(t, foreignKey, serverName, 20, now, time.Hour+time.Second),
		"ours, without user": sealed(t, ourKey, serverName, 20, now, time.Minute),
	} {
		res := c.byToken(tok, stun.MethodAllocate, transportUDP)
		if !bytes.Equal(blank(t, res.Raw), blank(t, unknown.Raw)) {
			t.Errorf("%s: %d, told apart from an unknown user", name, codeOf(res))
		}
	}
	// The clocks may differ by less than five seconds, either way.
	for age, want := range map[time.Duration]time.Duration{
		time.Minute + 3*time.Second: 2 * time.Second, -4 * time.Second: 56 * time.Second, 0: time.Minute,
	} {
		c := w.client(t, UDP, turncred.Credential{})
		res := c.allocateByToken(sealed(t, foreignKey, serverName, 20, now.Add(-age), time.Minute))
		wantCode(t, res, 0)
		if age >= 0 {
			wantLifetime(t, res, want)
		}
	}
}

// RFC 7635 §7: where tokens are off, ACCESS-TOKEN is an unknown attribute.
func TestTokensOffIs420(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, UDP, turncred.Credential{})
	if c.challenge().Contains(attrThirdPartyAuthorization) {
		t.Error("401 bears THIRD-PARTY-AUTHORIZATION")
	}
	m := c.request(stun.MethodAllocate, transportUDP, attr(attrAccessToken, w.issue(t, "alice", time.Minute).Raw...))
	res := c.do(c.sign(m))
	wantCode(t, res, stun.CodeUnknownAttribute)
	if v, _ := res.Get(stun.AttrUnknownAttributes); !bytes.Equal(v, unknownValue([]stun.AttrType{attrAccessToken})) {
		t.Errorf("UNKNOWN-ATTRIBUTES %x", v)
	}
}

// An allocation lives as long as its token, and a new token, of another kid too, lets it
// live on; whatever AfterExpiry says.
func TestTokenRenewal(t *testing.T) {
	clk := newClock()
	w := newTokenWorld(t, func(c *Config) { c.Now = clk.Now })
	c := w.client(t, UDP, turncred.Credential{})
	res := c.allocateByToken(w.issue(t, "alice", 5*time.Minute), lifetime(time.Hour))
	wantCode(t, res, 0)
	wantLifetime(t, res, 5*time.Minute)

	clk.advance(4 * time.Minute)
	c.challenge()
	again := w.issue(t, "alice", 30*time.Minute)
	res = c.byToken(again, stun.MethodRefresh, lifetime(time.Hour))
	wantCode(t, res, 0)
	wantLifetime(t, res, 30*time.Minute)
	clk.advance(29 * time.Minute)
	if len(w.Allocations()) != 1 {
		t.Fatal("a renewed allocation has ended")
	}
	// Another user's token, and a long-term credential of the same user, do not renew it.
	c.challenge()
	wantCode(t, c.byToken(w.issue(t, "mallory", time.Minute), stun.MethodRefresh), stun.CodeWrongCredentials)
	wantCode(t, c.byToken(sealed(t, foreignKey, serverName, 20, clk.Now(), time.Minute), stun.MethodRefresh), stun.CodeWrongCredentials)
	c.cred = w.credential(t, "alice", 1)
	wantCode(t, c.signed(stun.MethodRefresh), stun.CodeWrongCredentials)

	clk.advance(time.Minute + token.Delta)
	if len(w.Allocations()) != 0 {
		t.Error("an allocation outlives its token")
	}
	c.challenge()
	wantCode(t, c.byToken(again, stun.MethodRefresh), stun.CodeUnauthorized)
}

// Of foreign tokens nobody knows the user: the five-tuple is who renews.
func TestForeignTokenRenewal(t *testing.T) {
	w := newTokenWorld(t, func(c *Config) { c.MaxAllocationsPerSubject = 1 })
	first := sealed(t, foreignKey, serverName, 20, time.Now(), time.Minute)
	c := w.client(t, UDP, turncred.Credential{})
	wantCode(t, c.allocateByToken(first), 0)
	wantCode(t, c.byToken(sealed(t, coturnKeys[1], serverName, 32, time.Now(), 10*time.Minute), stun.MethodRefresh), 0)

	// The quota counts the first token still, and each token for itself.
	other := w.client(t, UDP, turncred.Credential{})
	wantCode(t, other.allocateByToken(first), stun.CodeAllocQuotaReached)
	wantCode(t, other.byToken(sealed(t, foreignKey, serverName, 20, time.Now(), time.Minute), stun.MethodAllocate, transportUDP), 0)

	// Revocation is by kid: that of the token which holds the allocation now.
	err := w.Server.Revoke(context.Background(), turncred.Revocation{
		KeyID: "union", IssuedUntil: turncred.IssueTimeAt(time.Now()), Until: time.Now().Add(time.Hour),
	})
	if err != nil || len(w.Allocations()) != 1 {
		t.Errorf("%d allocations after the kid's revocation, want the other's (%v)", len(w.Allocations()), err)
	}
	wantCode(t, c.byToken(first, stun.MethodRefresh), stun.CodeAllocMismatch)
}

// Quota and revocation of a user reach tokens in both shapes.
func TestTokensCountForTheirSubject(t *testing.T) {
	w := newTokenWorld(t, func(c *Config) { c.MaxAllocationsPerSubject = 3 })
	a, b := w.client(t, UDP, turncred.Credential{}), w.client(t, UDP, inUsername(w.issue(t, "alice", time.Minute)))
	alice := w.issue(t, "alice", time.Minute)
	wantCode(t, a.allocateByToken(alice), 0)
	b.allocate()
	w.client(t, UDP, w.credential(t, "alice", 1)).allocate()
	full := w.client(t, UDP, turncred.Credential{})
	wantCode(t, full.allocateByToken(w.issue(t, "alice", time.Minute)), stun.CodeAllocQuotaReached)
	bob := w.client(t, UDP, turncred.Credential{})
	wantCode(t, bob.allocateByToken(w.issue(t, "bob", time.Minute)), 0)

	mustRevoke(t, issuerOf{w.tokens}, turncred.Scope{IMPI: "alice", AllBindings: true})
	if n := len(w.Allocations()); n != 1 {
		t.Errorf("%d allocations live, want bob's", n)
	}
	wantCode(t, a.byToken(alice, stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
	wantCode(t, b.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
	wantCode(t, a.byToken(w.issue(t, "alice", time.Minute), stun.MethodAllocate, transportUDP), 0)
	// A token from before the revocation renews nothing either.
	wantCode(t, a.byToken(alice, stun.MethodRefresh), stun.CodeUnauthorized)
}

// A lost flow refuses what is new; the live allocation and its own token go on.
func TestTokenKeepLive(t *testing.T) {
	w := newTokenWorld(t, nil)
	tok := w.issue(t, "alice", time.Minute)
	c := w.client(t, UDP, turncred.Credential{})
	wantCode(t, c.allocateByToken(tok), 0)
	mustRevoke(t, issuerOf{w.tokens}, turncred.Scope{IMPI: "alice", AllBindings: true, KeepLive: true})
	wantCode(t, c.byToken(tok, stun.MethodRefresh), 0)
	wantCode(t, w.client(t, UDP, turncred.Credential{}).allocateByToken(tok), stun.CodeUnauthorized)
}

// issuerOf makes a turncred.Provisioner of an issuer of tokens, in USERNAMEs.
type issuerOf struct{ *token.Issuer }

func (i issuerOf) Provision(_ context.Context, r turncred.Request) (turncred.Credential, error) {
	tok, err := i.Issue(r)
	if err != nil {
		return turncred.Credential{}, err
	}
	return inUsername(tok), nil
}

func inUsername(tok token.Token) turncred.Credential {
	return turncred.Credential{Username: tok.Username(), Password: tok.Password(), Texp: tok.Expires, Realm: testRealm, Identity: tok.Identity}
}

// The token in a USERNAME, as for browsers: it cannot be renewed, so its allocations follow
// AfterExpiry.
func TestTokenInUsername(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now = clk.Now }) // ACCESS-TOKEN is off
	cred := provision(t, issuerOf{w.tokens}, "alice", 1, 5*time.Minute)
	c := w.client(t, UDP, cred)
	relayed := c.allocate(lifetime(time.Hour))
	wrong := w.client(t, UDP, cred)
	wrong.cred.Password = turncred.NewSecret([]byte("wrong"))
	wrong.challenge()
	wantCode(t, wrong.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)

	clk.advance(5*time.Minute + token.Delta)
	c.challenge()
	wantLifetime(t, c.signed(stun.MethodRefresh), defaultLifetime)
	p := newPeer(t)
	wantCode(t, c.bind(0x4000, p.addr), 0)
	c.sendChannel(0x4000, "in mid-call")
	p.want(relayed, "in mid-call")
	late := w.client(t, UDP, cred)
	late.challenge()
	wantCode(t, late.signed(stun.MethodAllocate, transportUDP), stun.CodeUnauthorized)
	if _, err := w.cfg.Auth.Authenticate(cred.Username, clk.Now()); !errors.Is(err, turncred.ErrUnknownUser) {
		t.Errorf("Authenticate: %v", err)
	}
}

func TestTokenWithoutNonceOrUsernameIs400(t *testing.T) {
	w := newTokenWorld(t, nil)
	tok := w.issue(t, "alice", time.Minute)
	c := w.client(t, UDP, turncred.Credential{})
	c.challenge()
	for _, without := range []stun.AttrType{stun.AttrUsername, stun.AttrNonce} {
		m := c.request(stun.MethodAllocate, transportUDP, attr(attrAccessToken, tok.Raw...))
		for t, v := range map[stun.AttrType]string{stun.AttrUsername: string(tok.KeyID), stun.AttrNonce: c.nonce} {
			if t != without {
				m.Add(t, []byte(v))
			}
		}
		integritySHA1.addTo(m, tok.MACKey.Reveal())
		wantCode(t, c.do(m), stun.CodeBadRequest)
	}
}
