package bearer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"epcscf/turncred"
)

// Type is the typ header of the token (RFC 9068 §2.1).
const Type = "at+jwt"

// MaxTokenLen bounds a token, before anything is done with it. Ours have some 700 bytes.
const MaxTokenLen = 8 << 10

// Leeway is how far the clocks of WAF and eP-CSCF may differ.
const Leeway = 5 * time.Second

// What Verify answers, chosen by what the caller does next. Errors wrap one of them, and
// their text is the cause, for the operator; it never holds the token.
var (
	// ErrInvalid says that the token is no good: 401 with error="invalid_token" (RFC 8898 §2.1.1).
	ErrInvalid = errors.New("bearer: invalid token")
	// ErrScope says that a good token does not allow this: 401 with error="invalid_scope".
	ErrScope = errors.New("bearer: insufficient scope")
	// ErrUnavailable says that nobody can tell now: the WAF does not answer.
	ErrUnavailable = errors.New("bearer: cannot verify")
)

// Claims are what a token says of the user and of those who vouch for him.
type Claims struct {
	TokenID  string // jti
	Grant    string // the authorization that it stems from: what a revocation names
	Issuer   string
	Audience []string
	Subject  string // the user at the WAF
	ClientID string
	Scopes   []string

	IMPI  turncred.IMPI
	IMPUs []string // SIP or tel URIs; the first is the default
	WWSF  string   // identity of the web server whose page it is (TS 33.203 X.3.2.3)
	WAF   string   // identity of the WAF

	IssuedAt time.Time
	Expires  time.Time
}

// Rest returns how long the token is good at now: no registration outlives it.
func (c Claims) Rest(now time.Time) time.Duration { return max(0, c.Expires.Sub(now)) }

// Owns reports whether impu is one of the token's.
func (c Claims) Owns(impu string) bool { return slices.Contains(c.IMPUs, impu) }

// HasScope reports whether scope was granted.
func (c Claims) HasScope(scope string) bool { return slices.Contains(c.Scopes, scope) }

// audience is one string or many (RFC 7519 §4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// wire is the body of the JWT, and of an introspection answer too (RFC 7662 §2.2).
type wire struct {
	Issuer    string   `json:"iss"`
	Audience  audience `json:"aud"`
	Expires   int64    `json:"exp"`
	IssuedAt  int64    `json:"iat"`
	NotBefore int64    `json:"nbf,omitempty"`
	TokenID   string   `json:"jti"`
	Subject   string   `json:"sub"`
	ClientID  string   `json:"client_id"`
	Scope     string   `json:"scope"`

	IMPI  turncred.IMPI `json:"impi"`
	IMPUs []string      `json:"impus"`
	WWSF  string        `json:"wwsf,omitempty"`
	WAF   string        `json:"waf,omitempty"`
	Grant string        `json:"grant,omitempty"`
}

// MarshalJSON writes the body of a JWT (RFC 9068 §2.2).
func (c Claims) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{
		Issuer: c.Issuer, Audience: c.Audience, Expires: c.Expires.Unix(), IssuedAt: c.IssuedAt.Unix(),
		TokenID: c.TokenID, Subject: c.Subject, ClientID: c.ClientID, Scope: strings.Join(c.Scopes, " "),
		IMPI: c.IMPI, IMPUs: c.IMPUs, WWSF: c.WWSF, WAF: c.WAF, Grant: c.Grant,
	})
}

// UnmarshalJSON reads the body of a JWT.
func (c *Claims) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if w.NotBefore > w.IssuedAt { // nbf, where there is one, is when it begins
		w.IssuedAt = w.NotBefore
	}
	*c = Claims{
		TokenID: w.TokenID, Grant: w.Grant, Issuer: w.Issuer, Audience: w.Audience, Subject: w.Subject,
		ClientID: w.ClientID, Scopes: strings.Fields(w.Scope), IMPI: w.IMPI, IMPUs: w.IMPUs, WWSF: w.WWSF, WAF: w.WAF,
		IssuedAt: time.Unix(w.IssuedAt, 0), Expires: time.Unix(w.Expires, 0),
	}
	return nil
}

// Expected is what a verifier wants of every token.
type Expected struct {
	Issuer   string // the WAF, exactly as it calls itself
	Audience string // who the verifier is
	Scope    string // "": any
}

// check follows RFC 9068 §4, from its third step on.
func (e Expected) check(c Claims, now time.Time) error {
	switch {
	case c.Issuer != e.Issuer:
		return fmt.Errorf("%w: of another issuer", ErrInvalid)
	case !slices.Contains(c.Audience, e.Audience):
		return fmt.Errorf("%w: for another audience", ErrInvalid)
	case !now.Before(c.Expires.Add(Leeway)):
		return fmt.Errorf("%w: expired", ErrInvalid)
	case c.IssuedAt.After(now.Add(Leeway)):
		return fmt.Errorf("%w: issued in the future", ErrInvalid)
	case c.TokenID == "" || c.Subject == "" || c.ClientID == "": // RFC 9068 §2.2: required
		return fmt.Errorf("%w: jti, sub or client_id is missing", ErrInvalid)
	case c.IMPI == "" || len(c.IMPUs) == 0:
		return fmt.Errorf("%w: names no IMS identity", ErrInvalid)
	case e.Scope != "" && !c.HasScope(e.Scope):
		return fmt.Errorf("%w: %q is wanted", ErrScope, e.Scope)
	}
	return nil
}
