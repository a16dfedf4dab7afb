package waf

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf/bearer"
)

// The token types.
const (
	tokenTypePoP    = "pop"    // RFC 7635 Appendix B
	tokenTypeBearer = "Bearer" // RFC 6750
)

// algHMACSHA1 says how mac_key signs (RFC 7635 Appendix B). Our session keys have the 160
// bits that this one wants, whatever a client asks for.
const algHMACSHA1 = "HMAC-SHA-1"

// iceServer is an RTCIceServer (W3C WebRTC §4.2.4): no browser takes a token by itself, so
// it stands in the user name (package turncred/token).
type iceServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username"`
	Credential string   `json:"credential"`
}

// turnAnswer is a TURN token as the client gets it (RFC 7635 Appendix B).
type turnAnswer struct {
	AccessToken string      `json:"access_token"`
	TokenType   string      `json:"token_type"`
	ExpiresIn   int         `json:"expires_in"`
	KeyID       string      `json:"kid"`
	Key         string      `json:"key"` // mac_key, base64
	Alg         string      `json:"alg"`
	ICEServers  []iceServer `json:"ice_servers"`
}

// tokenAnswer is the answer of RFC 6749 §5.1. Of a TURN token alone, kid, key, alg and
// ice_servers stand beside access_token; with a registration token they stand in turn.
type tokenAnswer struct {
	AccessToken  string      `json:"access_token"`
	TokenType    string      `json:"token_type"`
	ExpiresIn    int         `json:"expires_in"`
	RefreshToken string      `json:"refresh_token,omitempty"`
	Scope        string      `json:"scope"`
	KeyID        string      `json:"kid,omitempty"`
	Key          string      `json:"key,omitempty"`
	Alg          string      `json:"alg,omitempty"`
	ICEServers   []iceServer `json:"ice_servers,omitempty"`
	TURN         *turnAnswer `json:"turn,omitempty"`
	IMPI         string      `json:"impi,omitempty"` // who the page registers as: it must not look into the token
	IMPUs        []string    `json:"impus,omitempty"`
}

// issue makes the tokens of g. What is on loan to it is in g afterwards.
func (s *Server) issue(ctx context.Context, g *grant) (tokenAnswer, error) {
	a := tokenAnswer{Scope: strings.Join(g.scopes, " ")}
	registers := slices.Contains(g.scopes, s.cfg.Registration.Scope)
	var who identity
	if registers {
		now := s.cfg.Now().Truncate(time.Second)
		var err error
		if who, err = s.identity(ctx, g, now.Add(s.cfg.Registration.Life+bearer.Leeway)); err != nil {
			return a, err
		}
		if a.AccessToken, err = s.cfg.Keys.sign(s.claims(g, who, now)); err != nil {
			return a, err
		}
		a.TokenType, a.ExpiresIn = tokenTypeBearer, int(s.cfg.Registration.Life/time.Second)
		a.IMPI, a.IMPUs = string(who.IMPI), who.IMPUs
		s.metrics.issued.WithLabelValues(issuedRegistration).Inc()
	}
	if !slices.Contains(g.scopes, ScopeSTUN) {
		return a, nil
	}
	t, err := s.issueTURN(g, who)
	if err != nil {
		return a, err
	}
	if registers {
		a.TURN = &t
		return a, nil
	}
	a.AccessToken, a.TokenType, a.ExpiresIn = t.AccessToken, t.TokenType, t.ExpiresIn
	a.KeyID, a.Key, a.Alg, a.ICEServers = t.KeyID, t.Key, t.Alg, t.ICEServers
	return a, nil
}

// claims is the body of a registration token (RFC 9068 §2.2; TS 33.203 X.3.2.3).
func (s *Server) claims(g *grant, who identity, now time.Time) bearer.Claims {
	subject := g.user.Name
	if subject == "" { // RFC 9068 §2.2: without a user, sub is the client
		subject = g.client.ID
	}
	return bearer.Claims{
		TokenID: rand.Text(), Grant: g.id, Issuer: s.cfg.Issuer, Audience: []string{s.cfg.Registration.Audience}, Subject: subject,
		ClientID: g.client.ID, Scopes: g.scopes, IMPI: who.IMPI, IMPUs: who.IMPUs, WWSF: wwsfOf(g.client), WAF: s.cfg.Registration.WAF,
		IssuedAt: now, Expires: now.Add(s.cfg.Registration.Life),
	}
}

