package turncred

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Request asks for a credential.
type Request struct {
	IMPI    IMPI
	Binding Binding
	// Life is the rest of the registration that justifies the credential, which
	// never outlives it.
	Life time.Duration
}

// Scope says which of a user's credentials have lost their reason.
type Scope struct {
	IMPI    IMPI
	Binding Binding
	// AllBindings takes every device of the user, whatever Binding says.
	AllBindings bool
	// KeepLive refuses new allocations but leaves the live ones: what a lost flow
	// gets after its grace, since the user may be talking on through another edge.
	KeepLive bool
	// IssuedUntil spares what was issued later, perhaps by another edge that the device has
	// moved to. 0 is now: the device has left them all.
	IssuedUntil IssueTime
}

// Provisioner is the edge's side: it makes credentials and takes them back.
// Both methods are safe for concurrent use and return by ctx's deadline.
type Provisioner interface {
	// Provision makes a credential that the relay takes when Provision returns.
	// An error is, or wraps, *UnavailableError.
	Provision(ctx context.Context, r Request) (Credential, error)
	// Revoke takes back what was issued for the scope until now, or s.IssuedUntil. A credential
	// provisioned later is not touched, even within the same 1/64 s. An error may be, or
	// wrap, *RevokeError, which can be tried again.
	Revoke(ctx context.Context, s Scope) error
}

// Immediate is implemented by what may say that it waits for nobody: of a Provisioner, that
// Provision computes and returns.
type Immediate interface {
	Immediate() bool
}

// Reason says to a WIC why it got no credential; the values stand in the SIP header.
type Reason string

// The reasons of the header's grammar.
const (
	ReasonRelayUnreachable Reason = "relay-unreachable"
	ReasonLimit            Reason = "limit"
	ReasonDisabled         Reason = "disabled"
)

// UnavailableError says that there is no credential now, and when to ask again.
type UnavailableError struct {
	Reason     Reason
	RetryAfter time.Duration
	Err        error // the cause, for the operator
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no TURN credential: %s: %v", e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// RevokeError says that a relay could not be told of a revocation.
type RevokeError struct {
	Err error
	// Again tells the relay the very same: what was provisioned since the first try is not
	// touched. It is safe for concurrent use.
	Again func(context.Context) error
	Until time.Time // from then on nothing is left to take back
}

// Error implements error.
func (e *RevokeError) Error() string { return "revoke: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *RevokeError) Unwrap() error { return e.Err }

// Revocation is what a relay is told. It hits credentials that match every set field
// and were issued at IssuedUntil or before.
type Revocation struct {
	Tid         Tid       // one credential; the fields below, but for Until and KeepLive, are then ignored
	KeyID       KeyID     // all credentials of a kid
	Subject     Subject   // all credentials of a user; not set where KeyID is
	Binding     *Binding  // with Subject: of one device only
	IssuedUntil IssueTime // with Subject or KeyID
	KeepLive    bool      // refuse new allocations, leave live ones
	Until       time.Time // nothing that it hits is good after this: the relay may forget it
}

// Hits reports whether r takes back the credential tid of id.
func (r Revocation) Hits(tid Tid, id Identity) bool {
	switch {
	case r.Tid != "":
		return r.Tid == tid
	case id.Issued > r.IssuedUntil:
		return false
	case r.KeyID != "":
		return r.KeyID == tid.KeyID()
	}
	return r.Subject == id.Subject && id.Subject != 0 && (r.Binding == nil || *r.Binding == id.Binding)
}

// Revoker is a relay as the edge sees it: when Revoke returns nil, new allocations are
// refused, and live ones that the revocation hits have ended.
type Revoker interface {
	Revoke(ctx context.Context, r Revocation) error
}

// ErrUnknownUser is what an Authenticator answers for a name that it did not make, or
// whose key it does not have. A relay answers as to a wrong password.
var ErrUnknownUser = errors.New("turncred: unknown user")

// Proof is what the holder of a username must know, and what follows if he does.
type Proof struct {
	Tid  Tid
	Texp time.Time // the relay refuses new allocations from then on
	Key  LongTermKey

	// Identify reads who the holder is. Call it after MESSAGE-INTEGRITY has held and
	// not before: until then the username is anyone's.
	Identify func() (Identity, error)
}

// Authenticator is the relay's side: what must the holder of a USERNAME know?
// It is called for every first request of an allocation, must not block, and is safe
// for concurrent use.
type Authenticator interface {
	// Authenticate returns the proof for username, also where it has expired: only the
	// relay knows whether an allocation lives. The error is ErrUnknownUser.
	Authenticate(username string, now time.Time) (Proof, error)
}

// TokenAuthenticator is the relay's side of RFC 7635: what must the sender of an
// ACCESS-TOKEN know? It must not block and is safe for concurrent use.
type TokenAuthenticator interface {
	// ServerName is the value of THIRD-PARTY-AUTHORIZATION, and the audience of tokens.
	ServerName() string
	// AuthenticateToken returns the proof for a token made with the key kid. Texp is when
	// an allocation made at now must end. Both keys of Proof.Key are the mac_key itself,
	// since RFC 7635 §5 hashes nothing. Where the token is not good at now the error wraps
	// ErrUnknownUser, and its text is the cause, for the operator.
	AuthenticateToken(kid string, token []byte, now time.Time) (Proof, error)
}

// Chain asks each Authenticator in turn; the first that knows the user answers.
type Chain []Authenticator

// Authenticate implements Authenticator.
func (c Chain) Authenticate(username string, now time.Time) (Proof, error) {
	for _, a := range c {
		if p, err := a.Authenticate(username, now); err == nil {
			return p, nil
		}
	}
	return Proof{}, ErrUnknownUser
}
