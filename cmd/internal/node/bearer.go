package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"epcscf/proxy"
	"epcscf/turncred"
	"epcscf/waf"
	"epcscf/waf/bearer"
)

// Bearer says how the access tokens are checked by which WICs register (TS 33.203 X.3, X.4).
// Of Keys, JWKSURL and IntrospectionURL one must be set, but for the WAF of this process.
type Bearer struct {
	// Expected is what a token must say: its issuer, that we are its audience, its scope. Without
	// an issuer it is the WAF of this process, whose settings say all this.
	Expected bearer.Expected
	// Keys are the WAF's, as from ReadKeys.
	Keys bearer.Keys
	// JWKSURL is where a WAF on another host publishes them.
	JWKSURL string
	// IntrospectionURL is where it tells of a token (RFC 7662), to the client that we are.
	IntrospectionURL string
	ClientID         string
	ClientSecret     turncred.Secret
	// Authorities are whose certificate the WAF at these URLs has; nil: the system's.
	Authorities *x509.CertPool

	AuthzServer  string // what challenges name; default Expected.Issuer
	EveryRequest bool
	CloseOnBad   bool
}

// wafTimeout bounds a request to a WAF.
const wafTimeout = 5 * time.Second

// ReadKeys reads a WAF's keys from a file with a JWKS (RFC 7517 §5).
func ReadKeys(name string) (bearer.Keys, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, FileError(name, err)
	}
	defer func() { _ = f.Close() }()
	keys, err := bearer.ReadKeys(f)
	if err == nil && len(keys) == 0 {
		err = errors.New("no public key with a kid")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: want a JWKS with the WAF's public keys", name, err)
	}
	return keys, nil
}

// of completes b where it is for the WAF of this process.
func (b Bearer) of(w waf.Config, keys bearer.Keys) Bearer {
	if b.Expected.Issuer == "" {
		b.Expected = bearer.Expected{
			Issuer: w.Issuer, Audience: w.Registration.Audience, Scope: cmp.Or(w.Registration.Scope, waf.ScopeRegistration),
		}
		b.Keys = keys
	}
	return b
}

// tokenCheck is the edge's proxy.TokenVerifier, and the waf.Revoker of a WAF in this process.
type tokenCheck struct {
	cfg      Bearer
	verifier interface {
		Verify(ctx context.Context, token string) (bearer.Claims, error)
	}
	revoked   *bearer.Revocations
	immediate bool
	client    *http.Client // to a WAF on another host
	proxy     *proxy.Proxy // set once it is made
}

var (
	_ proxy.TokenVerifier = (*tokenCheck)(nil)
	_ turncred.Immediate  = (*tokenCheck)(nil)
	_ waf.Revoker         = (*tokenCheck)(nil)
)

// newTokenCheck opens no connection.
func newTokenCheck(cfg Bearer) (t *tokenCheck, err error) {
	client := &http.Client{
		Timeout: wafTimeout,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: cfg.Authorities, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		},
		// A token goes to whom the operator has named, and to nobody whom that one names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t = &tokenCheck{cfg: cfg, client: client, revoked: bearer.NewRevocations(nil)}
	keys := cfg.Keys
	if keys == nil {
		keys = bearer.NewRemoteKeys(cfg.JWKSURL, client, nil)
	}
	if cfg.IntrospectionURL != "" {
		t.verifier, err = bearer.NewIntrospection(bearer.IntrospectionConfig{
			Expected: cfg.Expected, URL: cfg.IntrospectionURL, ClientID: cfg.ClientID, Secret: cfg.ClientSecret, Client: client,
		})
	} else {
		t.immediate = cfg.Keys != nil
		t.verifier, err = bearer.NewOffline(cfg.Expected, keys, t.revoked, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("tokens at the edge: %w", err)
	}
	return t, nil
}

// edge adds to the edge's configuration that tokens are taken. w, which may be nil, is the WAF
// of this process: it gets back what it has lent.
func (t *tokenCheck) edge(to *proxy.Config, w *wafSide) {
	if t == nil {
		return
	}
	cfg := t.cfg
	to.Bearer = &proxy.Bearer{
		Verifier: t, AuthzServer: cmp.Or(cfg.AuthzServer, cfg.Expected.Issuer), Scope: cfg.Expected.Scope,
		EveryRequest: cfg.EveryRequest, CloseOnBad: cfg.CloseOnBad,
	}
	if w != nil {
		to.Bearer.Ended = func(ctx context.Context, grant string) { _ = w.ReturnIdentity(ctx, grant) } // which logs what fails
	}
}

// use says whose registrations a revocation ends.
func (t *tokenCheck) use(p *proxy.Proxy) {
	if t != nil {
		t.proxy = p
	}
}

func (t *tokenCheck) close() {
	if t != nil {
		t.client.CloseIdleConnections()
	}
}

// Immediate implements turncred.Immediate: nobody is asked where the keys are here.
func (t *tokenCheck) Immediate() bool { return t.immediate }

// Verify implements proxy.TokenVerifier.
func (t *tokenCheck) Verify(ctx context.Context, token string) (proxy.TokenClaims, error) {
	c, err := t.verifier.Verify(ctx, token)
	switch {
	case errors.Is(err, bearer.ErrInvalid):
		return proxy.TokenClaims{}, fmt.Errorf("%w: %w", proxy.ErrTokenInvalid, err)
	case errors.Is(err, bearer.ErrScope):
		return proxy.TokenClaims{}, fmt.Errorf("%w: %w", proxy.ErrTokenScope, err)
	case err != nil:
		return proxy.TokenClaims{}, err
	}
	claims := proxy.TokenClaims{ID: c.TokenID, Grant: c.Grant, IMPI: c.IMPI, WWSF: c.WWSF, WAF: c.WAF, Expires: c.Expires}
	for _, id := range c.IMPUs {
		claims.IMPUs = append(claims.IMPUs, proxy.IMPU(id))
	}
	return claims, nil
}

// RevokeGrant implements waf.Revoker: no token of the grant is taken any more, and what stands
// on one has ended when it returns.
func (t *tokenCheck) RevokeGrant(ctx context.Context, r waf.Revocation) error {
	if !t.revoked.Revoke(r.Grant, r.Until) {
		return errors.New("more revocations than an edge keeps")
	}
	_, err := t.proxy.RevokeToken(ctx, r.Grant)
	return err
}
