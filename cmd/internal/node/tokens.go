package node

import (
	"fmt"
	"sync/atomic"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/token"
)

// Tokens are the access tokens of RFC 7635 that Relay takes, in ACCESS-TOKEN and in user
// names.
type Tokens struct {
	ServerName  string        // for which alone tokens are good; "": none are taken
	MaxLifetime time.Duration // longest lifetime that a token may have; default 1 h
	Keys        []token.Key
}

// tokenSide is what the relay asks of tokens. The keys may change while it runs (set).
type tokenSide struct {
	tokens Tokens // as at the start
	realm  turncred.Realm
	auth   atomic.Pointer[token.Authenticator]
	kids   atomic.Pointer[[]turncred.KeyID]
}

var (
	_ turncred.TokenAuthenticator = (*tokenSide)(nil)
	_ turncred.Authenticator      = (*tokenSide)(nil)
)

// newTokenSide returns nil where no tokens are taken.
func newTokenSide(cfg TURN) (*tokenSide, error) {
	if cfg.Tokens.ServerName == "" {
		return nil, nil
	}
	t := &tokenSide{tokens: cfg.Tokens, realm: cfg.Realm}
	a, err := t.with(cfg.Tokens.Keys)
	if err != nil {
		return nil, err
	}
	t.take(a, cfg.Tokens.Keys)
	return t, nil
}

// take has a, which knows keys, answer from now on.
func (t *tokenSide) take(a *token.Authenticator, keys []token.Key) {
	ids := tokenIDs(keys)
	t.auth.Store(a)
	t.kids.Store(&ids)
}

// with returns an authenticator that knows keys.
func (t *tokenSide) with(keys []token.Key) (*token.Authenticator, error) {
	ring, err := token.NewKeyRing(keys...)
	if err != nil {
		return nil, err
	}
	a, err := token.NewAuthenticator(token.AuthenticatorConfig{
		Ring: ring, ServerName: t.tokens.ServerName, Realm: t.realm, MaxLifetime: t.tokens.MaxLifetime,
	})
	if err != nil {
		return nil, fmt.Errorf("access tokens: %w", err)
	}
	return a, nil
}

// ServerName implements turncred.TokenAuthenticator.
func (t *tokenSide) ServerName() string { return t.tokens.ServerName }

// AuthenticateToken implements turncred.TokenAuthenticator.
func (t *tokenSide) AuthenticateToken(kid string, raw []byte, now time.Time) (turncred.Proof, error) {
	return t.auth.Load().AuthenticateToken(kid, raw, now)
}

// Authenticate implements turncred.Authenticator.
func (t *tokenSide) Authenticate(username string, now time.Time) (turncred.Proof, error) {
	return t.auth.Load().Authenticate(username, now)
}
