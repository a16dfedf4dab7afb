package waf

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"epcscf/store"
)

// grantData is what the record of a code or refresh token holds of its grant, in JSON.
type grantData struct {
	Scopes   []string  `json:"scopes"`
	Audience string    `json:"aud,omitempty"`
	Class    string    `json:"class,omitempty"` // of a user who has no account here
	Ends     time.Time `json:"ends"`            // of all that comes of the grant
	Loan     *identity `json:"loan,omitempty"`

	RedirectURI string `json:"redirect_uri,omitempty"` // of a code
	Challenge   string `json:"challenge,omitempty"`
}

// addGrant makes a single-use secret for g and keeps its hash.
func (s *Server) addGrant(ctx context.Context, kind store.GrantKind, g grant, d grantData, expires time.Time) (string, error) {
	d.Scopes, d.Audience, d.Loan = g.scopes, g.audience, g.loan
	if g.user.Name != "" && g.user.Created.IsZero() {
		d.Class = g.user.Class
	}
	data, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	secret := randomSecret()
	return secret, s.cfg.Records.AddGrant(ctx, store.Grant{
		Hash: store.HashGrant(secret), Kind: kind, Family: g.id, Client: g.client.ID, User: g.user.Name, Expires: expires, Data: data,
	})
}

// codeAnswer is the answer of RFC 6749 §4.1.2.
func (s *Server) codeAnswer(ctx context.Context, g grant, a *authorization) (url.Values, error) {
	now := s.cfg.Now()
	code, err := s.addGrant(ctx, store.GrantCode, g, grantData{
		RedirectURI: a.redirectURI, Challenge: a.challenge, Ends: now.Add(s.cfg.RefreshLife),
	}, now.Add(s.cfg.CodeLife))
	return url.Values{"code": {code}}, err
}

// takeGrant uses a code or refresh token up. Whatever is wrong with it, the answer is
// invalid_grant; a second use, or one by another client, revokes all that came of the grant
// (RFC 6749 §4.1.2, §10.4; RFC 9700 §4.14.2).
func (s *Server) takeGrant(ctx context.Context, kind store.GrantKind, secret string, by store.Client) (g grant, d grantData, err error) {
	rec, err := s.cfg.Records.ConsumeGrant(ctx, kind, store.HashGrant(secret))
	refusal := error(refuse(InvalidGrant, "the "+grantNames[kind]+" is not good, or was used before"))
	if errors.Is(err, store.ErrNotFound) {
		return g, d, refusal
	}
	used := errors.Is(err, store.ErrUsed)
	if err != nil && !used {
		if errors.Is(err, store.ErrExpired) || errors.Is(err, store.ErrRevoked) {
			return g, d, refusal
		}
		return g, d, err
	}
	if err := json.Unmarshal(rec.Data, &d); err != nil {
		return g, d, err
	}
	g = grant{id: rec.Family, client: store.Client{ID: rec.Client}, scopes: d.Scopes, audience: d.Audience, loan: d.Loan}
	if g.user, err = s.grantUser(ctx, rec.User, d.Class); err != nil && !errors.Is(err, errUnknownUser) {
		return g, d, err
	}
	gone := err != nil
	switch {
	case used:
		_ = s.revoke(ctx, &g, grantNames[kind]+" used twice") // it is logged; the answer is the same
		return g, d, refusal
	case rec.Client != by.ID:
		_ = s.revoke(ctx, &g, grantNames[kind]+" used by another client")
		return g, d, refusal
	case gone: // deleted or disabled since
		return g, d, refusal
	}
	g.client = by
	return g, d, nil
}

var grantNames = map[store.GrantKind]string{store.GrantCode: "code", store.GrantRefresh: "refresh token"}

// grantUser returns the user of a grant; "" is nobody.
func (s *Server) grantUser(ctx context.Context, name, class string) (store.User, error) {
	switch {
	case name == "":
		return store.User{}, nil
	case class != "":
		return store.User{Name: name, Class: class}, nil
	}
	return s.user(ctx, name)
}
