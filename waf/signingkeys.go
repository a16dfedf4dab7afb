package waf

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/waf/bearer"
)

// NewSigningKey makes a key for registration tokens; alg is EdDSA or ES256. It is KeyNext:
// published, not yet signed with.
func NewSigningKey(alg string) (store.Key, error) {
	var private crypto.Signer
	var err error
	switch jose.SignatureAlgorithm(alg) {
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return store.Key{}, fmt.Errorf("unknown algorithm %q: use EdDSA or ES256", alg)
	}
	if err != nil {
		return store.Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return store.Key{}, err
	}
	return store.Key{
		Kind: store.KeyJWT, ID: turncred.KeyID(strings.ToLower(rand.Text()[:12])), Algorithm: alg,
		Secret: turncred.NewSecret(der), State: store.KeyNext,
	}, nil
}

// signingKey is a key as it is used.
type signingKey struct {
	store.Key
	private crypto.Signer
}

// SigningKeys sign registration tokens. They can be replaced while in use; safe for
// concurrent use. It is a bearer.Keys, for verifiers in this process.
type SigningKeys struct {
	keys atomic.Pointer[[]signingKey]
	now  func() time.Time
}

var _ bearer.Keys = (*SigningKeys)(nil)

// errNoSigningKey says that no key is current.
var errNoSigningKey = errors.New("waf: no key to sign with")

// NewSigningKeys returns the keys; now is time.Now where it is nil. The error names the key
// that is unfit.
func NewSigningKeys(now func() time.Time, keys ...store.Key) (*SigningKeys, error) {
	if now == nil {
		now = time.Now
	}
	s := &SigningKeys{now: now}
	return s, s.Set(keys...)
}

// Set replaces the keys: those of kind jwt of the key ring. A key that is next is published
// already, so that no verifier meets an unknown kid; one that is retired still is; one that
// is revoked is neither published nor signed with.
func (s *SigningKeys) Set(keys ...store.Key) error {
	var all []signingKey
	for _, k := range keys {
		if k.Kind != store.KeyJWT || k.State == store.KeyRevoked {
			continue
		}
		private, err := x509.ParsePKCS8PrivateKey(k.Secret.Reveal())
		if err != nil {
			return fmt.Errorf("jwt key %s: not a private key in PKCS #8", k.ID)
		}
		signer, fits := private.(crypto.Signer), false
		switch p := private.(type) {
		case ed25519.PrivateKey:
			fits = k.Algorithm == string(jose.EdDSA)
		case *ecdsa.PrivateKey:
			fits = k.Algorithm == string(jose.ES256) && p.Curve == elliptic.P256()
		}
		if !fits {
			return fmt.Errorf("jwt key %s: want a key of EdDSA or ES256, and its algorithm beside it", k.ID)
		}
		all = append(all, signingKey{k, signer})
	}
	s.keys.Store(&all)
	return nil
}

// signing returns the key to sign with: of those that are current and valid the youngest.
func (s *SigningKeys) signing() (*signingKey, error) {
	var best *signingKey
	now, keys := s.now(), *s.keys.Load()
	for i, k := range keys {
		if k.State != store.KeyCurrent || now.Before(k.NotBefore) || !k.NotAfter.IsZero() && !now.Before(k.NotAfter) {
			continue
		}
		if best == nil || k.NotBefore.After(best.NotBefore) {
			best = &keys[i]
		}
	}
	if best == nil {
		return nil, errNoSigningKey
	}
	return best, nil
}

// Key implements bearer.Keys.
func (s *SigningKeys) Key(_ context.Context, kid string) (crypto.PublicKey, error) {
	for _, k := range *s.keys.Load() {
		if string(k.ID) == kid {
			return k.private.Public(), nil
		}
	}
	return nil, fmt.Errorf("%w: unknown kid", bearer.ErrInvalid)
}

// jwks returns what is published (RFC 7517 §5).
func (s *SigningKeys) jwks() (set jose.JSONWebKeySet) {
	set.Keys = []jose.JSONWebKey{}
	for _, k := range *s.keys.Load() {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: string(k.ID), Algorithm: k.Algorithm, Use: "sig"})
	}
	return set
}

// sign makes a token by RFC 9068 §2.1.
func (s *SigningKeys) sign(c bearer.Claims) (string, error) {
	k, err := s.signing()
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: k.private},
		(&jose.SignerOptions{}).WithType(bearer.Type).WithHeader("kid", string(k.ID)))
	if err != nil {
		return "", err
	}
	sig, err := signer.Sign(body)
	if err != nil {
		return "", err
	}
	return sig.CompactSerialize()
}
