package waf

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"epcscf/store"
	"epcscf/turncred"
)

// The grant types (RFC 7591 §2).
const (
	grantAuthorizationCode = "authorization_code"
	grantImplicit          = "implicit"
	grantRefreshToken      = "refresh_token"
	grantClientCredentials = "client_credentials"
)

// ClientData is what we know of a client beyond what every OAuth server does: the Data of a
// store.Client, in JSON.
type ClientData struct {
	// WWSF is the identity of the web server that the client is the page of, as tokens
	// carry it (TS 33.203 X.3.2.3). "" is the client's ID.
	WWSF string `json:"wwsf,omitempty"`
	// Vouches lets a client_credentials request name a user (TS 33.203 X.5.3.2: the WWSF
	// has authenticated him itself).
	Vouches bool `json:"vouches,omitempty"`
	// Class is the pool for users that such a request does not name (scenario 3).
	Class string `json:"class,omitempty"`
	// Introspects lets the client ask about tokens (RFC 7662): an eP-CSCF.
	Introspects bool `json:"introspects,omitempty"`
}

// NewClient is a client that is to be registered.
type NewClient struct {
	ID           string // "": one is made
	Name         string // shown to users when they consent
	RedirectURIs []string
	GrantTypes   []string // default: authorization_code and refresh_token
	Scopes       []string
	Audiences    []string // default: every relay
	Confidential bool     // it gets a secret
	ClientData
}

// Record checks c and returns what is to be stored, and the secret of a confidential
// client, of which only the hash is stored.
func (c NewClient) Record() (store.Client, turncred.Secret, error) {
	if c.ID == "" {
		c.ID = rand.Text()
	}
	if len(c.ID) > 128 || slices.ContainsFunc([]rune(c.ID), notUnreserved) {
		return store.Client{}, turncred.Secret{}, errors.New("client id: want 1 to 128 letters, digits, or any of - . _ ~")
	}
	if c.Name == "" || len(c.Name) > 100 {
		return store.Client{}, turncred.Secret{}, errors.New("client name: want 1 to 100 bytes, for users to see")
	}
	if len(c.GrantTypes) == 0 {
		c.GrantTypes = []string{grantAuthorizationCode, grantRefreshToken}
	}
	for _, g := range c.GrantTypes {
		switch g {
		case grantAuthorizationCode, grantImplicit, grantRefreshToken:
		case grantClientCredentials:
			if !c.Confidential { // RFC 6749 §4.4
				return store.Client{}, turncred.Secret{}, errors.New("client_credentials is for confidential clients only")
			}
		default:
			return store.Client{}, turncred.Secret{}, fmt.Errorf("unknown grant type %q", g)
		}
	}
	byRedirect := slices.Contains(c.GrantTypes, grantAuthorizationCode) || slices.Contains(c.GrantTypes, grantImplicit)
	if byRedirect && len(c.RedirectURIs) == 0 || len(c.RedirectURIs) > 20 {
		return store.Client{}, turncred.Secret{}, errors.New("want 1 to 20 redirect URIs")
	}
	for _, u := range c.RedirectURIs {
		if err := CheckRedirectURI(u); err != nil {
			return store.Client{}, turncred.Secret{}, err
		}
	}
	data, err := json.Marshal(c.ClientData)
	if err != nil {
		return store.Client{}, turncred.Secret{}, err
	}
	rec := store.Client{
		ID: c.ID, Name: c.Name, RedirectURIs: c.RedirectURIs, GrantTypes: c.GrantTypes,
		Scopes: c.Scopes, Audiences: c.Audiences, Data: data,
	}
	if !c.Confidential {
		return rec, turncred.Secret{}, nil
	}
	secret := randomSecret()
	rec.SecretHash = hashClientSecret(secret)
	return rec, turncred.NewSecret([]byte(secret)), nil
}

// randomSecret returns 256 bits in base64url: a code, a refresh token, a client's secret.
func randomSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newGrantID names a grant. Tokens show it; it is no secret. It has the form that goes into a
// Tid (bearer.GrantTid).
func newGrantID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// hashClientSecret needs neither salt nor a slow hash, since the secret is random and long.
func hashClientSecret(secret string) turncred.Secret {
	h := sha256.Sum256([]byte(secret))
	return turncred.NewSecret(h[:])
}

// client returns a registered client. The error is errUnknownClient.
func (s *Server) client(ctx context.Context, id string) (store.Client, error) {
	if id == "" || len(id) > 128 || slices.ContainsFunc([]rune(id), notUnreserved) {
		return store.Client{}, errUnknownClient
	}
	c, err := s.cfg.Records.Client(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && c.Disabled {
		return store.Client{}, errUnknownClient
	}
	return c, err
}

func dataOf(c store.Client) (d ClientData) {
	_ = json.Unmarshal(c.Data, &d) // without data, nothing is allowed
	return d
}

func wwsfOf(c store.Client) string {
	if d := dataOf(c); d.WWSF != "" {
		return d.WWSF
	}
	return c.ID
}

// authenticateClient finds who asks at an endpoint for programs (RFC 6749 §2.3, §3.2.1): a
// confidential client by its secret, in Authorization or in the form but not in both, a
// public one by its client_id alone.
func (s *Server) authenticateClient(r *http.Request) (store.Client, error) {
	id, secret, hasSecret := r.PostFormValue("client_id"), r.PostFormValue("client_secret"), r.PostForm.Has("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		// RFC 6749 §2.3.1: both are form-encoded.
		u, err := url.QueryUnescape(user)
		p, err2 := url.QueryUnescape(pass)
		switch {
		case err != nil || err2 != nil:
			return store.Client{}, refuse(InvalidClient, "Authorization is malformed")
		case hasSecret || id != "" && id != u:
			return store.Client{}, refuse(InvalidRequest, "more than one way to authenticate the client")
		}
		id, secret, hasSecret = u, p, true
	} else if r.Header.Get("Authorization") != "" {
		return store.Client{}, refuse(InvalidClient, "Authorization is not Basic")
	}
	c, err := s.client(r.Context(), id)
	switch {
	case errors.Is(err, errUnknownClient):
		return c, refuse(InvalidClient, "unknown client")
	case err != nil:
		return c, err
	case hasSecret != (c.SecretHash.Len() > 0):
		return c, refuse(InvalidClient, "the client does not authenticate as it was registered")
	case hasSecret && !hashClientSecret(secret).Equal(c.SecretHash): // in constant time
		return c, refuse(InvalidClient, "wrong client secret")
	}
	return c, nil
}

// readForm parses the body of a POST and refuses a parameter that is given twice (RFC 6749
// §3.2) or that stands in the URL, where logs would keep it.
func readForm(r *http.Request) error {
	if r.URL.RawQuery != "" {
		return refuse(InvalidRequest, "parameters belong into the body")
	}
	if err := r.ParseForm(); err != nil {
		return refuse(InvalidRequest, "the body is not a form, or too long")
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && name != "resource" {
			return refuse(InvalidRequest, "a parameter is given twice")
		}
	}
	return nil
}
