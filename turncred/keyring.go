package turncred

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Key is a shared key Km with its validity.
type Key struct {
	ID        KeyID
	Secret    Secret
	NotBefore time.Time // zero: always
	NotAfter  time.Time // zero: never
}

// ErrNoKey says that a ring has no key that is valid for signing now.
var ErrNoKey = errors.New("turncred: no valid signing key")

// KeyRing holds the keys of a deployment. A new key stands in every relay's ring before
// anyone signs with it (its NotBefore lies ahead), and an old one stays until its last
// credential has expired. Safe for concurrent use.
type KeyRing struct {
	mu   sync.RWMutex // guards keys
	keys []Key
}

// NewKeyRing returns a ring of keys; the error names the key that is unfit.
func NewKeyRing(keys ...Key) (*KeyRing, error) {
	r := &KeyRing{}
	for _, k := range keys {
		if err := r.Add(k); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Add puts a key into the ring.
func (r *KeyRing) Add(k Key) error {
	if _, err := ParseKeyID(string(k.ID)); err != nil {
		return err
	}
	if k.Secret.Len() < MinSecretLen {
		return fmt.Errorf("key %s: secret of %d bytes, want %d or more", k.ID, k.Secret.Len(), MinSecretLen)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.keys, func(o Key) bool { return o.ID == k.ID }) {
		return fmt.Errorf("key %s is in the ring already", k.ID)
	}
	r.keys = append(r.keys, k)
	return nil
}

// Signing returns the key to sign with at now: of the valid ones the youngest.
// The error is ErrNoKey.
func (r *KeyRing) Signing(now time.Time) (Key, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var best *Key
	for i, k := range r.keys {
		if now.Before(k.NotBefore) || (!k.NotAfter.IsZero() && !now.Before(k.NotAfter)) {
			continue
		}
		if best == nil || k.NotBefore.After(best.NotBefore) {
			best = &r.keys[i]
		}
	}
	if best == nil {
		return Key{}, ErrNoKey
	}
	return *best, nil
}

// Lookup returns the key of a kid, valid for signing or not: what it signed may live on.
func (r *KeyRing) Lookup(kid KeyID) (Key, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := slices.IndexFunc(r.keys, func(k Key) bool { return k.ID == kid })
	if i < 0 {
		return Key{}, false
	}
	return r.keys[i], true
}
