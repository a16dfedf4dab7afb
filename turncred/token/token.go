package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"epcscf/turncred"
)

const (
	nonceLen = 12 // of GCM (RFC 5116 §5.1)
	tagLen   = 16
	// shortMACKey is the length that RFC 7635 §6.2 wants of everyone, longMACKey that of
	// HMAC-SHA-256 (Appendix B).
	shortMACKey, longMACKey = 20, 32
	blockOverhead           = 2 + 8 + 4 // encrypted_block without the mac_key
	ticksPerSecond          = 64000
)

// Delta is how far the clocks of issuer and relay may differ (RFC 7635 §7).
const Delta = 5 * time.Second

// ErrToken says that a token is malformed, or was not made with this key for this server.
var ErrToken = errors.New("token: not a token of this key and server")

// ErrStale says that a token is authentic but out of its time, or out of all measure.
var ErrStale = errors.New("token: out of its time")

// Claims are what a token says (RFC 7635 §6.2, encrypted_block).
type Claims struct {
	MACKey   turncred.Secret // 20 or 32 bytes
	Issued   time.Time       // to 1/64000 s
	Lifetime time.Duration   // whole seconds
}

// check refuses claims that are not good at now. RFC 7635 §7 has
//
//	lifetime + Delta > abs(RDnew - TS)
//
// and so would take a token whose time begins in an hour. Ours refuses what is issued more
// than Delta ahead, what has no lifetime, and what lives longer than the policy allows.
func (c Claims) check(now time.Time, maxLifetime time.Duration) error {
	switch age := now.Sub(c.Issued); {
	case c.Lifetime <= 0:
		return fmt.Errorf("%w: no lifetime", ErrStale)
	case c.Lifetime > maxLifetime:
		return fmt.Errorf("%w: lifetime of %v, %v at most", ErrStale, c.Lifetime, maxLifetime)
	case age < -Delta:
		return fmt.Errorf("%w: issued in the future", ErrStale)
	case age >= c.Lifetime+Delta:
		return fmt.Errorf("%w: expired", ErrStale)
	}
	return nil
}

// end returns when what was allowed at now ends. RFC 7635 §9 wants LIFETIME to be at most
// the token's lifetime, and recommends lifetime + Delta - abs(RDnew - TS): the lesser.
func (c Claims) end(now time.Time) time.Time {
	byToken, byLifetime := c.Issued.Add(c.Lifetime+Delta), now.Add(c.Lifetime)
	if byLifetime.Before(byToken) {
		return byLifetime
	}
	return byToken
}

// seal makes a token for a server name.
func (k *ringKey) seal(serverName string, nonce [nonceLen]byte, c Claims) ([]byte, error) {
	n := c.MACKey.Len()
	if n != shortMACKey && n != longMACKey {
		return nil, fmt.Errorf("seal token: mac_key of %d bytes, want %d or %d", n, shortMACKey, longMACKey)
	}
	seconds := c.Lifetime / time.Second
	if c.Issued.Unix() < 0 || seconds < 0 || seconds > 1<<32-1 {
		return nil, errors.New("seal token: time or lifetime out of range")
	}
	p := make([]byte, 0, blockOverhead+longMACKey)
	p = binary.BigEndian.AppendUint16(p, uint16(n))
	p = append(p, c.MACKey.Reveal()...)
	p = binary.BigEndian.AppendUint64(p, timestampOf(c.Issued))
	p = binary.BigEndian.AppendUint32(p, uint32(seconds))

	out := make([]byte, 0, 2+nonceLen+len(p)+tagLen)
	out = binary.BigEndian.AppendUint16(out, nonceLen)
	out = append(out, nonce[:]...)
	return k.aead.Seal(out, nonce[:], p, []byte(serverName)), nil
}

// Open decodes and authenticates raw as a token that the key kid made for a server name
// (RFC 7635 §7). It does not look at the time. The error is ErrToken.
func (r *KeyRing) Open(kid turncred.KeyID, serverName string, raw []byte) (Claims, error) {
	k := r.keys[kid]
	if k == nil {
		return Claims{}, ErrToken
	}
	return k.open(serverName, raw)
}

func (k *ringKey) open(serverName string, raw []byte) (Claims, error) {
	n := len(raw) - (2 + nonceLen + blockOverhead + tagLen) // of the mac_key
	if (n != shortMACKey && n != longMACKey) || binary.BigEndian.Uint16(raw) != nonceLen {
		return Claims{}, ErrToken
	}
	p, err := k.aead.Open(nil, raw[2:2+nonceLen], raw[2+nonceLen:], []byte(serverName))
	if err != nil || int(binary.BigEndian.Uint16(p)) != n {
		return Claims{}, ErrToken
	}
	p = p[2:]
	issued, ok := timeOf(binary.BigEndian.Uint64(p[n:]))
	if !ok {
		return Claims{}, ErrToken
	}
	return Claims{
		MACKey:   turncred.NewSecret(p[:n]),
		Issued:   issued,
		Lifetime: time.Duration(binary.BigEndian.Uint32(p[n+8:])) * time.Second,
	}, nil
}

// timestampOf encodes t: 48 bits of seconds, then 16 bits of 1/64000 s (RFC 7635 §6.2).
func timestampOf(t time.Time) uint64 {
	return uint64(t.Unix())<<16 | uint64(t.Nanosecond())*ticksPerSecond/uint64(time.Second)
}

// timeOf decodes a timestamp. A second has no more than 64000 fractions.
func timeOf(ts uint64) (time.Time, bool) {
	fraction := ts & 0xFFFF
	if fraction >= ticksPerSecond {
		return time.Time{}, false
	}
	return time.Unix(int64(ts>>16), int64(fraction*uint64(time.Second)/ticksPerSecond)), true
}
