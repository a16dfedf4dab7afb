package push

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"epcscf/turncred"
)

// retryAfter is what a WIC is told to wait when the relay does not answer: long enough
// for a restart, short enough for a user who wants to call.
const retryAfter = 30 * time.Second

// Issuer makes credentials by approach 2. It implements turncred.Provisioner.
type Issuer struct {
	*turncred.Minter
	kid  turncred.KeyID
	sink Sink
}

var _ turncred.Provisioner = (*Issuer)(nil)

// NewIssuer returns an issuer that writes to sink; kid names the Tid's key. Where sink is a
// Placer a credential has the URIs of the relays that know it, and no others.
func NewIssuer(m *turncred.Minter, kid turncred.KeyID, sink Sink) *Issuer {
	return &Issuer{Minter: m, kid: kid, sink: sink}
}

// Immediate implements turncred.Immediate, as the sink says.
func (i *Issuer) Immediate() bool {
	s, ok := i.sink.(turncred.Immediate)
	return ok && s.Immediate()
}

// Provision implements turncred.Provisioner. It returns after the relay has
// acknowledged, or by ctx's deadline with reason relay-unreachable.
func (i *Issuer) Provision(ctx context.Context, r turncred.Request) (turncred.Credential, error) {
	c, err := i.Mint(r, i.kid, turncred.ApproachPush)
	if err != nil {
		return turncred.Credential{}, unavailable(turncred.ReasonDisabled, err)
	}
	if c.Password, err = randomPassword(); err != nil {
		return turncred.Credential{}, unavailable(turncred.ReasonDisabled, err)
	}
	record := Record{
		Tid: c.Tid, Username: c.Username, Realm: c.Realm, Texp: c.Texp, Identity: c.Identity,
		Key: turncred.NewLongTermKey(c.Username, c.Realm, c.Password),
	}
	if p, ok := i.sink.(Placer); ok {
		c.URIs, err = p.Place(ctx, record)
	} else {
		err = i.sink.Put(ctx, record)
	}
	if err != nil {
		return turncred.Credential{}, unavailable(turncred.ReasonRelayUnreachable, fmt.Errorf("push %s: %w", c.Tid, err))
	}
	return c, nil
}

// randomPassword returns 256 random bits in base64: no dictionary finds it (RFC 7376 §4, problem 1).
func randomPassword() (turncred.Secret, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return turncred.Secret{}, err
	}
	return turncred.NewSecret(base64.StdEncoding.AppendEncode(nil, b[:])), nil
}

func unavailable(reason turncred.Reason, err error) error {
	return &turncred.UnavailableError{Reason: reason, RetryAfter: retryAfter, Err: err}
}
