package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"
)

// GrantKind says what a grant's secret is.
type GrantKind string

// The kinds of grants. Each is good once.
const (
	GrantCode          GrantKind = "code"           // RFC 6749 §1.3.1
	GrantRefresh       GrantKind = "refresh"        // RFC 6749 §1.5; rotates
	GrantInitialAccess GrantKind = "initial-access" // RFC 7591 §1.2
)

// GrantHash is what is stored of a grant's secret, which is random and long: no salt, no
// slow hash is needed.
type GrantHash [sha256.Size]byte

// HashGrant hashes the secret of a grant.
func HashGrant(secret string) GrantHash { return sha256.Sum256([]byte(secret)) }

// Grant is an authorization code or a refresh token.
type Grant struct {
	Hash    GrantHash
	Kind    GrantKind
	Family  string // all that comes of one authorization; "" of none
	Client  string
	User    string
	Expires time.Time
	Data    []byte // what else the WAF must know: scope, aud, redirect URI, PKCE challenge; nothing secret
}

// Grants are single-use secrets.
type Grants interface {
	// AddGrant writes a new grant. The error is ErrConflict where the hash is there already,
	// or ErrRevoked where its family was revoked.
	AddGrant(ctx context.Context, g Grant) error
	// ConsumeGrant uses a grant up; of many callers at once exactly one succeeds. The error is
	// ErrNotFound, or, together with the grant, ErrRevoked, ErrUsed or ErrExpired. RFC 9700
	// §4.14.2: whoever sees ErrUsed revokes the family.
	ConsumeGrant(ctx context.Context, kind GrantKind, h GrantHash) (Grant, error)
	// RevokeFamily revokes all grants of a family, and those that are added to it until then.
	RevokeFamily(ctx context.Context, family string, until time.Time) error
	// FamilyRevoked reports whether a family was revoked.
	FamilyRevoked(ctx context.Context, family string) (bool, error)
}

// UsedGrantKept is how long after its expiry a grant that was used is remembered, so that
// its reuse is seen.
const UsedGrantKept = 24 * time.Hour

// CheckGrant reports what of g cannot be stored. The error is ErrInvalid.
func CheckGrant(g Grant) error {
	switch {
	case g.Kind == "":
		return fmt.Errorf("grant: %w: no kind", ErrInvalid)
	case g.Hash == GrantHash{}:
		return fmt.Errorf("%s grant: %w: no hash", g.Kind, ErrInvalid)
	case g.Expires.IsZero():
		return fmt.Errorf("%s grant: %w: it never expires", g.Kind, ErrInvalid)
	}
	return nil
}

// GrantError says why g cannot be used at now: that its family was revoked comes first, then
// that it was used, so that reuse is seen after its expiry too.
func GrantError(g Grant, revoked, used bool, now time.Time) error {
	var err error
	switch {
	case revoked:
		err = ErrRevoked
	case used:
		err = ErrUsed
	case !now.Before(g.Expires):
		err = ErrExpired
	default:
		return nil
	}
	return fmt.Errorf("%s grant of client %s: %w", g.Kind, g.Client, err)
}
