package waf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
)

// ScopeSTUN asks for a TURN token (RFC 7635 §12.3 registers it).
const ScopeSTUN = "stun"

// ScopeRegistration asks for a registration token. TS 33.203 X.3 calls the string a
// placeholder, so Config can have another.
const ScopeRegistration = "webrtc-ims-client-access-to-ims"

// Records is what the server keeps; a store.Store has it.
type Records interface {
	store.Clients
	store.Users
	store.Grants
	store.Loans
	store.Audit
}

// MinRegistrationLife is the least Registration.Life: a WIC must have the time to renew.
const MinRegistrationLife = 10 * time.Second

// Relay is a TURN server for which tokens are made.
type Relay struct {
	// Name is its STUN server name, the aud of requests, and the associated data of its
	// tokens (RFC 7635 §6.1).
	Name string
	URIs []string // RFC 7065, turns first
	// Offered, where set, is in place of URIs: relays come and go. It must not block.
	Offered func() []string
	// Tokens makes them; its server name must be Name.
	Tokens *token.Issuer
}

// Registration says what a registration token is for.
type Registration struct {
	Audience string        // the eP-CSCF; required
	Scope    string        // default ScopeRegistration
	WAF      string        // our identity toward the core; default: the issuer's host
	Life     time.Duration // default 10 min
}

// Revocation is a grant that was taken back before its time.
type Revocation struct {
	Grant string        // as the registration tokens name it
	IMPI  turncred.IMPI // "" where it is not known
	Until time.Time     // nothing of the grant is good after this
}

// ErrLater is of a Revoker that has yet to tell someone, and will: what was to be told is on
// its disk. A client hears of it as of success, but what is on loan stays lent.
var ErrLater = errors.New("waf: not everyone knows yet")

// Revoker is told of revocations: an eP-CSCF, which cannot see them in a token that it
// checks offline. It must return by ctx's deadline. While it fails the grant is revoked
// here all the same, and what it had on loan stays lent until its token has expired.
type Revoker interface {
	RevokeGrant(ctx context.Context, r Revocation) error
}

// Config configures a Server. Issuer, Records, Keys, Secret and Registration.Audience must
// be set.
type Config struct {
	// Issuer is our URL, https, without a path: iss of tokens and answers.
	Issuer  string
	Records Records
	Keys    *SigningKeys
	// Secret seals cookies; 32 bytes or more, the same in each process of a WAF.
	Secret turncred.Secret

	Relays       []Relay
	Registration Registration
	Revoker      Revoker // nil: nobody is told

	// AllowImplicit takes response_type=token too, which RFC 9700 §2.1.2 advises against.
	AllowImplicit bool
	// Provider signs users in by an operator's OpenID Connect provider; nil: local
	// accounts only.
	Provider *ProviderConfig

	CodeLife    time.Duration // of an authorization code; default 1 min
	RefreshLife time.Duration // of a grant's refresh tokens, all together; default 24 h
	SessionLife time.Duration // of a sign-in; default 1 h

	Hasher  *Hasher               // of passwords; default NewHasher()
	Logger  *slog.Logger          // default: none
	Metrics prometheus.Registerer // nil: none
	Now     func() time.Time      // default time.Now
}

// check fills in the defaults; an error names the field.
func (c *Config) check() error {
	switch {
	case c.Records == nil:
		return errors.New("waf: Records is not set")
	case c.Keys == nil:
		return errors.New("waf: Keys is not set")
	case c.Secret.Len() < turncred.MinSecretLen:
		return fmt.Errorf("waf: Secret has %d bytes, want %d or more", c.Secret.Len(), turncred.MinSecretLen)
	case c.Registration.Audience == "":
		return errors.New("waf: Registration.Audience is not set")
	}
	u, err := url.Parse(c.Issuer)
	// RFC 8414 §2: https, no query and no fragment. A path would share its origin, and so
	// its cookies and its scripts' reach, with others.
	if err != nil || u.Scheme != "https" || u.Host == "" || c.Issuer != "https://"+u.Host {
		return fmt.Errorf("waf: Issuer is %q, want https://HOST or https://HOST:PORT", c.Issuer)
	}
	seen := map[string]bool{}
	for _, r := range c.Relays {
		if r.Name == "" || strings.Contains(r.Name, " ") || seen[r.Name] || len(r.URIs) == 0 && r.Offered == nil || r.Tokens == nil {
			return fmt.Errorf("waf: Relays: %q: want a name of its own, URIs and Tokens", r.Name)
		}
		seen[r.Name] = true
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		fallback time.Duration
		least    time.Duration
	}{
		{"Registration.Life", &c.Registration.Life, 10 * time.Minute, MinRegistrationLife},
		{"CodeLife", &c.CodeLife, time.Minute, time.Second},
		{"RefreshLife", &c.RefreshLife, 24 * time.Hour, time.Minute},
		{"SessionLife", &c.SessionLife, time.Hour, time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
		if *d.value < d.least {
			return fmt.Errorf("waf: %s is %v, want %v or more", d.name, *d.value, d.least)
		}
	}
	if c.CodeLife > 10*time.Minute { // RFC 6749 §4.1.2 recommends it as the maximum
		return fmt.Errorf("waf: CodeLife is %v, want 10m or less", c.CodeLife)
	}
	if c.Registration.Scope == "" {
		c.Registration.Scope = ScopeRegistration
	}
	if c.Registration.WAF == "" {
		c.Registration.WAF = u.Hostname()
	}
	if c.Hasher == nil {
		c.Hasher = NewHasher()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}
