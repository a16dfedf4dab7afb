package turncred

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
)

const (
	maxKeyIDLen = 16
	tidBlockLen = 22 // one AES block in unpadded base64url
)

// ErrTid says that a Tid is not kid "-" 22base64url.
var ErrTid = errors.New("turncred: malformed Tid")

// tidEncoding is strict: the two spare bits of the last character must be zero, so a
// block has one spelling only.
var tidEncoding = base64.RawURLEncoding.Strict()

// ParseKeyID checks that s is 1*16(ALPHA / DIGIT).
func ParseKeyID(s string) (KeyID, error) {
	if len(s) == 0 || len(s) > maxKeyIDLen || strings.IndexFunc(s, notAlnum) >= 0 {
		return "", fmt.Errorf("key id %q: want 1 to %d letters or digits", s, maxKeyIDLen)
	}
	return KeyID(s), nil
}

func notAlnum(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func validTid(s string) bool { _, _, err := splitTid(Tid(s)); return err == nil }

// splitTid splits at the first "-", since base64url has that character too.
func splitTid(t Tid) (KeyID, [aes.BlockSize]byte, error) {
	var block [aes.BlockSize]byte
	kid, rest, ok := strings.Cut(string(t), "-")
	if _, err := ParseKeyID(kid); !ok || err != nil || len(rest) != tidBlockLen {
		return "", block, ErrTid
	}
	if n, err := tidEncoding.Decode(block[:], []byte(rest)); err != nil || n != len(block) {
		return "", block, ErrTid
	}
	return KeyID(kid), block, nil
}

// KeyID returns the kid, or "" where the Tid is malformed.
func (t Tid) KeyID() KeyID {
	kid, _, _ := splitTid(t)
	return kid
}

// TidCodec makes and reads the block inside a Tid. It holds keys derived by HKDF-SHA256
// (RFC 5869) from the deployment secret, which edges and our relays share: never from Km,
// which the operator of a foreign TURN server knows too. Safe for concurrent use.
type TidCodec struct {
	secret  Secret
	subject *MAC

	mu     sync.RWMutex // guards blocks
	blocks map[KeyID]cipher.Block
}

// NewTidCodec derives the keys. deployment must have MinSecretLen bytes or more.
func NewTidCodec(deployment Secret) (*TidCodec, error) {
	if deployment.Len() < MinSecretLen {
		return nil, fmt.Errorf("deployment secret: %d bytes, want %d or more", deployment.Len(), MinSecretLen)
	}
	// The subject key does not depend on a kid, so quota and revocation survive a rotation.
	sk, err := hkdf.Key(sha256.New, deployment.Reveal(), nil, "epcscf subject", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the subject key: %w", err)
	}
	return &TidCodec{secret: deployment, subject: NewMAC(sha256.New, NewSecret(sk)), blocks: map[KeyID]cipher.Block{}}, nil
}

// Subject numbers a user.
func (c *TidCodec) Subject(impi IMPI) Subject {
	var sum [sha256.Size]byte
	return Subject(binary.BigEndian.Uint64(c.subject.Append(sum[:0], string(impi))))
}

// Seal makes the Tid for id under kid; counter tells apart Tids of one 1/64 s.
func (c *TidCodec) Seal(kid KeyID, id Identity, counter uint8) (Tid, error) {
	b, err := c.block(kid)
	if err != nil {
		return "", err
	}
	var p [aes.BlockSize]byte
	binary.BigEndian.PutUint64(p[0:], uint64(id.Subject))
	binary.BigEndian.PutUint64(p[8:], uint64(id.Issued)<<24) // five bytes, then three that the next lines fill
	binary.BigEndian.PutUint16(p[13:], uint16(id.Binding))
	p[15] = counter
	b.Encrypt(p[:], p[:])
	var t [maxKeyIDLen + 1 + tidBlockLen]byte
	return Tid(tidEncoding.AppendEncode(append(append(t[:0], kid...), '-'), p[:])), nil
}

// Open reads a Tid back. A block has no check of its own: call Open only after
// MESSAGE-INTEGRITY has held for the username that the Tid stands in. The error is ErrTid.
func (c *TidCodec) Open(t Tid) (Identity, error) {
	kid, p, err := splitTid(t)
	if err != nil {
		return Identity{}, err
	}
	b, err := c.block(kid)
	if err != nil {
		return Identity{}, err
	}
	b.Decrypt(p[:], p[:])
	return Identity{
		Subject: Subject(binary.BigEndian.Uint64(p[0:])),
		Issued:  IssueTime(binary.BigEndian.Uint64(p[8:]) >> 24),
		Binding: Binding(binary.BigEndian.Uint16(p[13:])),
	}, nil
}

// block returns the cipher of a kid. Only kids that a key ring or a table knows come
// here (MESSAGE-INTEGRITY held), so the map stays as small as the ring.
func (c *TidCodec) block(kid KeyID) (cipher.Block, error) {
	c.mu.RLock()
	b := c.blocks[kid]
	c.mu.RUnlock()
	if b != nil {
		return b, nil
	}
	if _, err := ParseKeyID(string(kid)); err != nil {
		return nil, err
	}
	k, err := hkdf.Key(sha256.New, c.secret.Reveal(), nil, "epcscf tid "+string(kid), 32)
	if err != nil {
		return nil, fmt.Errorf("derive the Tid key of %s: %w", kid, err)
	}
	if b, err = aes.NewCipher(k); err != nil {
		return nil, fmt.Errorf("Tid key of %s: %w", kid, err)
	}
	c.mu.Lock()
	c.blocks[kid] = b
	c.mu.Unlock()
	return b, nil
}
