package token

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"epcscf/turncred"
)

// Token is an access token and what its holder must know.
type Token struct {
	KeyID    turncred.KeyID  // kid: the USERNAME beside ACCESS-TOKEN
	Raw      []byte          // the value of ACCESS-TOKEN
	MACKey   turncred.Secret // signs requests, as it is
	Expires  time.Time
	Lifetime time.Duration // of the token: an OAuth expires_in is no more (RFC 7635 §6.2)
	Identity turncred.Identity
}

// Username returns the name by which a client without ACCESS-TOKEN, a browser for one,
// brings the token.
func (t Token) Username() string { return usernameOf(t.KeyID, t.Raw) }

// Password returns the password that belongs to Username.
func (t Token) Password() turncred.Secret { return passwordOf(t.MACKey) }

func usernameOf(kid turncred.KeyID, raw []byte) string {
	return string(kid) + separator + usernameEncoding.EncodeToString(raw)
}

func passwordOf(macKey turncred.Secret) turncred.Secret {
	return turncred.NewSecret(base64.StdEncoding.AppendEncode(nil, macKey.Reveal()))
}

// separator stands between kid and token in a USERNAME. No kid has it.
const separator = "~"

// usernameEncoding is strict, so that a token has one spelling.
var usernameEncoding = base64.RawURLEncoding.Strict()

// Issuer makes tokens for one server. It embeds the Minter, whose Revoke takes back tokens
// as it does other credentials, but for one thing: a token bears no binding, so only what
// takes all of a user's bindings reaches it. Safe for concurrent use.
type Issuer struct {
	*turncred.Minter
	serverName string
	maxUses    uint64 // of a key by this process; MaxUses but in tests

	mu      sync.Mutex // guards the fields below
	ring    *KeyRing
	sealers map[turncred.KeyID]*Sealer
}

// MaxUses is how many tokens a process makes with one key, after which the next key of the
// ring takes over, or none. NIST SP 800-38D §8.3 wants less than 2^32 invocations of GCM
// under a key, all its issuers taken together: this leaves room for eight processes, or
// starts of one.
const MaxUses = 1 << 29

// NewIssuer returns an issuer of tokens for a STUN server name, the one that the relay
// gives in THIRD-PARTY-AUTHORIZATION.
func NewIssuer(m *turncred.Minter, ring *KeyRing, serverName string) (*Issuer, error) {
	if m == nil || ring == nil || serverName == "" {
		return nil, errors.New("token: minter, ring and server name must be set")
	}
	return &Issuer{Minter: m, ring: ring, serverName: serverName, sealers: map[turncred.KeyID]*Sealer{}, maxUses: MaxUses}, nil
}

// Use takes the keys of a new ring from now on. What was made with a key counts on where the
// ring has it again.
func (i *Issuer) Use(ring *KeyRing) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ring = ring
}

// Issue makes a token for r's user; it computes and never waits. The error is, or wraps,
// ErrNoKey where the ring has no key to issue with: none is valid now, or all that are have
// made MaxUses tokens.
func (i *Issuer) Issue(r turncred.Request) (Token, error) {
	now := i.Now()
	k, sealer, err := i.sealer(now)
	if err != nil {
		return Token{}, err
	}
	life, err := i.Life(r)
	if err != nil {
		return Token{}, err
	}
	id := i.Identify(r)
	id.Binding = 0 // a mac_key has no room for it
	macKey, err := k.newMACKey(id)
	if err != nil {
		return Token{}, fmt.Errorf("issue token: %w", err)
	}
	raw, err := sealer.Seal(Claims{MACKey: macKey, Issued: now, Lifetime: life})
	if err != nil {
		return Token{}, err
	}
	return Token{KeyID: k.ID, Raw: raw, MACKey: macKey, Expires: now.Add(life), Lifetime: life, Identity: id}, nil
}

// RevokeToken takes back one token, whoever brings it. What is no token of this server and of
// our keys is passed over. The error is a *turncred.RevokeError.
func (i *Issuer) RevokeToken(ctx context.Context, raw []byte) error {
	i.mu.Lock()
	keys := i.ring.order
	i.mu.Unlock()
	for _, k := range keys {
		if k.Foreign {
			continue
		}
		if c, err := k.open(i.serverName, raw); err == nil {
			return i.RevokeTid(ctx, tidOf(k.ID, raw), c.Issued.Add(c.Lifetime+Delta))
		}
	}
	return nil
}

// sealer counts a use of the key to issue with at now, and returns it.
func (i *Issuer) sealer(now time.Time) (*ringKey, *Sealer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k, err := i.ring.issuing(now, func(k *ringKey) bool { s := i.sealers[k.ID]; return s == nil || s.uses < i.maxUses })
	if err != nil {
		return nil, nil, err
	}
	s := i.sealers[k.ID]
	if s == nil || s.key != k && !s.key.Secret.Equal(k.Secret) {
		s = &Sealer{key: k, serverName: i.serverName}
		i.sealers[k.ID] = s
	}
	s.uses++
	return k, s, nil
}
