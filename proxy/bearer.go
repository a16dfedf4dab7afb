package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// Registration by web authentication (TS 33.203 X.3 and X.4, RFC 8898): a WIC shows the access
// token that a WAF has given it, and the edge vouches for the user toward the core.
//
//	REGISTER        bearerregister.go   the token's identities, and no longer than the token
//	other requests  bearerrequest.go    the token is checked where it is sent, or always
//	revocation      bearerrevoke.go     ends the registration and its credentials
//	header fields   bearerheader.go     credentials and challenges
//
// The token itself goes no further than the edge, and into no log.

// Bearer says how access tokens are taken. Verifier and AuthzServer must be set.
type Bearer struct {
	Verifier TokenVerifier
	// AuthzServer is the https URL at which a WIC gets a token, for the challenge (RFC 8898 §2.2).
	AuthzServer string
	// Scope is what a token must allow, for the challenge: the Verifier checks it. "" names none.
	Scope string
	// EveryRequest wants a token in each request of a WIC that has registered with one, but for
	// ACK, CANCEL and emergency calls; else it is checked only where it is sent.
	EveryRequest bool
	// CloseOnBad closes the WebSocket after a REGISTER with a bad token (TS 33.203 X.3.2.3).
	CloseOnBad bool
	// Ended, where it is set, is told that nothing stands on a grant any more, in a goroutine of
	// its own: what it has on loan can go back (TS 33.203 X.4). Not of what RevokeToken ended.
	Ended func(ctx context.Context, grant string)
}

// TokenVerifier says whether to believe an access token. One that asks nobody may implement
// turncred.Immediate, and is then called by who reads the flow.
type TokenVerifier interface {
	// Verify returns what token says if it is good now. An error that is not ErrTokenInvalid
	// or ErrTokenScope says that nobody can tell now; none holds the token.
	Verify(ctx context.Context, token string) (TokenClaims, error)
}

// What Verify returns, wrapped.
var (
	// ErrTokenInvalid is a token that is no good: malformed, expired, revoked, for another.
	ErrTokenInvalid = errors.New("proxy: invalid token")
	// ErrTokenScope is a good token that does not allow this.
	ErrTokenScope = errors.New("proxy: token of another scope")
)

// TokenClaims are what a good token says.
type TokenClaims struct {
	ID    string // of the token
	Grant string // of what it stems from; "" where there is no such thing
	IMPI  turncred.IMPI
	IMPUs []IMPU
	WWSF  string // whose page it is; "" where it is not said
	WAF   string // who issued it
	// Expires is the end of the token, and of a registration by it.
	Expires time.Time
}

// verifyTimeout bounds how long a request waits for a verdict on its token.
const verifyTimeout = 5 * time.Second

// What became of a token, or of a request without one.
const (
	tokenAccepted    = "accepted"
	tokenMalformed   = "malformed"
	tokenInvalid     = "invalid"
	tokenScope       = "scope"
	tokenForeign     = "foreign" // another user's, or not for this identity
	tokenMissing     = "missing"
	tokenUnavailable = "unavailable"
)

var tokenLabels = []string{tokenAccepted, tokenMalformed, tokenInvalid, tokenScope, tokenForeign, tokenMissing, tokenUnavailable}

// check names the field that is wrong.
func (b *Bearer) check() error {
	if b == nil {
		return nil
	}
	u, err := url.Parse(b.AuthzServer)
	switch {
	case b.Verifier == nil:
		return errors.New("Bearer.Verifier is nil: who checks the tokens?")
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(b.AuthzServer, " \"\\\r\n"):
		return fmt.Errorf("Bearer.AuthzServer is %q: want the https URL of the WAF", b.AuthzServer)
	case strings.ContainsAny(b.Scope, "\"\\\r\n"):
		return fmt.Errorf("Bearer.Scope is %q: want the scope of RFC 6749 §3.3", b.Scope)
	}
	return nil
}

// verify finds out what a token says and calls then: at once where nobody is waited for, else
// from a goroutine of its own.
func (p *Proxy) verify(token string, then func(TokenClaims, error)) {
	v := p.cfg.Bearer.Verifier
	check := func() {
		ctx, cancel := context.WithTimeout(p.ctx, verifyTimeout)
		c, err := v.Verify(ctx, token)
		cancel()
		if err == nil && c.Expires.Sub(p.cfg.Now()) < time.Second {
			err = fmt.Errorf("%w: expires this second", ErrTokenInvalid) // however much leeway the verifier gives
		}
		if err == nil && p.revoked.has(c) {
			err = fmt.Errorf("%w: revoked", ErrTokenInvalid)
		}
		then(c, err)
	}
	if i, ok := v.(turncred.Immediate); ok && i.Immediate() {
		check()
		return
	}
	p.start(check)
}

// badToken words the refusal of a token, and says whether it is the token that is bad.
func (p *Proxy) badToken(err error, challenge func(problem string) *refusal) (r *refusal, bad bool) {
	switch {
	case errors.Is(err, ErrTokenInvalid):
		p.metrics.tokens.WithLabelValues(tokenInvalid).Inc()
		return challenge("invalid_token"), true
	case errors.Is(err, ErrTokenScope):
		p.metrics.tokens.WithLabelValues(tokenScope).Inc()
		return challenge("invalid_scope"), true
	}
	p.metrics.tokens.WithLabelValues(tokenUnavailable).Inc()
	p.log.Warn("token not verified", "err", err)
	return &refusal{
		status: sip.StatusServiceUnavailable, phrase: "Token cannot be verified now",
		extra: []sip.Header{sip.NewHeader("Retry-After", "5")},
	}, false
}

// malformedToken is the answer to credentials that cannot be read, or could be read in two
// ways (RFC 6750 §3.1: invalid_request is 400).
func (p *Proxy) malformedToken(err error) *refusal {
	p.metrics.tokens.WithLabelValues(tokenMalformed).Inc()
	return &refusal{status: sip.StatusBadRequest, phrase: err.Error()}
}

// challenge is a 401 or 407 that asks for a token (RFC 8898 §2.2, §2.3, §4). problem is that of
// the token that came; "": none did.
func (p *Proxy) challenge(status int, problem string) *refusal {
	r := &refusal{status: status, phrase: "Unauthorized"}
	name := sipext.WWWAuthenticate.String()
	if status == sip.StatusProxyAuthRequired {
		r.phrase, name = "Proxy Authentication Required", "Proxy-Authenticate"
	}
	r.extra = []sip.Header{sip.NewHeader(name, p.cfg.bearerChallenge(problem))}
	return r
}
