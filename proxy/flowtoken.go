package proxy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"epcscf/turncred"
)

// FlowToken names one flow in the user part of our URIs (RFC 5626 §5.2).
type FlowToken string

const (
	tokenMACLen = 16
	tokenRawLen = 8 + 8 + tokenMACLen
)

var (
	errTokenForged = errors.New("flow token: not ours")
	errTokenEpoch  = errors.New("flow token: of an earlier process")
)

// tokenSealer makes and opens flow tokens. The MAC keeps a core or a WIC from naming a
// flow that we have not told it of; the epoch tells our own earlier tokens from forged ones.
type tokenSealer struct {
	key   turncred.Secret
	epoch uint64
}

func newTokenSealer(key turncred.Secret) *tokenSealer {
	var b [turncred.MinSecretLen + 8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	if key.Len() == 0 {
		key = turncred.NewSecret(b[:turncred.MinSecretLen])
	}
	return &tokenSealer{key: key, epoch: binary.BigEndian.Uint64(b[turncred.MinSecretLen:])}
}

var tokenEncoding = base64.RawURLEncoding.Strict()

func (s *tokenSealer) mac(b []byte) []byte {
	m := hmac.New(sha256.New, s.key.Reveal())
	m.Write([]byte("epcscf flow"))
	m.Write(b)
	return m.Sum(nil)[:tokenMACLen]
}

func (s *tokenSealer) seal(id uint64) FlowToken {
	var b [tokenRawLen]byte
	binary.BigEndian.PutUint64(b[0:], s.epoch)
	binary.BigEndian.PutUint64(b[8:], id)
	copy(b[16:], s.mac(b[:16]))
	return FlowToken(tokenEncoding.EncodeToString(b[:]))
}

// open returns the flow number. The error is errTokenForged or errTokenEpoch.
func (s *tokenSealer) open(t FlowToken) (uint64, error) {
	b, err := tokenEncoding.DecodeString(string(t))
	if err != nil || len(b) != tokenRawLen || !hmac.Equal(b[16:], s.mac(b[:16])) {
		return 0, errTokenForged
	}
	if binary.BigEndian.Uint64(b[0:]) != s.epoch {
		return 0, errTokenEpoch
	}
	return binary.BigEndian.Uint64(b[8:]), nil
}
