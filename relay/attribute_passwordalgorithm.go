package relay

import (
	"bytes"
	"encoding/binary"

	"github.com/pion/stun/v3"
)

// passwordAlgorithm is how a long-term key comes from a password (RFC 8489 §18.5.1).
type passwordAlgorithm uint16

const (
	algorithmUnsaid passwordAlgorithm = 0 // an RFC 5389 client: MD5
	algorithmMD5    passwordAlgorithm = 1
	algorithmSHA256 passwordAlgorithm = 2
)

// offeredAlgorithms is the value of PASSWORD-ALGORITHMS in challenges, the best first; none
// has parameters (RFC 8489 §14.11). RFC 5389 clients pass over it.
var offeredAlgorithms = []byte{0, byte(algorithmSHA256), 0, 0, 0, byte(algorithmMD5), 0, 0}

// passwordAlgorithmOf returns the algorithm that a request names, and reports false unless
// "(1) PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS are both present, (2) PASSWORD-ALGORITHMS
// matches the value sent in the response that sent this NONCE, and (3) PASSWORD-ALGORITHM
// matches one of the entries", or both are absent (RFC 8489 §9.2.4).
func passwordAlgorithmOf(m *stun.Message) (passwordAlgorithm, bool) {
	one, hasOne := m.Attributes.Get(stun.AttrPasswordAlgorithm)
	all, hasAll := m.Attributes.Get(stun.AttrPasswordAlgorithms)
	if !hasOne && !hasAll {
		return algorithmUnsaid, true
	}
	if !hasOne || !bytes.Equal(all.Value, offeredAlgorithms) || len(one.Value) != 4 || binary.BigEndian.Uint16(one.Value[2:]) != 0 {
		return algorithmUnsaid, false
	}
	switch a := passwordAlgorithm(binary.BigEndian.Uint16(one.Value)); a {
	case algorithmMD5, algorithmSHA256:
		return a, true
	}
	return algorithmUnsaid, false
}
