package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"epcscf/turncred"
)

// RevocationLog is the revocations of a store as a relay keeps them.
type RevocationLog struct{ Revocations Revocations }

// Append writes r, and returns when it will survive a crash.
func (l RevocationLog) Append(ctx context.Context, r turncred.Revocation) error {
	return l.Revocations.AddRevocation(ctx, r)
}

// Load returns what is still to be heeded.
func (l RevocationLog) Load(ctx context.Context) ([]turncred.Revocation, error) {
	return l.Revocations.Revocations(ctx)
}

// RevocationID names a revocation by what it hits, whatever its Until: 22 characters.
func RevocationID(r turncred.Revocation) (string, error) {
	b, err := json.Marshal([]any{r.Tid, r.KeyID, uint64(r.Subject), r.Binding, uint64(r.IssuedUntil), r.KeepLive})
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(h[:16]), nil
}
