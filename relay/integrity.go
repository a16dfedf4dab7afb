package relay

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 8489 §14.5 defines MESSAGE-INTEGRITY with HMAC-SHA1; browsers know no other.
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/pion/stun/v3"
)

// integrity is an attribute that signs a message.
type integrity struct {
	attr stun.AttrType
	hash func() hash.Hash
	size int
}

var (
	integritySHA1   = &integrity{stun.AttrMessageIntegrity, sha1.New, sha1.Size}           // RFC 8489 §14.5
	integritySHA256 = &integrity{stun.AttrMessageIntegritySHA256, sha256.New, sha256.Size} // §14.6; TURN allows no truncation
)

// integrityOf returns what m is signed with, or nil. "If the MESSAGE-INTEGRITY-SHA256
// attribute is present", the other does not count (RFC 8489 §9.2.4).
func integrityOf(m *stun.Message) *integrity {
	for _, i := range []*integrity{integritySHA256, integritySHA1} {
		if m.Contains(i.attr) {
			return i
		}
	}
	return nil
}

// holds reports whether m is signed with key.
func (i *integrity) holds(m *stun.Message, key []byte) bool {
	end := stunHeaderLen
	for _, a := range m.Attributes {
		if a.Type == i.attr {
			return hmac.Equal(i.sum(key, m.Raw[:end]), a.Value) // false too where the length is another
		}
		end += attributeHeaderLen + (len(a.Value)+3)&^3
	}
	return false
}

// keyOf returns that of keys with which m is signed, or nil. An empty key is none: anyone
// has it.
func (i *integrity) keyOf(m *stun.Message, keys [][]byte) []byte {
	for _, k := range keys {
		if len(k) > 0 && i.holds(m, k) {
			return k
		}
	}
	return nil
}

// addTo signs m.
func (i *integrity) addTo(m *stun.Message, key []byte) { m.Add(i.attr, i.sum(key, m.Raw)) }

// sum computes the HMAC over a message that ends before the attribute, with the length that
// it has with it.
func (i *integrity) sum(key, raw []byte) []byte {
	var length [2]byte
	binary.BigEndian.PutUint16(length[:], uint16(len(raw)-stunHeaderLen+attributeHeaderLen+i.size))
	h := hmac.New(i.hash, key)
	h.Write(raw[:2])
	h.Write(length[:])
	h.Write(raw[4:])
	return h.Sum(nil)
}
