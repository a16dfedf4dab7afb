package waf

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"epcscf/store"
)

// clientMetadata is what a client says of itself (RFC 7591 §2), and gets back (§3.2.1).
type clientMetadata struct {
	RedirectURIs  []string `json:"redirect_uris"`
	AuthMethod    string   `json:"token_endpoint_auth_method,omitempty"`
	GrantTypes    []string `json:"grant_types,omitempty"`
	ResponseTypes []string `json:"response_types,omitempty"`
	Name          string   `json:"client_name,omitempty"`
	Scope         string   `json:"scope,omitempty"`

	ID       string `json:"client_id,omitempty"`
	IssuedAt int64  `json:"client_id_issued_at,omitempty"`
}

// NewInitialAccess makes an initial access token, good for one registration (RFC 7591 §1.2).
func NewInitialAccess(ctx context.Context, records store.Grants, expires time.Time) (string, error) {
	secret := randomSecret()
	return secret, records.AddGrant(ctx, store.Grant{Hash: store.HashGrant(secret), Kind: store.GrantInitialAccess, Expires: expires})
}

// serveRegister is the registration endpoint (RFC 7591 §3), step 0 of the flow, for public
// clients. Whoever registers brings an initial access token from the operator.
func (s *Server) serveRegister(w http.ResponseWriter, r *http.Request) {
	answer, err := s.register(r)
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	answerJSON(w, http.StatusCreated, answer)
}

func (s *Server) register(r *http.Request) (clientMetadata, error) {
	scheme, access, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || access == "" || len(access) > 128 {
		return clientMetadata{}, refuse(InvalidToken, "an initial access token is wanted")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return clientMetadata{}, refuse(InvalidClientMetadata, "the body must be application/json")
	}
	var m clientMetadata
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		return m, refuse(InvalidClientMetadata, "the body is no client metadata, or too long")
	}
	rec, err := s.newClient(m)
	if err != nil {
		return m, err
	}
	// The token is used up last: a mistake in the body does not cost it.
	_, err = s.cfg.Records.ConsumeGrant(r.Context(), store.GrantInitialAccess, store.HashGrant(access))
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUsed) || errors.Is(err, store.ErrExpired) || errors.Is(err, store.ErrRevoked) {
		return m, refuse(InvalidToken, "the initial access token is not good, or was used before")
	}
	if err != nil {
		return m, err
	}
	if err := s.cfg.Records.AddClient(r.Context(), rec); err != nil {
		return m, err
	}
	s.cfg.Logger.Info("client registered", "client", rec.ID)
	if err := s.cfg.Records.Record(r.Context(), store.Event{Actor: "waf", Action: "client.register", Object: "client/" + rec.ID}); err != nil {
		return m, err
	}
	return clientMetadata{
		RedirectURIs: rec.RedirectURIs, AuthMethod: "none", GrantTypes: rec.GrantTypes, ResponseTypes: responseTypes(rec.GrantTypes),
		Name: rec.Name, Scope: strings.Join(rec.Scopes, " "), ID: rec.ID, IssuedAt: s.cfg.Now().Unix(),
	}, nil
}

// newClient checks metadata (RFC 7591 §2, §3.2.2).
func (s *Server) newClient(m clientMetadata) (store.Client, error) {
	if m.ID != "" || m.AuthMethod != "" && m.AuthMethod != "none" {
		return store.Client{}, refuse(InvalidClientMetadata, "only public clients register here: token_endpoint_auth_method must be none, and client_id is ours to give")
	}
	if len(m.RedirectURIs) == 0 {
		return store.Client{}, refuse(InvalidRedirectURI, "redirect_uris is empty")
	}
	for _, u := range m.RedirectURIs {
		if err := CheckRedirectURI(u); err != nil {
			return store.Client{}, refuse(InvalidRedirectURI, err.Error())
		}
	}
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = []string{grantAuthorizationCode} // RFC 7591 §2
	}
	for _, g := range m.GrantTypes {
		if g != grantAuthorizationCode && g != grantRefreshToken && (g != grantImplicit || !s.cfg.AllowImplicit) {
			return store.Client{}, refuse(InvalidClientMetadata, "grant_types has one that is not offered")
		}
	}
	for _, t := range m.ResponseTypes {
		if !slices.Contains(responseTypes(m.GrantTypes), t) { // RFC 7591 §2.1
			return store.Client{}, refuse(InvalidClientMetadata, "response_types and grant_types do not fit")
		}
	}
	offered := []string{s.cfg.Registration.Scope, ScopeSTUN}
	scopes := strings.Fields(m.Scope)
	if len(scopes) == 0 {
		scopes = offered
	}
	for _, one := range scopes {
		if !slices.Contains(offered, one) {
			return store.Client{}, refuse(InvalidClientMetadata, "scope has one that is not offered")
		}
	}
	if m.Name == "" {
		m.Name = strings.TrimPrefix(formTarget(m.RedirectURIs[0]), "https://")
	}
	rec, _, err := NewClient{Name: m.Name, RedirectURIs: m.RedirectURIs, GrantTypes: m.GrantTypes, Scopes: scopes}.Record()
	if err != nil {
		return rec, refuse(InvalidClientMetadata, err.Error())
	}
	return rec, nil
}

func responseTypes(grants []string) (types []string) {
	for _, g := range grants {
		switch g {
		case grantAuthorizationCode:
			types = append(types, string(ResponseCode))
		case grantImplicit:
			types = append(types, string(ResponseToken))
		}
	}
	return types
}
