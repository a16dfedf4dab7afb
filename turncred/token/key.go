package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"epcscf/turncred"
)

// Algorithm is the AEAD of a key, by the names of RFC 7518 §5.1.
type Algorithm string

// The algorithms. RFC 7635 §4.1.1 wants A256GCM of everyone; A256CBC-HS512 is not offered,
// since its fixed IV and unsaid nonce leave nobody to interwork with.
const (
	A256GCM Algorithm = "A256GCM"
	A128GCM Algorithm = "A128GCM"
)

// ParseAlgorithm returns the algorithm that s names; "" is A256GCM.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch a := Algorithm(s); a {
	case "":
		return A256GCM, nil
	case A256GCM, A128GCM:
		return a, nil
	}
	return "", fmt.Errorf("unknown token algorithm %q: use %q or %q", s, A256GCM, A128GCM)
}

// KeyLen returns how many bytes of K the algorithm takes.
func (a Algorithm) KeyLen() int {
	if a == A128GCM {
		return 16
	}
	return 32
}

// Key is a long-term key K that an authorization server and STUN servers share.
type Key struct {
	ID turncred.KeyID
	// Secret is K: 32 bytes for A256GCM, 16 for A128GCM. A longer one is cut, as other
	// servers do.
	Secret    turncred.Secret
	Algorithm Algorithm // default A256GCM
	NotBefore time.Time // zero: always
	NotAfter  time.Time // zero: never; tokens made before live out their time
	// Foreign says that another authorization server makes tokens with this key. Their
	// users are unknown: quota counts each token for itself, and revocation is by kid.
	Foreign bool
}

// ErrNoKey says that a ring has no key of ours that is valid for making tokens now.
var ErrNoKey = errors.New("token: no valid key to issue with")

// KeyRing holds the keys of a deployment. It does not change, so it is safe for concurrent
// use; a rotation makes a new one. A new key stands in every relay's ring before anyone
// issues with it, and an old one stays until its last token has expired.
type KeyRing struct {
	keys  map[turncred.KeyID]*ringKey
	order []*ringKey
}

// ringKey is a Key with its ciphers.
type ringKey struct {
	Key
	aead    cipher.AEAD
	session cipher.Block // of our mac_keys; nil where the key is foreign
}

// NewKeyRing returns a ring of keys; the error names the key that is unfit.
func NewKeyRing(keys ...Key) (*KeyRing, error) {
	r := &KeyRing{keys: map[turncred.KeyID]*ringKey{}}
	for _, k := range keys {
		rk, err := newRingKey(k)
		if err != nil {
			return nil, err
		}
		if r.keys[k.ID] != nil {
			return nil, fmt.Errorf("token key %s is in the ring already", k.ID)
		}
		r.keys[k.ID] = rk
		r.order = append(r.order, rk)
	}
	return r, nil
}

func newRingKey(k Key) (*ringKey, error) {
	if _, err := turncred.ParseKeyID(string(k.ID)); err != nil {
		return nil, err
	}
	var err error
	if k.Algorithm, err = ParseAlgorithm(string(k.Algorithm)); err != nil {
		return nil, fmt.Errorf("token key %s: %w", k.ID, err)
	}
	n := k.Algorithm.KeyLen()
	if k.Secret.Len() < n {
		return nil, fmt.Errorf("token key %s: secret of %d bytes, %s wants %d", k.ID, k.Secret.Len(), k.Algorithm, n)
	}
	secret := k.Secret.Reveal()[:n]
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("token key %s: %w", k.ID, err)
	}
	rk := &ringKey{Key: k}
	if rk.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("token key %s: %w", k.ID, err)
	}
	if k.Foreign {
		return rk, nil
	}
	derived, err := hkdf.Key(sha256.New, secret, nil, "subject", 32)
	if err != nil {
		return nil, fmt.Errorf("token key %s: %w", k.ID, err)
	}
	if rk.session, err = aes.NewCipher(derived); err != nil {
		return nil, fmt.Errorf("token key %s: %w", k.ID, err)
	}
	return rk, nil
}

// issuing returns the key to issue with at now: of ours that are valid and not used up the
// youngest. The error is ErrNoKey.
func (r *KeyRing) issuing(now time.Time, fresh func(*ringKey) bool) (*ringKey, error) {
	var best *ringKey
	for _, k := range r.order {
		if k.Foreign || now.Before(k.NotBefore) || !k.NotAfter.IsZero() && !now.Before(k.NotAfter) || !fresh(k) {
			continue
		}
		if best == nil || k.NotBefore.After(best.NotBefore) {
			best = k
		}
	}
	if best == nil {
		return nil, ErrNoKey
	}
	return best, nil
}
