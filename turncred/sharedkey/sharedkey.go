// Package sharedkey is approach 1 of TURN credential provisioning (TS 33.203 X.5.2):
// edge and TURN server share a key Km, the username carries the expiry, and
//
//	Tpwd = base64(HMAC(Km, username)),  username = Tid ":" Texp
//
// so that the TURN server needs no credential state. X.5.2.2 leaves HASH open; HMAC-SHA1
// is what coturn, eturnal and pion verify (draft-uberti-behave-turn-rest-00).
//
// Issuer and authenticator stand in one file, so that they cannot drift.
package sharedkey

import (
	"context"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what TURN servers of the field verify; HMAC does not need collision resistance.
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"sync/atomic"
	"time"

	"epcscf/turncred"
)

// Algorithm is the HASH of TS 33.203 X.5.2.2 step 3.
type Algorithm string

// The algorithms. HMACSHA256 works with our relay only.
const (
	HMACSHA1   Algorithm = "hmac-sha1"
	HMACSHA256 Algorithm = "hmac-sha256"
)

func (a Algorithm) new() func() hash.Hash {
	if a == HMACSHA256 {
		return sha256.New
	}
	return sha1.New
}

// Password returns base64(HMAC(km, username)). The zero Algorithm is HMACSHA1.
func Password(a Algorithm, km turncred.Secret, username string) turncred.Secret {
	return password(turncred.NewMAC(a.new(), km), username)
}

func password(m *turncred.MAC, username string) turncred.Secret {
	var sum [sha256.Size]byte
	var text [(sha256.Size + 2) / 3 * 4]byte
	return turncred.NewSecret(base64.StdEncoding.AppendEncode(text[:0], m.Append(sum[:0], username)))
}

// Issuer makes credentials by approach 1. It implements turncred.Provisioner.
type Issuer struct {
	*turncred.Minter
	ring *turncred.KeyRing
	alg  Algorithm
	last atomic.Pointer[signer]
}

// signer is a key that is set up.
type signer struct {
	kid turncred.KeyID
	mac *turncred.MAC
}

// signer returns the one of a key of the ring, in which no two have the same kid.
func (i *Issuer) signer(k turncred.Key) *signer {
	s := i.last.Load()
	if s == nil || s.kid != k.ID {
		s = &signer{k.ID, turncred.NewMAC(i.alg.new(), k.Secret)}
		i.last.Store(s)
	}
	return s
}

var _ turncred.Provisioner = (*Issuer)(nil)

// NewIssuer returns an issuer that signs with the ring's signing key.
func NewIssuer(m *turncred.Minter, ring *turncred.KeyRing, alg Algorithm) *Issuer {
	return &Issuer{Minter: m, ring: ring, alg: alg}
}

// Immediate implements turncred.Immediate: there is nobody to wait for.
func (i *Issuer) Immediate() bool { return true }

// Provision implements turncred.Provisioner; it computes and never waits.
func (i *Issuer) Provision(_ context.Context, r turncred.Request) (turncred.Credential, error) {
	key, err := i.ring.Signing(i.Now())
	if err != nil {
		return turncred.Credential{}, unavailable(err)
	}
	c, err := i.Mint(r, key.ID, turncred.ApproachSharedKey)
	if err != nil {
		return turncred.Credential{}, unavailable(err)
	}
	c.Password = password(i.signer(key).mac, c.Username)
	return c, nil
}

func unavailable(err error) error {
	return &turncred.UnavailableError{Reason: turncred.ReasonDisabled, RetryAfter: time.Minute, Err: err}
}

// AuthenticatorConfig configures an Authenticator. Ring, Codec and Realm must be set.
type AuthenticatorConfig struct {
	Ring      *turncred.KeyRing
	Codec     *turncred.TidCodec
	Realm     turncred.Realm
	MaxTTL    time.Duration // default 1 h
	Algorithm Algorithm     // default HMACSHA1
}

// Authenticator recomputes what an Issuer with the same ring made. It implements
// turncred.Authenticator.
type Authenticator struct{ cfg AuthenticatorConfig }

var _ turncred.Authenticator = (*Authenticator)(nil)

// NewAuthenticator checks cfg.
func NewAuthenticator(cfg AuthenticatorConfig) (*Authenticator, error) {
	if cfg.Ring == nil || cfg.Codec == nil || cfg.Realm == "" {
		return nil, errors.New("sharedkey: Ring, Codec and Realm must be set")
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = time.Hour
	}
	return &Authenticator{cfg}, nil
}

// Authenticate implements turncred.Authenticator. A Texp further ahead than MaxTTL and
// turncred.ClockSkew is nothing that an edge of ours made, whoever knows Km.
func (a *Authenticator) Authenticate(username string, now time.Time) (turncred.Proof, error) {
	tid, texp, err := turncred.ParseUsername(username)
	if err != nil || texp.After(now.Add(a.cfg.MaxTTL+turncred.ClockSkew)) {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	key, ok := a.cfg.Ring.Lookup(tid.KeyID())
	if !ok {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	return turncred.Proof{
		Tid: tid, Texp: texp,
		Key:      turncred.NewLongTermKey(username, a.cfg.Realm, Password(a.cfg.Algorithm, key.Secret, username)),
		Identify: func() (turncred.Identity, error) { return a.cfg.Codec.Open(tid) },
	}, nil
}
