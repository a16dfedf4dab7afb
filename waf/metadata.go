package waf

import "net/http"

// metadata is the document of RFC 8414 §2.
type metadata struct {
	Issuer                 string   `json:"issuer"`
	AuthorizationEndpoint  string   `json:"authorization_endpoint"`
	TokenEndpoint          string   `json:"token_endpoint"`
	JWKSURI                string   `json:"jwks_uri"`
	RegistrationEndpoint   string   `json:"registration_endpoint"`
	RevocationEndpoint     string   `json:"revocation_endpoint"`
	IntrospectionEndpoint  string   `json:"introspection_endpoint"`
	Scopes                 []string `json:"scopes_supported"`
	ResponseTypes          []string `json:"response_types_supported"`
	ResponseModes          []string `json:"response_modes_supported"`
	GrantTypes             []string `json:"grant_types_supported"`
	TokenAuthMethods       []string `json:"token_endpoint_auth_methods_supported"`
	RevocationAuthMethods  []string `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectAuthMethods  []string `json:"introspection_endpoint_auth_methods_supported"`
	CodeChallengeMethods   []string `json:"code_challenge_methods_supported"`
	IssParameterSupported  bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207 §3
	ProtectedTURNResources []string `json:"turn_servers,omitempty"`                         // ours: what aud may name
}

func (s *Server) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	at, secret := s.cfg.Issuer, []string{"client_secret_basic", "client_secret_post"}
	m := metadata{
		Issuer: at, AuthorizationEndpoint: at + pathAuthorize, TokenEndpoint: at + pathToken, JWKSURI: at + pathKeys,
		RegistrationEndpoint: at + pathRegister, RevocationEndpoint: at + pathRevoke, IntrospectionEndpoint: at + pathIntrospect,
		Scopes:           []string{s.cfg.Registration.Scope},
		ResponseTypes:    []string{string(ResponseCode)},
		ResponseModes:    []string{"query"},
		GrantTypes:       []string{grantAuthorizationCode, grantRefreshToken, grantClientCredentials},
		TokenAuthMethods: append([]string{"none"}, secret...), RevocationAuthMethods: append([]string{"none"}, secret...),
		IntrospectAuthMethods: secret, CodeChallengeMethods: []string{"S256"}, IssParameterSupported: true,
	}
	if len(s.cfg.Relays) > 0 {
		m.Scopes = append(m.Scopes, ScopeSTUN)
	}
	for _, r := range s.cfg.Relays {
		m.ProtectedTURNResources = append(m.ProtectedTURNResources, r.Name)
	}
	if s.cfg.AllowImplicit {
		m.ResponseTypes, m.ResponseModes = append(m.ResponseTypes, string(ResponseToken)), append(m.ResponseModes, "fragment")
		m.GrantTypes = append(m.GrantTypes, grantImplicit)
	}
	answerJSON(w, http.StatusOK, m)
}

func (s *Server) serveKeys(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, s.cfg.Keys.jwks())
}
