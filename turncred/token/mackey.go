package token

import (
	"crypto/aes"
	"crypto/rand"
	"encoding/binary"

	"epcscf/turncred"
)

// newMACKey makes a session key that bears id for whoever holds K. Its three random bytes
// tell apart what a user is issued within 1/64 s.
func (k *ringKey) newMACKey(id turncred.Identity) (turncred.Secret, error) {
	var key [shortMACKey]byte
	binary.BigEndian.PutUint64(key[0:], uint64(id.Subject))
	binary.BigEndian.PutUint64(key[8:], uint64(id.Issued)<<24) // five bytes, then three that the next line fills
	if _, err := rand.Read(key[13:aes.BlockSize]); err != nil {
		return turncred.Secret{}, err
	}
	k.session.Encrypt(key[:aes.BlockSize], key[:aes.BlockSize])
	return turncred.NewSecret(key[:]), nil
}

// identify reads who the holder of a token is. The error is ErrToken: a key of ours made a
// token that is not.
func (k *ringKey) identify(c Claims) (turncred.Identity, error) {
	if k.Foreign {
		return turncred.Identity{Issued: turncred.IssueTimeAt(c.Issued)}, nil
	}
	key := c.MACKey.Reveal()
	if len(key) != shortMACKey || [4]byte(key[aes.BlockSize:]) != [4]byte{} {
		return turncred.Identity{}, ErrToken
	}
	var p [aes.BlockSize]byte
	k.session.Decrypt(p[:], key[:aes.BlockSize])
	return turncred.Identity{
		Subject: turncred.Subject(binary.BigEndian.Uint64(p[0:])),
		Issued:  turncred.IssueTime(binary.BigEndian.Uint64(p[8:]) >> 24),
	}, nil
}
