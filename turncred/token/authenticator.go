package token

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"epcscf/turncred"
)

// maxServerName bounds a server name: it stands in every challenge.
const maxServerName = 255

// AuthenticatorConfig configures an Authenticator. Ring, ServerName and Realm must be set.
type AuthenticatorConfig struct {
	Ring *KeyRing
	// ServerName is the STUN server name, for which alone tokens are good.
	ServerName string
	// Realm is that of tokens in a USERNAME.
	Realm turncred.Realm
	// MaxLifetime is the longest lifetime that a token may have; default 1 h.
	MaxLifetime time.Duration
}

// Authenticator opens tokens, from ACCESS-TOKEN and from a USERNAME. Safe for concurrent
// use.
type Authenticator struct{ cfg AuthenticatorConfig }

var (
	_ turncred.Authenticator      = (*Authenticator)(nil)
	_ turncred.TokenAuthenticator = (*Authenticator)(nil)
)

// NewAuthenticator checks cfg.
func NewAuthenticator(cfg AuthenticatorConfig) (*Authenticator, error) {
	if cfg.Ring == nil || cfg.ServerName == "" || cfg.Realm == "" {
		return nil, errors.New("token: Ring, ServerName and Realm must be set")
	}
	if len(cfg.ServerName) > maxServerName {
		return nil, fmt.Errorf("token: ServerName has %d bytes, want %d or fewer", len(cfg.ServerName), maxServerName)
	}
	if cfg.MaxLifetime == 0 {
		cfg.MaxLifetime = time.Hour
	}
	if cfg.MaxLifetime < time.Second {
		return nil, fmt.Errorf("token: MaxLifetime is %v, want 1 s or more", cfg.MaxLifetime)
	}
	return &Authenticator{cfg}, nil
}

// ServerName implements turncred.TokenAuthenticator.
func (a *Authenticator) ServerName() string { return a.cfg.ServerName }

// AuthenticateToken implements turncred.TokenAuthenticator.
func (a *Authenticator) AuthenticateToken(kid string, raw []byte, now time.Time) (turncred.Proof, error) {
	k := a.cfg.Ring.keys[turncred.KeyID(kid)]
	if k == nil {
		return turncred.Proof{}, fmt.Errorf("%w: no token key of this kid", turncred.ErrUnknownUser)
	}
	c, err := k.open(a.cfg.ServerName, raw)
	if err == nil {
		err = c.check(now, a.cfg.MaxLifetime)
	}
	if err != nil {
		return turncred.Proof{}, fmt.Errorf("%w: %w", turncred.ErrUnknownUser, err)
	}
	return turncred.Proof{
		Tid: tidOf(k.ID, raw), Texp: c.end(now),
		Key:      turncred.LongTermKey{MD5: c.MACKey, SHA256: c.MACKey},
		Identify: func() (turncred.Identity, error) { return k.identify(c) },
	}, nil
}

// Authenticate implements turncred.Authenticator for tokens in a USERNAME. Unlike others
// it knows no token that has expired.
func (a *Authenticator) Authenticate(username string, now time.Time) (turncred.Proof, error) {
	kid, encoded, ok := strings.Cut(username, separator)
	if !ok {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	raw, err := usernameEncoding.DecodeString(encoded)
	// The encoding passes over line ends: of two spellings only one may be a user.
	if err != nil || usernameOf(turncred.KeyID(kid), raw) != username {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	p, err := a.AuthenticateToken(kid, raw, now)
	if err != nil {
		return turncred.Proof{}, err
	}
	p.Key = turncred.NewLongTermKey(username, a.cfg.Realm, passwordOf(p.Key.MD5))
	return p, nil
}

// tidOf names a token in logs and revocations, which never show the token itself.
func tidOf(kid turncred.KeyID, raw []byte) turncred.Tid {
	h := sha256.Sum256(raw)
	return turncred.Tid(string(kid) + "-" + base64.RawURLEncoding.EncodeToString(h[:16]))
}
