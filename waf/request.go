package waf

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"epcscf/store"
)

const (
	// maxQuery bounds an authorization request; a browser's own limit is far above.
	maxQuery = 4096
	// maxState bounds what is sent back to the client as it is.
	maxState = 1024
)

// ResponseType says what the client wants at its redirect URI.
type ResponseType string

// The response types.
const (
	ResponseCode  ResponseType = "code"  // RFC 6749 §4.1
	ResponseToken ResponseType = "token" // RFC 6749 §4.2, where Config.AllowImplicit is set
)

// authorization is an authorization request that holds (RFC 6749 §4.1.1, §4.2.1).
type authorization struct {
	query        string // as it came: the pages carry it along
	client       store.Client
	redirectURI  string
	responseType ResponseType
	state        string
	scopes       []string
	audience     string // the TURN server; "" where no TURN token is asked for
	challenge    string // PKCE; "" with ResponseToken
}

// badClientError is what must not be answered by a redirect, since nobody vouches for where it
// would lead (RFC 6749 §4.1.2.1). It is told to the user.
type badClientError struct{ text string }

func (e *badClientError) Error() string { return e.text }

// parseAuthorization checks a request in the order of RFC 6749 §4.1.2.1: first all without
// which there is no redirect (the error is a *badClientError), then the rest (an *Error,
// beside an authorization that says where to send it).
func (s *Server) parseAuthorization(ctx context.Context, query string) (*authorization, error) {
	if len(query) > maxQuery {
		return nil, &badClientError{"The request is too long."}
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, &badClientError{"The request is malformed."}
	}
	a := &authorization{query: query, state: q.Get("state")}
	if len(q["client_id"]) != 1 || len(q["redirect_uri"]) != 1 {
		return nil, &badClientError{"The request must name one client and one redirect URI."}
	}
	a.client, err = s.client(ctx, q.Get("client_id"))
	if errors.Is(err, errUnknownClient) {
		return nil, &badClientError{"This application is not registered here."}
	}
	if err != nil {
		return nil, err
	}
	if a.redirectURI = q.Get("redirect_uri"); !hasRedirectURI(a.client.RedirectURIs, a.redirectURI) {
		return nil, &badClientError{"The address to return to is not one that this application registered."}
	}
	a.responseType = ResponseType(q.Get("response_type"))
	if len(a.state) > maxState {
		a.state = ""
		return a, refuse(InvalidRequest, "state is too long")
	}
	return a, s.checkAuthorization(a, q)
}

// checkAuthorization checks what can be answered by a redirect.
func (s *Server) checkAuthorization(a *authorization, q url.Values) (err error) {
	for name, values := range q {
		if len(values) > 1 && name != "resource" { // RFC 6749 §3.1; RFC 8707 §2 may repeat
			return refuse(InvalidRequest, "a parameter is given twice")
		}
	}
	switch a.responseType {
	case ResponseCode:
		if !slices.Contains(a.client.GrantTypes, grantAuthorizationCode) {
			return refuse(UnauthorizedClient, "this client may not ask for codes")
		}
		a.challenge = q.Get("code_challenge")
		if err := checkChallenge(a.challenge, q.Get("code_challenge_method")); err != nil {
			return err
		}
	case ResponseToken:
		if !s.cfg.AllowImplicit {
			return refuse(UnsupportedResponseType, "the implicit grant is off here: use response_type=code")
		}
		if !slices.Contains(a.client.GrantTypes, grantImplicit) {
			return refuse(UnauthorizedClient, "this client may not ask for tokens by redirect")
		}
	case "":
		return refuse(InvalidRequest, "response_type is missing")
	default:
		return refuse(UnsupportedResponseType, "response_type must be code")
	}
	a.scopes, a.audience, err = s.target(a.client, q)
	return err
}

// target reads what a request wants: scope, and the TURN server by aud (RFC 7635 Appendix B)
// or resource (RFC 8707).
func (s *Server) target(c store.Client, q url.Values) (scopes []string, audience string, err error) {
	if scopes, err = s.scopes(c, q.Get("scope")); err != nil {
		return nil, "", err
	}
	if t := q.Get("token_type"); t != "" && t != tokenTypePoP {
		return nil, "", refuse(InvalidRequest, "token_type, where it is given, must be pop")
	}
	if alg := q.Get("alg"); alg != "" && alg != "HMAC-SHA-1" && alg != "HMAC-SHA-256-128" {
		return nil, "", refuse(InvalidRequest, "alg, where it is given, must be HMAC-SHA-1 or HMAC-SHA-256-128")
	}
	named, err := audiences(q)
	if err != nil || !slices.Contains(scopes, ScopeSTUN) {
		return scopes, "", err
	}
	switch {
	case named != "":
		audience = named
	case len(s.cfg.Relays) == 1:
		audience = s.cfg.Relays[0].Name
	default:
		return nil, "", refuse(InvalidTarget, "aud must name the TURN server")
	}
	// RFC 7635 §6.1: a server with which there is no tie-up is an error.
	if s.relay(audience) == nil || len(c.Audiences) > 0 && !slices.Contains(c.Audiences, audience) {
		return nil, "", refuse(InvalidTarget, "aud names no TURN server that this client may use")
	}
	return scopes, audience, nil
}

// audiences returns the one TURN server that aud and resource name, or "".
func audiences(q url.Values) (string, error) {
	named := slices.DeleteFunc(slices.Concat(q["aud"], q["resource"]), func(v string) bool { return v == "" })
	for i, v := range named {
		if scheme, rest, ok := strings.Cut(v, ":"); ok && (scheme == "turn" || scheme == "turns") {
			named[i] = rest // as a URI, which RFC 8707 §2 wants resource to be
		}
	}
	if named = slices.Compact(named); len(named) > 1 {
		return "", refuse(InvalidTarget, "only one TURN server can be named")
	}
	if len(named) == 0 {
		return "", nil
	}
	return named[0], nil
}

// scopes reads a scope parameter (RFC 6749 §3.3). Without one it is all that the client may
// ask for.
func (s *Server) scopes(c store.Client, scope string) ([]string, error) {
	asked := strings.Fields(scope)
	if len(asked) == 0 {
		asked = slices.Clone(c.Scopes)
	}
	slices.Sort(asked)
	asked = slices.Compact(asked)
	for _, one := range asked {
		if one != ScopeSTUN && one != s.cfg.Registration.Scope || !slices.Contains(c.Scopes, one) {
			return nil, refuse(InvalidScope, "scope has what this client may not ask for")
		}
	}
	if len(asked) == 0 {
		return nil, refuse(InvalidScope, "scope is empty")
	}
	return asked, nil
}
