package waf

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"epcscf/store"
	"epcscf/waf/bearer"
)

// serveRevoke is the revocation endpoint (RFC 7009 §2). A refresh token or a registration
// token ends its grant; a TURN token ends alone.
func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) {
	if err := readForm(r); err != nil {
		s.answerError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r)
	if err == nil && r.PostForm.Get("token") == "" {
		err = refuse(InvalidRequest, "token is missing")
	}
	if err == nil {
		err = s.revokeToken(r.Context(), r.PostForm.Get("token"), client)
	}
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK) // RFC 7009 §2.2: also for a token that is unknown
}

// revokeToken finds out what kind a token is: it needs no hint (RFC 7009 §2.1).
func (s *Server) revokeToken(ctx context.Context, secret string, by store.Client) error {
	rec, err := s.cfg.Records.ConsumeGrant(ctx, store.GrantRefresh, store.HashGrant(secret))
	switch {
	case err == nil || errors.Is(err, store.ErrUsed) || errors.Is(err, store.ErrExpired):
		g, err := s.grantOf(ctx, rec)
		if err != nil {
			return err
		}
		// One that another client holds has leaked: it ends either way (RFC 7009 §2.1 only
		// wants the request refused).
		return errors.Join(s.revoke(ctx, &g, "by the client"), foreignToken(rec.Client, by))
	case errors.Is(err, store.ErrRevoked):
		return foreignToken(rec.Client, by)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	if c, err := s.ownToken(ctx, secret); err == nil {
		if err := foreignToken(c.ClientID, by); err != nil {
			return err
		}
		return s.revoke(ctx, s.grantByToken(ctx, c), "by the client")
	}
	if raw, err := base64.StdEncoding.DecodeString(secret); err == nil {
		for _, r := range s.cfg.Relays {
			if err := r.Tokens.RevokeToken(ctx, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func foreignToken(of string, by store.Client) error {
	if of != by.ID {
		return refuse(InvalidGrant, "the token is not this client's")
	}
	return nil
}

// grantOf is the grant of a record, for its revocation.
func (s *Server) grantOf(ctx context.Context, rec store.Grant) (g grant, err error) {
	var d grantData
	if err := json.Unmarshal(rec.Data, &d); err != nil {
		return g, err
	}
	g = grant{id: rec.Family, client: store.Client{ID: rec.Client}}
	if g.user, err = s.grantUser(ctx, rec.User, d.Class); errors.Is(err, errUnknownUser) {
		g.user, err = store.User{Name: rec.User}, nil
	}
	return g, err
}

// grantByToken is the grant of a registration token, for its revocation.
func (s *Server) grantByToken(ctx context.Context, c bearer.Claims) *grant {
	g := &grant{id: c.Grant, client: store.Client{ID: c.ClientID}}
	if u, err := s.user(ctx, c.Subject); err == nil && u.IMPI == c.IMPI {
		g.user = u
	}
	return g
}

// ownToken reads a registration token of ours that is good but for a revocation.
func (s *Server) ownToken(ctx context.Context, secret string) (bearer.Claims, error) {
	v, err := bearer.NewOffline(bearer.Expected{Issuer: s.cfg.Issuer, Audience: s.cfg.Registration.Audience}, s.cfg.Keys, nil, s.cfg.Now)
	if err != nil {
		return bearer.Claims{}, err
	}
	return v.Verify(ctx, strings.TrimSpace(secret))
}

// serveIntrospect is the introspection endpoint (RFC 7662 §2), for an eP-CSCF. It knows
// registration tokens; the relay reads its own.
func (s *Server) serveIntrospect(w http.ResponseWriter, r *http.Request) {
	if err := readForm(r); err != nil {
		s.answerError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r)
	// RFC 7662 §2.1: whoever asks must be known, or tokens could be fished for.
	if err == nil && (client.SecretHash.Len() == 0 || !dataOf(client).Introspects) {
		err = refuse(InvalidClient, "this client may not introspect")
	}
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	c, err := s.ownToken(r.Context(), r.PostForm.Get("token"))
	if err != nil {
		answerJSON(w, http.StatusOK, map[string]bool{"active": false})
		return
	}
	revoked, err := s.cfg.Records.FamilyRevoked(r.Context(), c.Grant)
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	if revoked {
		answerJSON(w, http.StatusOK, map[string]bool{"active": false})
		return
	}
	body, err := json.Marshal(c)
	if err != nil {
		s.answerError(w, r, err)
		return
	}
	answer := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &answer); err != nil {
		s.answerError(w, r, err)
		return
	}
	answer["active"], answer["token_type"] = json.RawMessage("true"), json.RawMessage(`"Bearer"`)
	answerJSON(w, http.StatusOK, answer)
}
