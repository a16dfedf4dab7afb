package waf

import (
	"cmp"
	"errors"
	"net/http"
	"slices"

	"epcscf/store"
)

// serveToken is the token endpoint (RFC 6749 §3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	if err := readForm(r); err != nil {
		s.answerError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r)
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	answer, err := s.token(r, client)
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	answerJSON(w, http.StatusOK, answer)
}

func (s *Server) token(r *http.Request, client store.Client) (tokenAnswer, error) {
	kind := r.PostForm.Get("grant_type")
	switch kind {
	case "":
		return tokenAnswer{}, refuse(InvalidRequest, "grant_type is missing")
	case grantAuthorizationCode, grantRefreshToken, grantClientCredentials:
		if !slices.Contains(client.GrantTypes, kind) {
			return tokenAnswer{}, refuse(UnauthorizedClient, "this client may not use this grant")
		}
	}
	switch kind {
	case grantAuthorizationCode:
		return s.tokenByCode(r, client)
	case grantRefreshToken:
		return s.tokenByRefresh(r, client)
	case grantClientCredentials:
		return s.tokenByClient(r, client)
	}
	return tokenAnswer{}, refuse(UnsupportedGrantType, "grant_type must be authorization_code, refresh_token or client_credentials")
}

// tokenByCode is RFC 6749 §4.1.3 with RFC 7636 §4.6. A code is gone once it was shown here,
// also where something beside it is wrong.
func (s *Server) tokenByCode(r *http.Request, client store.Client) (tokenAnswer, error) {
	g, d, err := s.takeGrant(r.Context(), store.GrantCode, r.PostForm.Get("code"), client)
	switch {
	case err != nil:
		return tokenAnswer{}, err
	case r.PostForm.Get("redirect_uri") != d.RedirectURI:
		return tokenAnswer{}, refuse(InvalidGrant, "redirect_uri is not that of the authorization request")
	case !verifies(r.PostForm.Get("code_verifier"), d.Challenge):
		return tokenAnswer{}, refuse(InvalidGrant, "code_verifier does not belong to the code_challenge")
	}
	return s.issueAndRefresh(r, g, d)
}

// tokenByRefresh is RFC 6749 §6. Scope may be narrowed for these tokens; the grant stays as
// wide as it was.
func (s *Server) tokenByRefresh(r *http.Request, client store.Client) (tokenAnswer, error) {
	g, d, err := s.takeGrant(r.Context(), store.GrantRefresh, r.PostForm.Get("refresh_token"), client)
	if err != nil {
		return tokenAnswer{}, err
	}
	return s.issueAndRefresh(r, g, d)
}

// issueAndRefresh makes the tokens, and the next refresh token where the client may have
// one (RFC 9700 §2.2.2: it rotates).
func (s *Server) issueAndRefresh(r *http.Request, g grant, d grantData) (tokenAnswer, error) {
	now, all := g, g.scopes
	if r.PostForm.Get("grant_type") == grantRefreshToken && r.PostForm.Has("scope") {
		scopes, err := s.scopes(store.Client{Scopes: all}, r.PostForm.Get("scope")) // RFC 6749 §6: none that was not granted
		if err != nil {
			return tokenAnswer{}, err
		}
		now.scopes = scopes
	}
	// RFC 8707 §2.2: a resource that is named here must be the granted one.
	if named, err := audiences(r.PostForm); err != nil || named != "" && named != g.audience {
		return tokenAnswer{}, refuse(InvalidTarget, "aud is not that of the grant")
	}
	answer, err := s.issue(r.Context(), &now)
	if err != nil {
		return tokenAnswer{}, err
	}
	if slices.Contains(g.client.GrantTypes, grantRefreshToken) {
		g.loan = now.loan
		answer.RefreshToken, err = s.addGrant(r.Context(), store.GrantRefresh, g, grantData{Ends: d.Ends}, d.Ends)
		if err != nil && !errors.Is(err, store.ErrRevoked) {
			return tokenAnswer{}, err
		}
	}
	// A revocation may have come meanwhile, and told the relay before this token was made:
	// nobody gets it then. One that comes after this line finds the token made.
	if revoked, err := s.cfg.Records.FamilyRevoked(r.Context(), g.id); err != nil || revoked {
		return tokenAnswer{}, cmp.Or(err, error(refuse(InvalidGrant, "the grant was revoked")))
	}
	return answer, nil
}

// tokenByClient is RFC 6749 §4.4, in the form of TS 33.203 X.5.3.2: a WWSF asks for one of
// its users, whom it names if it may vouch for him, or for an anonymous one.
func (s *Server) tokenByClient(r *http.Request, client store.Client) (tokenAnswer, error) {
	g := grant{id: newGrantID(), client: client}
	var err error
	if g.scopes, g.audience, err = s.target(client, r.PostForm); err != nil {
		return tokenAnswer{}, err
	}
	if name := r.PostForm.Get("user"); name != "" {
		if !dataOf(client).Vouches {
			return tokenAnswer{}, refuse(UnauthorizedClient, "this client may not name users")
		}
		if g.user, err = s.user(r.Context(), name); errors.Is(err, errUnknownUser) {
			return tokenAnswer{}, refuse(InvalidRequest, "unknown user")
		}
		if err != nil {
			return tokenAnswer{}, err
		}
	}
	answer, err := s.issue(r.Context(), &g)
	if err == nil {
		s.cfg.Logger.Info("authorized", "user", g.user.Name, "client", client.ID, "reason", grantClientCredentials)
	}
	return answer, err // RFC 6749 §4.4.3: no refresh token
}
