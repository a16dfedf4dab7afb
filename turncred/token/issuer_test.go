package token

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

type revoker struct{ last turncred.Revocation }

func (r *revoker) Revoke(_ context.Context, v turncred.Revocation) error { r.last = v; return nil }

// newIssuer returns both ends of one deployment.
func newIssuer(t testing.TB, now func() time.Time, keys ...Key) (*Issuer, *Authenticator, *revoker) {
	t.Helper()
	codec, err := turncred.NewTidCodec(turncred.NewSecret(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	r := &revoker{}
	m, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Revoker: r, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewIssuer(m, ring, serverName)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthenticator(AuthenticatorConfig{Ring: ring, ServerName: serverName, Realm: "ims.test"})
	if err != nil {
		t.Fatal(err)
	}
	return i, a, r
}

func TestTheRelayReadsWhatTheIssuerWrote(t *testing.T) {
	now := func() time.Time { return start }
	i, a, r := newIssuer(t, now, Key{ID: "k1", Secret: secretK})
	tok, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Binding: 7, Life: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if len(tok.Raw) != 64 || tok.Lifetime != 10*time.Minute || len(tok.Username()) > 508 {
		t.Errorf("token of %d bytes, %v, user name of %d", len(tok.Raw), tok.Lifetime, len(tok.Username()))
	}
	key := tok.MACKey.Reveal()
	if len(key) != 20 || !bytes.Equal(key[16:], make([]byte, 4)) {
		t.Errorf("mac_key of %d bytes, want 20 with four zeros at the end", len(key))
	}

	byToken, err := a.AuthenticateToken("k1", tok.Raw, start)
	if err != nil || !byToken.Key.MD5.Equal(tok.MACKey) || !byToken.Key.SHA256.Equal(tok.MACKey) || !byToken.Texp.Equal(start.Add(10*time.Minute)) {
		t.Fatalf("AuthenticateToken = %+v, %v", byToken, err)
	}
	byName, err := a.Authenticate(tok.Username(), start)
	if err != nil || !byName.Key.Equal(turncred.NewLongTermKey(tok.Username(), "ims.test", tok.Password())) || byName.Tid != byToken.Tid {
		t.Fatalf("Authenticate = %+v, %v", byName, err)
	}
	if want := base64.StdEncoding.EncodeToString(key); string(tok.Password().Reveal()) != want {
		t.Error("the password is not base64(mac_key)")
	}
	for name, p := range map[string]turncred.Proof{"ACCESS-TOKEN": byToken, "USERNAME": byName} {
		id, err := p.Identify()
		if err != nil || id != tok.Identity || id.Subject == 0 {
			t.Errorf("%s: Identify = %+v, %v, want %+v", name, id, err, tok.Identity)
		}
		if p.Tid.KeyID() != "k1" || strings.Contains(string(p.Tid), tok.Username()) {
			t.Errorf("%s: Tid %s", name, p.Tid)
		}
	}

	// A revocation reaches what was issued before it, and nothing later.
	if err := i.Revoke(t.Context(), turncred.Scope{IMPI: "alice@ims.test", AllBindings: true}); err != nil {
		t.Fatal(err)
	}
	later, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if !r.last.Hits(byToken.Tid, tok.Identity) || r.last.Hits("", later.Identity) {
		t.Errorf("%+v: hits before %t, after %t", r.last, r.last.Hits(byToken.Tid, tok.Identity), r.last.Hits("", later.Identity))
	}
}

func TestTokensOfOneMomentDiffer(t *testing.T) {
	i, _, _ := newIssuer(t, func() time.Time { return start }, Key{ID: "k1", Secret: secretK})
	seen := map[string]bool{}
	for range 100 {
		tok, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
		if err != nil || seen[string(tok.MACKey.Reveal())] {
			t.Fatalf("the same mac_key again, or %v", err)
		}
		seen[string(tok.MACKey.Reveal())] = true
	}
}

// proofOf seals a token by hand and returns its proof.
func proofOf(t *testing.T, a *Authenticator, key Key, macLen int) turncred.Proof {
	t.Helper()
	s, err := NewSealer(key, serverName)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Seal(Claims{MACKey: mac(macLen), Issued: start, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.AuthenticateToken(string(key.ID), raw, start)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestForeignTokens(t *testing.T) {
	key := Key{ID: "as1", Secret: secretK, Foreign: true}
	i, a, _ := newIssuer(t, func() time.Time { return start }, key)
	if _, err := i.Issue(turncred.Request{IMPI: "alice", Life: time.Minute}); !errors.Is(err, ErrNoKey) {
		t.Errorf("a token with another's key: %v, want ErrNoKey", err)
	}
	for _, n := range []int{20, 32} {
		p := proofOf(t, a, key, n)
		if id, err := p.Identify(); err != nil || id != (turncred.Identity{Issued: turncred.IssueTimeAt(start)}) {
			t.Errorf("Identify = %+v, %v", id, err)
		}
		byKid := turncred.Revocation{KeyID: "as1", IssuedUntil: turncred.IssueTimeAt(start)}
		id, _ := p.Identify()
		if !byKid.Hits(p.Tid, id) || (turncred.Revocation{IssuedUntil: 1 << 39}).Hits(p.Tid, id) {
			t.Error("revocation by kid misses, or one of nobody hits")
		}
	}
}

// With a key of ours, only a mac_key of ours has a holder.
func TestOurKeyWantsOurMACKey(t *testing.T) {
	key := Key{ID: "k1", Secret: secretK}
	_, a, _ := newIssuer(t, func() time.Time { return start }, key)
	for _, n := range []int{20, 32} {
		p := proofOf(t, a, key, n)
		if _, err := p.Identify(); !errors.Is(err, ErrToken) {
			t.Errorf("mac_key of %d bytes: %v, want ErrToken", n, err)
		}
	}
}

func TestUsernames(t *testing.T) {
	i, a, _ := newIssuer(t, func() time.Time { return start }, Key{ID: "k1", Secret: secretK})
	tok, err := i.Issue(turncred.Request{IMPI: "alice", Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	good := tok.Username()
	for name, username := range map[string]string{
		"empty": "", "separator": "~", "no separator": strings.Replace(good, "~", ":", 1), "padded": good + "==",
		"line end": good[:20] + "\n" + good[20:], "line ends at the end": good + "\r\n", "other kid": "k2" + good[2:],
		"standard alphabet": "k1~" + base64.RawStdEncoding.EncodeToString(bytes.Repeat([]byte{0xFB}, 64)),
		"two separators":    "k1~" + good,
	} {
		if _, err := a.Authenticate(username, start); !errors.Is(err, turncred.ErrUnknownUser) {
			t.Errorf("%s: %v, want ErrUnknownUser", name, err)
		}
	}
	for name, at := range map[string]time.Time{"expired": start.Add(time.Minute + Delta), "future": start.Add(-Delta - time.Second)} {
		if _, err := a.Authenticate(good, at); !errors.Is(err, ErrStale) || !errors.Is(err, turncred.ErrUnknownUser) {
			t.Errorf("%s: %v, want ErrStale", name, err)
		}
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	i, _, _ := newIssuer(t, func() time.Time { return start }, Key{ID: "k1", Secret: secretK})
	tok, err := i.Issue(turncred.Request{IMPI: "alice", Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{tok, Key{ID: "k1", Secret: secretK}, Claims{MACKey: tok.MACKey}} {
		s := fmt.Sprintf("%v %+v %#v", v, v, v)
		if strings.Contains(s, string(secretK.Reveal())) || strings.Contains(s, string(tok.MACKey.Reveal())) {
			t.Errorf("%T prints a key: %s", v, s)
		}
	}
}

func TestConfigsAreChecked(t *testing.T) {
	ring, err := NewKeyRing()
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []AuthenticatorConfig{
		{ServerName: "s", Realm: "r"}, {Ring: ring, Realm: "r"}, {Ring: ring, ServerName: "s"},
		{Ring: ring, ServerName: strings.Repeat("s", 256), Realm: "r"}, {Ring: ring, ServerName: "s", Realm: "r", MaxLifetime: -1},
	} {
		if _, err := NewAuthenticator(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	if _, err := NewIssuer(nil, ring, "s"); err == nil {
		t.Error("an issuer without a minter")
	}
}

// A key is replaced before its nonces could meet (NIST SP 800-38D §8.3): the next one of the
// ring takes over, and where there is none, nothing is issued.
func TestAKeyIsReplacedBeforeItIsUsedUp(t *testing.T) {
	now := func() time.Time { return start }
	i, a, _ := newIssuer(t, now, Key{ID: "k1", Secret: secretK}, Key{ID: "k2", Secret: turncred.NewSecret(bytes.Repeat([]byte{2}, 32)), NotBefore: start.Add(-time.Hour)})
	i.maxUses = 100
	used := map[turncred.KeyID]int{}
	for {
		tok, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
		if errors.Is(err, ErrNoKey) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.AuthenticateToken(string(tok.KeyID), tok.Raw, start); err != nil {
			t.Fatal(err)
		}
		used[tok.KeyID]++
	}
	if used["k1"] != 100 || used["k2"] != 100 {
		t.Errorf("uses %v, want 100 of each", used)
	}
	ring := func(keys ...Key) *KeyRing {
		t.Helper()
		r, err := NewKeyRing(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	i.Use(ring(Key{ID: "k1", Secret: secretK})) // a reload makes no key fresh
	if _, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute}); !errors.Is(err, ErrNoKey) {
		t.Errorf("the same key in another ring: %v, want ErrNoKey", err)
	}
	i.Use(ring(Key{ID: "k3", Secret: turncred.NewSecret(bytes.Repeat([]byte{3}, 32))}))
	if tok, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute}); err != nil || tok.KeyID != "k3" {
		t.Errorf("another key: %v, %v", tok.KeyID, err)
	}
	if 8*MaxUses > 1<<32 {
		t.Errorf("MaxUses is %d: eight processes exceed 2^32", MaxUses)
	}
}

func BenchmarkIssue(b *testing.B) {
	i, _, _ := newIssuer(b, time.Now, Key{ID: "k1", Secret: secretK})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Minute}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	i, a, _ := newIssuer(b, time.Now, Key{ID: "k1", Secret: secretK})
	tok, err := i.Issue(turncred.Request{IMPI: "alice@ims.test", Life: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	b.Run("access-token", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.AuthenticateToken("k1", tok.Raw, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("user-name", func(b *testing.B) {
		name := tok.Username()
		for b.Loop() {
			if _, err := a.Authenticate(name, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
