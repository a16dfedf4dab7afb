package turncred

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Redacted is what a Secret prints in every format.
const Redacted = "REDACTED"

// MinSecretLen is the shortest key, in bytes, that a KeyRing or NewTidCodec takes:
// the output length of SHA-256, below which HMAC loses strength (RFC 2104 §3).
const MinSecretLen = 32

// Secret is a password or key. It prints REDACTED through fmt, slog and JSON; only
// Reveal gives its bytes. The zero Secret is empty. The bytes sit behind a pointer,
// so a stack trace's argument words do not show them.
type Secret struct{ p *[]byte }

// NewSecret copies b into a Secret.
func NewSecret(b []byte) Secret {
	c := append([]byte(nil), b...)
	return Secret{&c}
}

// Reveal returns the secret's bytes, which the caller must not change, log or keep.
func (s Secret) Reveal() []byte {
	if s.p == nil {
		return nil
	}
	return *s.p
}

// Len returns the number of bytes.
func (s Secret) Len() int { return len(s.Reveal()) }

// Equal reports whether both hold the same bytes, in constant time.
func (s Secret) Equal(t Secret) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1
}

// String returns REDACTED.
func (s Secret) String() string { return Redacted }

// GoString returns REDACTED.
func (s Secret) GoString() string { return Redacted }

// Format writes REDACTED for every verb, so %x and %d do not leak either.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// MarshalText returns REDACTED; encoding/json uses it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue returns REDACTED.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }
