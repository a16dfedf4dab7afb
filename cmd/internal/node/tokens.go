package node

import (
	"fmt"
	"slices"
	"sync"
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

	mu           sync.Mutex // guards the fields below
	own, fetched []token.Key
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
	return t, t.use(cfg.Tokens.Keys, func() error { return nil })
}

// use takes the keys of the operator's file, unless also fails.
func (t *tokenSide) use(own []token.Key, also func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, err := t.with(own, t.fetched)
	if err != nil {
		return err
	}
	if err := also(); err != nil {
		return err
	}
	t.own = own
	t.take(a)
	return nil
}

// useFetched takes the keys that the WAF has given.
func (t *tokenSide) useFetched(keys []token.Key) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, err := t.with(t.own, keys)
	if err != nil {
		return err
	}
	t.fetched = keys
	t.take(a)
	return nil
}

// take has a, which knows the keys of both kinds, answer from now on.
func (t *tokenSide) take(a *token.Authenticator) {
	ids := slices.Concat(tokenIDs(t.own), tokenIDs(t.fetched))
	t.auth.Store(a)
	t.kids.Store(&ids)
}

// with returns an authenticator that knows the keys of both kinds. Those of the operator's
// file win over others of their name.
func (t *tokenSide) with(own, fetched []token.Key) (*token.Authenticator, error) {
	all := slices.Clone(own)
	for _, k := range fetched {
		if !slices.ContainsFunc(own, func(o token.Key) bool { return o.ID == k.ID }) {
			all = append(all, k)
		}
	}
	ring, err := token.NewKeyRing(all...)
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
