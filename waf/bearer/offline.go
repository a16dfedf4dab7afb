package bearer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Keys finds a public key of the WAF. A kid that it does not know is ErrInvalid, a WAF that
// does not answer ErrUnavailable.
type Keys interface {
	Key(ctx context.Context, kid string) (crypto.PublicKey, error)
}

// algorithms are the only ones: no MAC and no RSA, so that a public key can be taken for
// nothing else, and never "none" (RFC 8725 §3.1).
var algorithms = []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}

// Offline verifies tokens by the WAF's public keys. Safe for concurrent use.
type Offline struct {
	expected Expected
	keys     Keys
	revoked  *Revocations
	now      func() time.Time
}

// NewOffline returns a verifier. revoked may be nil, and now is time.Now where it is nil.
func NewOffline(e Expected, keys Keys, revoked *Revocations, now func() time.Time) (*Offline, error) {
	if e.Issuer == "" || e.Audience == "" || keys == nil {
		return nil, errors.New("bearer: issuer, audience and keys must be set")
	}
	if now == nil {
		now = time.Now
	}
	return &Offline{expected: e, keys: keys, revoked: revoked, now: now}, nil
}

// Verify returns what token says if it is good now. Errors wrap ErrInvalid, ErrScope or
// ErrUnavailable.
func (o *Offline) Verify(ctx context.Context, token string) (Claims, error) {
	sig, err := parse(token)
	if err != nil {
		return Claims{}, err
	}
	header := sig.Signatures[0].Header
	key, err := o.keys.Key(ctx, header.KeyID)
	if err != nil {
		return Claims{}, err
	}
	// RFC 8725 §3.1: a key is used with the algorithm that it was made for.
	if !fits(key, jose.SignatureAlgorithm(header.Algorithm)) {
		return Claims{}, fmt.Errorf("%w: algorithm and key do not fit", ErrInvalid)
	}
	body, err := sig.Verify(key)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: signature", ErrInvalid)
	}
	var c Claims
	if err := json.Unmarshal(body, &c); err != nil {
		return Claims{}, fmt.Errorf("%w: body", ErrInvalid)
	}
	if err := o.expected.check(c, o.now()); err != nil {
		return Claims{}, err
	}
	if o.revoked.hits(c) {
		return Claims{}, fmt.Errorf("%w: revoked", ErrInvalid)
	}
	return c, nil
}

// parse reads a compact JWS (RFC 7515 §7.1) whose header could be that of a token of ours.
func parse(token string) (*jose.JSONWebSignature, error) {
	if len(token) > MaxTokenLen {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxTokenLen)
	}
	if strings.Count(token, ".") != 2 {
		return nil, fmt.Errorf("%w: not three parts", ErrInvalid)
	}
	sig, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil || len(sig.Signatures) != 1 {
		return nil, fmt.Errorf("%w: malformed, or of an algorithm that is not taken", ErrInvalid)
	}
	header := sig.Signatures[0].Header
	// RFC 9068 §4: only typ tells an access token from the WAF's other JWTs.
	typ, _ := header.ExtraHeaders[jose.HeaderType].(string)
	if t := strings.ToLower(typ); t != Type && t != "application/"+Type {
		return nil, fmt.Errorf("%w: typ is not %s", ErrInvalid, Type)
	}
	if header.KeyID == "" || len(header.KeyID) > 128 {
		return nil, fmt.Errorf("%w: no kid", ErrInvalid)
	}
	return sig, nil
}

func fits(key crypto.PublicKey, alg jose.SignatureAlgorithm) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	case *ecdsa.PublicKey:
		return alg == jose.ES256 && k.Curve == elliptic.P256()
	}
	return false
}