// issueTURN makes a TURN token for the relay that the grant names.
func (s *Server) issueTURN(g *grant, who identity) (turnAnswer, error) {
	r := s.relay(g.audience)
	if r == nil {
		return turnAnswer{}, refuse(InvalidTarget, "the TURN server of this grant is no longer served")
	}
	ask := turncred.Request{IMPI: s.turnSubject(g, who), Life: 24 * time.Hour} // the issuer's own limit is lower
	if who.lent {
		ask.Life = s.cfg.Registration.Life // relay rights end with the loan
	}
	uris := r.URIs
	if r.Offered != nil {
		if uris = r.Offered(); len(uris) == 0 {
			return turnAnswer{}, &Error{Code: TemporarilyUnavailable, Description: "no TURN server takes users now"}
		}
	}
	t, err := r.Tokens.Issue(ask)
	if errors.Is(err, token.ErrNoKey) {
		return turnAnswer{}, &Error{Code: TemporarilyUnavailable, Description: "no key for this TURN server now", cause: err}
	}
	if err != nil {
		return turnAnswer{}, err
	}
	s.metrics.issued.WithLabelValues(issuedTURN).Inc()
	password := string(t.Password().Reveal())
	return turnAnswer{
		AccessToken: base64.StdEncoding.EncodeToString(t.Raw), TokenType: tokenTypePoP,
		ExpiresIn: int(t.Lifetime / time.Second), // RFC 7635 §6.2: no more than the token's
		KeyID:     string(t.KeyID), Key: password, Alg: algHMACSHA1,
		ICEServers: []iceServer{{URLs: uris, Username: t.Username(), Credential: password}},
	}, nil
}

// turnSubject is whom the relay counts a token for.
func (s *Server) turnSubject(g *grant, who identity) turncred.IMPI {
	switch {
	case who.IMPI != "":
		return who.IMPI
	case g.user.IMPI != "":
		return g.user.IMPI
	case g.user.Name != "":
		return subjectIMPI("user", g.user.Name)
	}
	return subjectIMPI("grant", g.id)
}

// implicitAnswer is the fragment of RFC 6749 §4.2.2, with the fields of RFC 7635 Appendix B.
// access_token is the TURN token where one is asked for: the contribution knows no other.
func (s *Server) implicitAnswer(ctx context.Context, g grant) (url.Values, error) {
	a, err := s.issue(ctx, &g)
	if err != nil {
		return nil, err
	}
	v := url.Values{
		"access_token": {a.AccessToken}, "token_type": {a.TokenType}, "expires_in": {strconv.Itoa(a.ExpiresIn)}, "scope": {a.Scope},
	}
	t := turnAnswer{KeyID: a.KeyID, Key: a.Key, Alg: a.Alg, ICEServers: a.ICEServers}
	if a.TURN != nil {
		t = *a.TURN
		v.Set("registration_token", a.AccessToken)
		v.Set("registration_expires_in", strconv.Itoa(a.ExpiresIn))
		v.Set("access_token", t.AccessToken)
		v.Set("token_type", t.TokenType)
		v.Set("expires_in", strconv.Itoa(t.ExpiresIn))
	}
	if a.IMPI != "" {
		v.Set("impi", a.IMPI)
		v["impu"] = a.IMPUs
	}
	if t.KeyID != "" {
		servers, err := json.Marshal(t.ICEServers)
		if err != nil {
			return nil, err
		}
		v.Set("kid", t.KeyID)
		v.Set("key", t.Key)
		v.Set("alg", t.Alg)
		v.Set("ice_servers", string(servers))
	}
	return v, nil
}
