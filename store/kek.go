package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"

	"epcscf/turncred"
)

// KEK is a key-encryption key: 32 bytes or more, from a file or a systemd credential.
type KEK struct {
	ID     turncred.KeyID
	Secret turncred.Secret
}

// KEKs are the key-encryption keys that a process has. Rows are sealed under the current
// one, and opened under whichever they name. Safe for concurrent use.
type KEKs struct {
	mu      sync.RWMutex // guards the fields below
	current turncred.KeyID
	prks    map[turncred.KeyID]*turncred.MAC
}

// NewKEKs returns the keys. older are those that rows may still be under.
func NewKEKs(current KEK, older ...KEK) (*KEKs, error) {
	k := &KEKs{}
	return k, k.Use(current, older...)
}

// Use replaces the keys. A store that is open goes on with the new ones.
func (k *KEKs) Use(current KEK, older ...KEK) error {
	prks := make(map[turncred.KeyID]*turncred.MAC, 1+len(older))
	for _, key := range append([]KEK{current}, older...) {
		if _, err := turncred.ParseKeyID(string(key.ID)); err != nil {
			return fmt.Errorf("%w: %w", ErrKEK, err)
		}
		if key.Secret.Len() < turncred.MinSecretLen {
			return fmt.Errorf("%w %s: %d bytes, want %d or more", ErrKEK, key.ID, key.Secret.Len(), turncred.MinSecretLen)
		}
		if prks[key.ID] != nil {
			return fmt.Errorf("%w %s is given twice", ErrKEK, key.ID)
		}
		prk, err := hkdf.Extract(sha256.New, key.Secret.Reveal(), nil)
		if err != nil {
			return fmt.Errorf("%w %s: %w", ErrKEK, key.ID, err)
		}
		prks[key.ID] = turncred.NewMAC(sha256.New, turncred.NewSecret(prk))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current, k.prks = current.ID, prks
	return nil
}

// Current returns the id of the key that rows are sealed under.
func (k *KEKs) Current() turncred.KeyID {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.current
}

// Has reports whether rows under id can be opened.
func (k *KEKs) Has(id turncred.KeyID) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.prks[id] != nil
}

// Sealed is a secret under a KEK.
type Sealed struct {
	KEK turncred.KeyID
	Box []byte // salt | AES-256-GCM ciphertext and tag
}

// The tables with sealed columns; a row key is bound to one.
const (
	TableCredentials = "credentials"
	TableKeys        = "keys"
	TableChecks      = "kek_checks"
)

const (
	saltLen  = 16
	keyLabel = "epcscf store"
)

// Seal encrypts the secret of a row under the current KEK; ad are the row's clear columns.
func (k *KEKs) Seal(table, id string, ad, secret []byte) (Sealed, error) {
	kid := k.Current()
	box := make([]byte, saltLen, saltLen+len(secret)+16)
	if _, err := rand.Read(box); err != nil {
		return Sealed{}, fmt.Errorf("seal %s %s: %w", table, id, err)
	}
	gcm, err := k.rowKey(kid, string(box), table, id)
	if err != nil {
		return Sealed{}, err
	}
	// The salt makes a key that seals this once, so the nonce need not differ.
	var nonce [12]byte
	return Sealed{kid, gcm.Seal(box, nonce[:], secret, ad)}, nil
}

// Open decrypts what Seal made for the same row and clear columns. The error is ErrKEK
// where the row's KEK is not there, and ErrCorrupt where the row does not open.
func (k *KEKs) Open(table, id string, ad []byte, s Sealed) ([]byte, error) {
	if len(s.Box) < saltLen {
		return nil, fmt.Errorf("%s %s: %w", table, id, ErrCorrupt)
	}
	gcm, err := k.rowKey(s.KEK, string(s.Box[:saltLen]), table, id)
	if err != nil {
		return nil, err
	}
	var nonce [12]byte
	secret, err := gcm.Open(nil, nonce[:], s.Box[saltLen:], ad)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", table, id, ErrCorrupt)
	}
	return secret, nil
}

// rowKey derives the key of one sealing. RFC 5869 §2.3: for as many bytes as the hash has,
// the output is T(1) = HMAC-Hash(PRK, info | 0x01).
func (k *KEKs) rowKey(kid turncred.KeyID, salt, table, id string) (cipher.AEAD, error) {
	k.mu.RLock()
	prk := k.prks[kid]
	k.mu.RUnlock()
	if prk == nil {
		return nil, fmt.Errorf("%s %s: %w %q is not among those given", table, id, ErrKEK, kid)
	}
	var key [sha256.Size]byte
	block, err := aes.NewCipher(prk.Append(key[:0], rowInfo(salt, table, id)+"\x01"))
	clear(key[:])
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", table, id, err)
	}
	return cipher.NewGCM(block)
}

// rowInfo is unambiguous: the label and the salt have a fixed length, and no table's name
// has a NUL.
func rowInfo(salt, table, id string) string { return keyLabel + salt + table + "\x00" + id }

// checkText is sealed once for each KEK, so that a wrong key is found at the start and not
// in the first row.
const checkText = "this is the key-encryption key of these rows"

// SealCheck returns the proof that rows under the current KEK were sealed with this key.
func (k *KEKs) SealCheck() (Sealed, error) {
	return k.Seal(TableChecks, string(k.Current()), nil, []byte(checkText))
}

// OpenCheck proves a KEK of which rows exist. The error is ErrKEK and says what is wrong.
func (k *KEKs) OpenCheck(s Sealed) error {
	if !k.Has(s.KEK) {
		return fmt.Errorf("%w: rows are sealed under %s, which is not among those given: add it until all are resealed", ErrKEK, s.KEK)
	}
	if text, err := k.Open(TableChecks, string(s.KEK), nil, s); err != nil || string(text) != checkText {
		return fmt.Errorf("%w %s is not the key that sealed the rows: the file has been replaced, or belongs to another store", ErrKEK, s.KEK)
	}
	return nil
}
