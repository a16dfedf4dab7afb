package store

import (
	"context"
	"fmt"
	"time"

	"epcscf/turncred"
)

// KeyKind says what a key of the ring is for.
type KeyKind string

// The kinds of keys.
const (
	KeyShared KeyKind = "shared-key" // Km of approach 1
	KeyToken  KeyKind = "token"      // K of RFC 7635
	KeyKEK    KeyKind = "kek"        // named only: its secret is never in the store
	KeyJWT    KeyKind = "jwt"        // the WAF's private signing keys, PKCS #8
)

// KeyState is where a key is in its life.
type KeyState string

// The states of a key, in their order.
const (
	KeyNext    KeyState = "next"    // on its way to every relay; nobody signs with it
	KeyCurrent KeyState = "current" // signed with
	KeyRetired KeyState = "retired" // no longer signed with, but what it signed lives on
	KeyRevoked KeyState = "revoked" // nothing that it signed is good
)

// Key is an entry of the key ring. Kind and ID name it.
type Key struct {
	Kind      KeyKind
	ID        turncred.KeyID
	Algorithm string          // as the kind needs it: EdDSA, ES256, A256GCM; may be empty
	Secret    turncred.Secret // empty of a KEK
	NotBefore time.Time       // not signed with before; zero: always
	NotAfter  time.Time       // not signed with from then on; zero: never
	State     KeyState
	Created   time.Time // set by AddKey
}

// Keys are the key ring: what `epcscf keys` lists and changes.
type Keys interface {
	// AddKey writes a new key. The same again is no error; a kid with another secret or
	// algorithm is ErrConflict.
	AddKey(ctx context.Context, k Key) error
	// SetKey moves a key from a state to k.State, with k's NotBefore and NotAfter; its secret
	// does not change. The error is ErrNotFound, or ErrConflict where its state is not from:
	// somebody else moved it.
	SetKey(ctx context.Context, from KeyState, k Key) error
	// DeleteKey forgets a key. The error is ErrNotFound.
	DeleteKey(ctx context.Context, kind KeyKind, id turncred.KeyID) error
	// Keys returns the keys of a kind, or with "" all, by kind and id.
	Keys(ctx context.Context, kind KeyKind) ([]Key, error)
	// Reseal moves max rows at most that are under an older KEK to the current one, and
	// returns how many. After it has returned 0 no older KEK is needed.
	Reseal(ctx context.Context, max int) (int, error)
}

// CheckKey reports what of k cannot be stored. The error is ErrInvalid.
func CheckKey(k Key) error {
	if _, err := turncred.ParseKeyID(string(k.ID)); err != nil {
		return fmt.Errorf("%s key: %w: %w", k.Kind, ErrInvalid, err)
	}
	switch k.Kind {
	case KeyShared, KeyToken, KeyJWT:
		if n := k.Secret.Len(); n == 0 || n > maxKeyLen {
			return fmt.Errorf("%s key %s: %w: a secret of %d bytes", k.Kind, k.ID, ErrInvalid, n)
		}
	case KeyKEK:
		if k.Secret.Len() != 0 {
			return fmt.Errorf("kek %s: %w: a key-encryption key is not kept beside what it encrypts", k.ID, ErrInvalid)
		}
	default:
		return fmt.Errorf("key %s: %w: unknown kind %q", k.ID, ErrInvalid, k.Kind)
	}
	return CheckKeyState(k.State)
}

// CheckKeyState reports a state that there is not. The error is ErrInvalid.
func CheckKeyState(s KeyState) error {
	switch s {
	case KeyNext, KeyCurrent, KeyRetired, KeyRevoked:
		return nil
	}
	return fmt.Errorf("key: %w: unknown state %q", ErrInvalid, s)
}

// maxKeyLen is more than an RSA key of 4096 bits needs.
const maxKeyLen = 8192

// SameKey reports whether two entries are one key, whatever their state.
func SameKey(a, b Key) bool {
	return a.Kind == b.Kind && a.ID == b.ID && a.Algorithm == b.Algorithm && a.Secret.Equal(b.Secret)
}

// SealKey seals the secret of key. Its state and times change and are not bound to it.
func (k *KEKs) SealKey(key Key) (Sealed, error) {
	return k.Seal(TableKeys, keyRow(key), []byte(key.Algorithm), key.Secret.Reveal())
}

// OpenKey fills the secret of key. The error is ErrKEK or ErrCorrupt.
func (k *KEKs) OpenKey(key *Key, s Sealed) error {
	b, err := k.Open(TableKeys, keyRow(*key), []byte(key.Algorithm), s)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		key.Secret = turncred.NewSecret(b)
		clear(b)
	}
	return nil
}

func keyRow(k Key) string { return string(k.Kind) + "/" + string(k.ID) }
