package waf

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"epcscf/turncred"
)

// The cost of argon2id (RFC 9106): 19 MiB and two passes, the least that OWASP's password
// storage guide names; some 20 ms of one core. A deployment with cores to spare raises it in
// a Hasher; hashes say what they were made with, so old ones go on.
const (
	argonMemoryKiB = 19 << 10
	argonPasses    = 2
	argonSaltLen   = 16
	argonKeyLen    = 32
	// maxArgonMemoryKiB and maxArgonPasses bound what a stored hash can make us do.
	maxArgonMemoryKiB = 1 << 20
	maxArgonPasses    = 64
)

const (
	minPassword = 8   // NIST SP 800-63B §5.1.1.2
	maxPassword = 256 // beyond it is no password, but work
)

// Hasher hashes and checks passwords, a few at a time: each takes memory. Safe for
// concurrent use.
type Hasher struct {
	memoryKiB, passes uint32
	slots             chan struct{}
	dummy             turncred.Secret // for users that are not there
}

// NewHasher returns a Hasher of our cost, two at a time.
func NewHasher() *Hasher { return newHasher(argonMemoryKiB, argonPasses) }

func newHasher(memoryKiB, passes uint32) *Hasher {
	h := &Hasher{memoryKiB: memoryKiB, passes: passes, slots: make(chan struct{}, 2)}
	h.dummy = h.hash(turncred.NewSecret([]byte(rand.Text())))
	return h
}

// Hash returns the hash of a new password in PHC form, $argon2id$v=19$m=..,t=..,p=1$salt$key.
func (h *Hasher) Hash(password turncred.Secret) (turncred.Secret, error) {
	if n := password.Len(); n < minPassword || n > maxPassword {
		return turncred.Secret{}, fmt.Errorf("password: want %d to %d bytes", minPassword, maxPassword)
	}
	return h.hash(password), nil
}

func (h *Hasher) hash(password turncred.Secret) turncred.Secret {
	var salt [argonSaltLen]byte
	_, _ = rand.Read(salt[:])
	key := argon2.IDKey(password.Reveal(), salt[:], h.passes, h.memoryKiB, 1, argonKeyLen)
	enc := base64.RawStdEncoding
	return turncred.NewSecret(fmt.Appendf(nil, "$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s",
		argon2.Version, h.memoryKiB, h.passes, enc.EncodeToString(salt[:]), enc.EncodeToString(key)))
}

// errPassword says that a stored hash is not one of ours.
var errPassword = errors.New("waf: password hash is not argon2id in PHC form")

// check reports whether password belongs to hash. It waits for its turn until ctx ends. The
// empty hash, of a user who is not there or signs in elsewhere, takes as long as any other.
func (h *Hasher) check(ctx context.Context, hash, password turncred.Secret) (bool, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	known := hash.Len() > 0
	if !known {
		hash = h.dummy
	}
	var version, memory, passes, lanes uint32
	fields := strings.Split(string(hash.Reveal()), "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" {
		return false, errPassword
	}
	if _, err := fmt.Sscanf(fields[2]+" "+fields[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &lanes); err != nil ||
		version != argon2.Version || memory < 8 || memory > maxArgonMemoryKiB || passes < 1 || passes > maxArgonPasses || lanes < 1 || lanes > 16 {
		return false, errPassword
	}
	salt, err := base64.RawStdEncoding.DecodeString(fields[4])
	want, err2 := base64.RawStdEncoding.DecodeString(fields[5])
	if err != nil || err2 != nil || len(salt) < 8 || len(want) < 16 || len(want) > 64 {
		return false, errPassword
	}
	got := argon2.IDKey(password.Reveal(), salt, passes, memory, uint8(lanes), uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}
