package bearer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var noon = time.Unix(1_795_000_000, 0)

// signer is a WAF's key.
type signer struct {
	kid     string
	alg     jose.SignatureAlgorithm
	private crypto.Signer
}

func (s signer) public() crypto.PublicKey { return s.private.Public() }

func newSigner(t testing.TB, kid string, alg jose.SignatureAlgorithm) signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case jose.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.RS256:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, alg, key}
}

func (s signer) sign(t testing.TB, typ string, body any) string {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	opts := (&jose.SignerOptions{}).WithHeader("kid", s.kid)
	if typ != "" {
		opts = opts.WithType(jose.ContentType(typ))
	}
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: s.private}, opts)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := j.Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	out, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// staticKeys is a WAF in this process.
type staticKeys map[string]crypto.PublicKey

func (k staticKeys) Key(_ context.Context, kid string) (crypto.PublicKey, error) {
	if key, ok := k[kid]; ok {
		return key, nil
	}
	return nil, fmt.Errorf("%w: unknown kid", ErrInvalid)
}

var wanted = Expected{Issuer: "https://waf.test", Audience: "sip:ims.test", Scope: "webrtc-ims-client-access-to-ims"}

func claims() Claims {
	return Claims{
		TokenID: "jti1", Grant: "grant1", Issuer: wanted.Issuer, Audience: []string{wanted.Audience}, Subject: "alice",
		ClientID: "wic", Scopes: []string{"stun", wanted.Scope}, IMPI: "alice@ims.test",
		IMPUs: []string{"sip:alice@ims.test", "tel:+4930123456"}, WWSF: "https://phone.test", WAF: "waf.test",
		IssuedAt: noon, Expires: noon.Add(10 * time.Minute),
	}
}

func at(d time.Duration) func() time.Time { return func() time.Time { return noon.Add(d) } }

