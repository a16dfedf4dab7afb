package node

import (
	"context"
	"errors"
	"fmt"

	"epcscf/proxy"
	"epcscf/turncred"
	"epcscf/waf"
	"epcscf/waf/bearer"
)

// edgeTokens lets the edge take the registration tokens of the WAF beside it, by its keys
// and by what it has revoked: nobody is asked.
type edgeTokens struct{ verifier *bearer.Offline }

var (
	_ proxy.TokenVerifier = edgeTokens{}
	_ turncred.Immediate  = edgeTokens{}
)

// bearer says how the edge takes the WAF's tokens; nil where there is no WAF.
func (w *wafSide) bearer(cfg *WAF) (*proxy.Bearer, error) {
	if w == nil {
		return nil, nil
	}
	v, err := bearer.NewOffline(w.expected, w.keys, w.revoked, nil)
	if err != nil {
		return nil, err
	}
	return &proxy.Bearer{
		Verifier: edgeTokens{v}, AuthzServer: w.expected.Issuer, Scope: w.expected.Scope, EveryRequest: cfg.EveryRequest, CloseOnBad: cfg.CloseOnBad,
	}, nil
}

// Immediate implements turncred.Immediate.
func (e edgeTokens) Immediate() bool { return true }

// Verify implements proxy.TokenVerifier.
func (e edgeTokens) Verify(ctx context.Context, token string) (proxy.TokenClaims, error) {
	c, err := e.verifier.Verify(ctx, token)
	switch {
	case errors.Is(err, bearer.ErrInvalid):
		return proxy.TokenClaims{}, fmt.Errorf("%w: %w", proxy.ErrTokenInvalid, err)
	case errors.Is(err, bearer.ErrScope):
		return proxy.TokenClaims{}, fmt.Errorf("%w: %w", proxy.ErrTokenScope, err)
	case err != nil:
		return proxy.TokenClaims{}, err
	}
	claims := proxy.TokenClaims{ID: c.TokenID, Grant: c.Grant, IMPI: c.IMPI, WWSF: c.WWSF, WAF: c.WAF, Expires: c.Expires}
	for _, impu := range c.IMPUs {
		claims.IMPUs = append(claims.IMPUs, proxy.IMPU(impu))
	}
	return claims, nil
}

// edgeRevoker tells the edge what the WAF beside it has revoked.
type edgeRevoker struct{ node *Node }

var _ waf.Revoker = edgeRevoker{}

// RevokeGrant implements waf.Revoker.
func (e edgeRevoker) RevokeGrant(ctx context.Context, r waf.Revocation) error {
	// First for the tokens that come, then for the registrations that are there.
	if !e.node.waf.revoked.Revoke(r.Grant, r.Until) {
		return errors.New("edge: too many revocations to remember one more")
	}
	_, err := e.node.proxy.RevokeToken(ctx, r.Grant)
	return err
}
