package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"epcscf/turncred"
)

const (
	// nonceLife is how long a nonce is good. RFC 8656 §5 wants an hour at most; a client
	// learns a new one by 438 with its next request, at no cost to the user.
	nonceLife    = 600 * time.Second
	nonceTimeLen = 6
	nonceMACLen  = 16
	nonceLen     = nonceTimeLen + nonceMACLen

	// nonceCookie begins every nonce: a fixed text, and 24 bits of security features of
	// which bit 0, password algorithms, is set (RFC 8489 §9.2, §18.1). It tells a client that
	// somebody on the way has taken PASSWORD-ALGORITHMS out.
	nonceCookie    = "obMatJos2" + "AAAB"
	nonceStringLen = len(nonceCookie) + (nonceLen*8+5)/6
)

// nonceEncoding is strict, so that a nonce has one spelling.
var nonceEncoding = base64.RawURLEncoding.Strict()

// nonces makes and checks nonces without keeping any: each is a time, and a MAC over it and
// its source. RFC 8489 §9.2.4 forbids the same nonce for two sources; bound to its source,
// a captured request is of no use from elsewhere.
type nonces struct{ key turncred.Secret }

func newNonces(key turncred.Secret) (nonces, error) {
	if key.Len() == 0 {
		var b [32]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nonces{}, fmt.Errorf("make the nonce key: %w", err)
		}
		key = turncred.NewSecret(b[:])
	}
	if key.Len() < turncred.MinSecretLen {
		return nonces{}, fmt.Errorf("relay: NonceKey has %d bytes, want %d or more", key.Len(), turncred.MinSecretLen)
	}
	return nonces{key}, nil
}

// appendTo appends a nonce for the client of f to b.
func (n nonces) appendTo(b []byte, f FiveTuple, now time.Time) []byte {
	var raw [nonceLen]byte
	putUint48(raw[:], uint64(now.UnixMilli()))
	mac := n.mac(raw[:nonceTimeLen], f)
	copy(raw[nonceTimeLen:], mac[:])
	return nonceEncoding.AppendEncode(append(b, nonceCookie...), raw[:])
}

// valid reports whether nonce was made here for the client of f, at most nonceLife ago.
func (n nonces) valid(nonce []byte, f FiveTuple, now time.Time) bool {
	var raw [nonceLen]byte
	encoded, ok := bytes.CutPrefix(nonce, []byte(nonceCookie))
	if !ok || len(nonce) != nonceStringLen {
		return false
	}
	if _, err := nonceEncoding.Decode(raw[:], encoded); err != nil {
		return false
	}
	mac := n.mac(raw[:nonceTimeLen], f)
	if !hmac.Equal(mac[:], raw[nonceTimeLen:]) {
		return false
	}
	age := now.Sub(time.UnixMilli(int64(uint48(raw[:]))))
	return age >= -time.Second && age < nonceLife // a clock set back by more makes one round trip more
}

func (n nonces) mac(when []byte, f FiveTuple) (mac [nonceMACLen]byte) {
	h := hmac.New(sha256.New, n.key.Reveal())
	h.Write(when)
	ip := f.Client.Addr().As16()
	h.Write([]byte{byte(f.Transport)})
	h.Write(ip[:])
	h.Write(binary.BigEndian.AppendUint16(nil, f.Client.Port()))
	copy(mac[:], h.Sum(nil))
	return mac
}

func putUint48(b []byte, v uint64) {
	binary.BigEndian.PutUint16(b, uint16(v>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(v))
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}
