package waf

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"epcscf/store"
	"epcscf/turncred"
)

// ProviderConfig is an operator's OpenID Connect provider, at which users sign in. We are its
// client, registered with the redirect URI ISSUER/sign-in/callback. Name, Issuer, ClientID
// and Secret must be set.
type ProviderConfig struct {
	Name     string // on the button
	Issuer   string
	ClientID string
	Secret   turncred.Secret
	// UserClaim is the claim of the ID token that names the user here; default sub. Only
	// what the provider itself assigns is safe: a user could give himself another's e-mail.
	UserClaim string
	// Class makes users who have no account here users of that pool; "" refuses them.
	Class  string
	Client *http.Client // default: one with a timeout of 10 s
}

// providerLife is how long a user may take at the provider.
const providerLife = 10 * time.Minute

// provider is the client side of OpenID Connect Core 1.0 §3.1.
type provider struct {
	cfg      ProviderConfig
	redirect string

	mu       sync.Mutex // guards found, and is held during discovery
	found    *oidc.Provider
	verifier *oidc.IDTokenVerifier
}

func newProvider(cfg ProviderConfig, redirect string) (*provider, error) {
	if cfg.Name == "" || cfg.Issuer == "" || cfg.ClientID == "" || cfg.Secret.Len() == 0 {
		return nil, errors.New("waf: Provider: Name, Issuer, ClientID and Secret must be set")
	}
	if u, err := url.Parse(cfg.Issuer); err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("waf: Provider: Issuer is %q, want https", cfg.Issuer)
	}
	if cfg.UserClaim == "" {
		cfg.UserClaim = "sub"
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: 10 * time.Second}
	}
	return &provider{cfg: cfg, redirect: redirect}, nil
}

// discover finds the provider's endpoints, once. A provider that is down when we start is
// found when the first user needs it.
func (p *provider) discover(ctx context.Context) (*oauth2.Config, *oidc.IDTokenVerifier, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.cfg.Client), p.cfg.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("provider %s: %w", p.cfg.Issuer, err)
		}
		p.found = found
		p.verifier = found.Verifier(&oidc.Config{ClientID: p.cfg.ClientID})
	}
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: string(p.cfg.Secret.Reveal()), Endpoint: p.found.Endpoint(),
		RedirectURL: p.redirect, Scopes: []string{oidc.ScopeOpenID},
	}, p.verifier, nil
}

// visit is what we must remember of a user who is at the provider, sealed in a cookie.
type visit struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Query    string `json:"q"`
	At       int64  `json:"t"`
}

// serveProvider sends the user to the provider (OpenID Connect Core §3.1.2.1), with PKCE.
func (s *Server) serveProvider(w http.ResponseWriter, r *http.Request) {
	if s.provider == nil {
		s.pageError(w, r, http.StatusNotFound, "There is nothing here", "This service has no other way to sign in.")
		return
	}
	a, err := s.parseAuthorization(r.Context(), r.URL.Query().Get("request"))
	if err != nil {
		s.refuseAuthorization(w, r, a, err)
		return
	}
	cfg, _, err := s.provider.discover(r.Context())
	if err != nil {
		s.providerFailed(w, r, a.query, err)
		return
	}
	v := visit{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Query: a.query, At: s.cfg.Now().Unix()}
	if err := s.cookies.set(w, cookieProvider, v, providerLife); err != nil {
		s.pageFailed(w, r, err)
		return
	}
	http.Redirect(w, r, cfg.AuthCodeURL(v.State, oidc.Nonce(v.Nonce), oauth2.S256ChallengeOption(v.Verifier)), http.StatusSeeOther)
}

// serveCallback takes the provider's answer (OpenID Connect Core §3.1.2.5 to §3.1.3.7).
func (s *Server) serveCallback(w http.ResponseWriter, r *http.Request) {
	var v visit
	known := s.provider != nil && s.cookies.get(r, cookieProvider, &v) && s.cfg.Now().Before(time.Unix(v.At, 0).Add(providerLife))
	q := r.URL.Query()
	// The state is this browser's, or somebody else's sign-in is being slipped to it.
	if !known || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(v.State)) != 1 {
		s.pageError(w, r, http.StatusForbidden, "This sign-in is no longer good", "It was begun in another browser or too long ago. Go back to the application and start again.")
		return
	}
	s.cookies.clear(w, cookieProvider)
	if iss := q.Get("iss"); iss != "" && iss != s.provider.cfg.Issuer { // RFC 9207 §2.4
		s.providerFailed(w, r, v.Query, errors.New("answer of another issuer"))
		return
	}
	if code := q.Get("error"); code != "" {
		s.providerFailed(w, r, v.Query, errors.New("provider answers with an error"))
		return
	}
	name, err := s.provider.user(r.Context(), q.Get("code"), v)
	if err != nil {
		s.providerFailed(w, r, v.Query, err)
		return
	}
	user, err := s.user(r.Context(), name)
	switch {
	case err == nil:
		s.enter(w, r, v.Query, user, "", signInProvider)
	case !errors.Is(err, errUnknownUser):
		s.pageFailed(w, r, err)
	case s.provider.cfg.Class != "" && !s.exists(r.Context(), name):
		s.enter(w, r, v.Query, store.User{Name: name}, s.provider.cfg.Class, signInProvider)
	default:
		s.metrics.signIns.WithLabelValues(signInRefused).Inc()
		s.cfg.Logger.Info("sign-in refused", "user", name, "reason", "unknown here")
		s.page(w, http.StatusForbidden, "error", errorPage{
			Title: "You have no account here", Text: s.provider.cfg.Name + " knows you, but this service does not. Ask its operator.", Again: pathAuthorize + "?" + v.Query,
		})
	}
}

// exists reports whether an account is there, be it disabled; where nobody knows, it is.
func (s *Server) exists(ctx context.Context, name string) bool {
	_, err := s.cfg.Records.User(ctx, name)
	return !errors.Is(err, store.ErrNotFound)
}

// user exchanges the code and reads who signed in from the ID token.
func (p *provider) user(ctx context.Context, code string, v visit) (string, error) {
	cfg, verifier, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	ctx = oidc.ClientContext(ctx, p.cfg.Client)
	t, err := cfg.Exchange(ctx, code, oauth2.VerifierOption(v.Verifier))
	if err != nil {
		return "", errors.New("provider does not take its code back") // the library's text has the answer's body
	}
	raw, _ := t.Extra("id_token").(string)
	id, err := verifier.Verify(ctx, raw)
	if err != nil {
		return "", fmt.Errorf("ID token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(v.Nonce)) != 1 {
		return "", errors.New("ID token: another nonce")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return "", fmt.Errorf("ID token: %w", err)
	}
	name, _ := claims[p.cfg.UserClaim].(string)
	if err := checkUserName(name); err != nil {
		return "", fmt.Errorf("ID token: %s: %w", p.cfg.UserClaim, err)
	}
	return name, nil
}

// providerFailed says that the provider did not sign the user in, and offers another try.
func (s *Server) providerFailed(w http.ResponseWriter, r *http.Request, query string, err error) {
	s.metrics.signIns.WithLabelValues(signInRefused).Inc()
	s.cfg.Logger.Warn("provider did not sign the user in", "method", r.Method, "err", err)
	s.page(w, http.StatusBadGateway, "error", errorPage{
		Title: "You are not signed in", Text: strings.TrimSpace(s.provider.cfg.Name) + " did not sign you in.", Again: pathAuthorize + "?" + query,
	})
}
