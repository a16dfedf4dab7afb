package turncred

import (
	"crypto/hmac"
	"hash"
	"sync"
)

// MAC computes HMACs under one key. Setting up a key costs two hash blocks and their
// memory, which an edge would pay several times a registration. Safe for concurrent use.
type MAC struct{ pool sync.Pool }

type macState struct {
	hash.Hash
	text []byte
}

// NewMAC returns the HMAC of a hash under key.
func NewMAC(h func() hash.Hash, key Secret) *MAC {
	return &MAC{sync.Pool{New: func() any { return &macState{Hash: hmac.New(h, key.Reveal())} }}}
}

// Append appends the HMAC of text to b.
func (m *MAC) Append(b []byte, text string) []byte {
	h := m.pool.Get().(*macState)
	h.Reset()
	h.text = append(h.text[:0], text...)
	_, _ = h.Write(h.text) // a hash has no way to fail
	b = h.Sum(b)
	m.pool.Put(h)
	return b
}