func verifier(t testing.TB, now func() time.Time, revoked *Revocations, signers ...signer) *Offline {
	t.Helper()
	keys := staticKeys{}
	for _, s := range signers {
		keys[s.kid] = s.public()
	}
	v, err := NewOffline(wanted, keys, revoked, now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOfflineReadsWhatTheWAFSays(t *testing.T) {
	for _, alg := range algorithms {
		s := newSigner(t, "k1", alg)
		c, err := verifier(t, at(time.Minute), nil, s).Verify(t.Context(), s.sign(t, "at+jwt", claims()))
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if got, want := fmt.Sprint(c), fmt.Sprint(claims()); got != want {
			t.Errorf("%s: Verify = %s, want %s", alg, got, want)
		}
		if !c.Owns("tel:+4930123456") || c.Owns("sip:bob@ims.test") || c.Rest(noon.Add(time.Minute)) != 9*time.Minute {
			t.Errorf("%s: Owns or Rest of %v", alg, c)
		}
	}
}

func TestOfflineRefuses(t *testing.T) {
	ed, es, rs := newSigner(t, "ed", jose.EdDSA), newSigner(t, "es", jose.ES256), newSigner(t, "rs", jose.RS256)
	stranger := newSigner(t, "ed", jose.EdDSA)
	v := verifier(t, at(0), nil, ed, es, rs)
	good := ed.sign(t, Type, claims())
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	with := func(edit func(*Claims)) string {
		c := claims()
		edit(&c)
		return ed.sign(t, Type, c)
	}
	parts := strings.Split(good, ".")
	header := func(h string) string { return base64.RawURLEncoding.EncodeToString([]byte(h)) }
	hs := func(key []byte) string { // HMAC with what everyone knows (RFC 8725 §2.1)
		in := header(`{"alg":"HS256","typ":"at+jwt","kid":"ed"}`) + "." + parts[1]
		m := hmac.New(sha256.New, key)
		m.Write([]byte(in))
		return in + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	spki, err := x509.MarshalPKIXPublicKey(ed.public())
	if err != nil {
		t.Fatal(err)
	}
	esAsEd := es
	esAsEd.kid = "ed"
	bare := claims()
	bare.IMPI = ""

	for _, tt := range []struct {
		name, token string
		want        error
	}{
		{"empty", "", ErrInvalid},
		{"a megabyte of dots", strings.Repeat(".", 1<<20), ErrInvalid},
		{"dots", strings.Repeat(".", MaxTokenLen), ErrInvalid},
		{"long", strings.Repeat("a", MaxTokenLen), ErrInvalid},
		{"alg none", header(`{"alg":"none","typ":"at+jwt","kid":"ed"}`) + "." + parts[1] + ".", ErrInvalid},
		{"alg none with a signature", header(`{"alg":"none","typ":"at+jwt","kid":"ed"}`) + "." + parts[1] + "." + parts[2], ErrInvalid},
		{"HS256 by the public key", hs(ed.public().(ed25519.PublicKey)), ErrInvalid},
		{"HS256 by the public key in DER", hs(spki), ErrInvalid},
		{"RS256", rs.sign(t, Type, claims()), ErrInvalid},
		{"ES256 under a kid of EdDSA", esAsEd.sign(t, Type, claims()), ErrInvalid},
		{"signed by a stranger", stranger.sign(t, Type, claims()), ErrInvalid},
		{"unknown kid", newSigner(t, "new", jose.EdDSA).sign(t, Type, claims()), ErrInvalid},
		{"no kid", header(`{"alg":"EdDSA","typ":"at+jwt"}`) + "." + parts[1] + "." + parts[2], ErrInvalid},
		{"a key of its own", header(`{"alg":"EdDSA","typ":"at+jwt","jwk":{"kty":"OKP","crv":"Ed25519","x":"AAAA"}}`) + "." + parts[1] + "." + parts[2], ErrInvalid},
		{"critical header", header(`{"alg":"EdDSA","typ":"at+jwt","kid":"ed","crit":["x"],"x":1}`) + "." + parts[1] + "." + parts[2], ErrInvalid},
		{"other header", header(`{"alg":"EdDSA","typ":"at+jwt","kid":"ed" }`) + "." + parts[1] + "." + parts[2], ErrInvalid},
		{"typ JWT", ed.sign(t, "JWT", claims()), ErrInvalid},
		{"no typ", ed.sign(t, "", claims()), ErrInvalid},
		{"no JSON", ed.sign(t, Type, "text"), ErrInvalid},
		{"JSON serialization", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, ErrInvalid},
		{"other issuer", with(func(c *Claims) { c.Issuer += "/" }), ErrInvalid},
		{"other audience", with(func(c *Claims) { c.Audience = []string{"turn.test", "sip:ims.test.example"} }), ErrInvalid},
		{"no audience", with(func(c *Claims) { c.Audience = nil }), ErrInvalid},
		{"expired by 6 s", with(func(c *Claims) { c.Expires = noon.Add(-6 * time.Second) }), ErrInvalid},
		{"expired by 5 s", with(func(c *Claims) { c.Expires = noon.Add(-5 * time.Second) }), ErrInvalid},
		{"expired by 4 s", with(func(c *Claims) { c.Expires = noon.Add(-4 * time.Second) }), nil},
		{"a clock 30 s ahead", with(func(c *Claims) { c.IssuedAt = noon.Add(30 * time.Second) }), ErrInvalid},
		{"a clock 5 s ahead", with(func(c *Claims) { c.IssuedAt = noon.Add(5 * time.Second) }), nil},
		{"no jti", with(func(c *Claims) { c.TokenID = "" }), ErrInvalid},
		{"no identity", ed.sign(t, Type, bare), ErrInvalid},
		{"other scope", with(func(c *Claims) { c.Scopes = []string{"stun"} }), ErrScope},
		{"nearly the scope", with(func(c *Claims) { c.Scopes = []string{wanted.Scope + "x"} }), ErrScope},
	} {
		c, err := v.Verify(t.Context(), tt.token)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err != nil && c.IMPI != "" {
			t.Errorf("%s: claims beside an error", tt.name)
		}
		if err != nil && len(tt.token) > 20 && strings.Contains(err.Error(), tt.token[:20]) {
			t.Errorf("%s: the error shows the token: %v", tt.name, err)
		}
	}
}

func TestRevocations(t *testing.T) {
	s := newSigner(t, "k", jose.EdDSA)
	now := noon
	clock := func() time.Time { return now }
	revoked := NewRevocations(clock)
	v := verifier(t, clock, revoked, s)
	token := func(jti, grant string) string {
		c := claims()
		c.TokenID, c.Grant = jti, grant
		return s.sign(t, Type, c)
	}
	verify := func(token string, want error) {
		t.Helper()
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, want) {
			t.Errorf("Verify: %v, want %v", err, want)
		}
	}
	verify(token("a", "g"), nil)
	revoked.Revoke("g", noon.Add(10*time.Minute))
	verify(token("a", "g"), ErrInvalid)
	verify(token("b", "g"), ErrInvalid)
	verify(token("c", "h"), nil)
	revoked.Revoke("c", noon.Add(10*time.Minute))
	verify(token("c", "h"), ErrInvalid)
	verify(token("d", ""), nil)

	// A full set makes room by forgetting what has expired, and nothing else.
	for i := range maxRevocations - 2 {
		if !revoked.Revoke(fmt.Sprint(i), noon.Add(time.Minute)) {
			t.Fatal("no room for", i)
		}
	}
	if revoked.Revoke("one more", noon.Add(time.Minute)) {
		t.Error("a full set took one more")
	}
	now = noon.Add(2 * time.Minute)
	if !revoked.Revoke("one more", noon.Add(time.Hour)) || len(revoked.until) != 3 {
		t.Errorf("%d revocations after those of a minute went, want 3", len(revoked.until))
	}
	verify(token("a", "g"), ErrInvalid)
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f, "k1", jose.EdDSA)
	v := verifier(f, at(0), nil, s)
	good := s.sign(f, Type, claims())
	for _, seed := range []string{good, "", "..", "a.b.c", strings.Repeat(".", 100), good + "=", strings.ToUpper(good)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(t.Context(), token)
		// Whoever lacks the key can send nothing else that is taken.
		if err == nil && token != good {
			t.Fatalf("took %q: %v", token, c)
		}
	})
}

// TestGrantTid: what names a grant at the credential interface reads back, and nothing else does.
func TestGrantTid(t *testing.T) {
	const grant = "AAAAAAAAAAAAAAAAAAAAAA"
	if got := GrantOf(GrantTid(grant)); got != grant {
		t.Errorf("GrantOf(GrantTid(%q)) = %q", grant, got)
	}
	if tid := GrantTid("of another WAF"); tid != "" {
		t.Errorf("a foreign grant is named %q", tid)
	}
	if got := GrantOf("k1-" + grant); got != "" {
		t.Errorf("a credential is taken for the grant %q", got)
	}
}
