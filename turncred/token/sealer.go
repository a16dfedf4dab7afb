package token

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
)

// Sealer makes tokens with one key for one server. Safe for concurrent use.
type Sealer struct {
	key        *ringKey
	serverName string
	nonces     nonces
	uses       uint64 // counted and guarded by the Issuer that it is of
}

// NewSealer checks k.
func NewSealer(k Key, serverName string) (*Sealer, error) {
	rk, err := newRingKey(k)
	if err != nil {
		return nil, err
	}
	return &Sealer{key: rk, serverName: serverName}, nil
}

// Seal returns c as a token.
func (s *Sealer) Seal(c Claims) ([]byte, error) {
	nonce, err := s.nonces.next()
	if err != nil {
		return nil, fmt.Errorf("seal token: %w", err)
	}
	return s.key.seal(s.serverName, nonce, c)
}

// nonces makes GCM nonces, of which no two may be equal under one key: a repetition gives
// away the XOR of two plaintexts and lets tokens be forged. Random ones of 96 bits would
// be good for 2^32 tokens of a key, all its issuers taken together (NIST SP 800-38D §8.3),
// which nobody counts. So each Sealer draws a prefix and counts behind it:
//
//	 0                8          12
//	+----------------+----------+
//	| random         | counter  |
//	+----------------+----------+
//
// Within a prefix nothing repeats, and a prefix serves 2^32 tokens. Nothing is kept on
// disk: a restarted or killed process draws anew. Two draws of 64 bits meet with a chance
// of n*n/2^65, which is 3 in 10^8 for a million starts and Sealers under one key.
type nonces struct {
	mu      sync.Mutex // guards the fields below
	prefix  [8]byte
	counter uint32 // of the next; at 0 a prefix is drawn first
}

func (n *nonces) next() (nonce [nonceLen]byte, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.counter == 0 {
		if _, err := rand.Read(n.prefix[:]); err != nil {
			return nonce, err
		}
	}
	copy(nonce[:], n.prefix[:])
	binary.BigEndian.PutUint32(nonce[len(n.prefix):], n.counter)
	n.counter++
	return nonce, nil
}
