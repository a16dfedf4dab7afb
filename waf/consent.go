package waf

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"epcscf/store"
)

// ask is a line of the consent page: a scope in words.
type ask struct{ What, Detail string }

// consentPage asks the user whether the client may. It asks each time: a public client's
// identity is no proof of who holds the redirect URI now (RFC 6749 §10.2).
func (s *Server) consentPage(w http.ResponseWriter, r *http.Request, a *authorization, user store.User) {
	browser := s.cookies.browser(w, r)
	pageHeaders(w, formTarget(a.redirectURI))
	s.page(w, http.StatusOK, "consent", struct {
		Client, User, Form, SignOutForm, Query, Target string
		Asks                                           []ask
	}{
		Client: a.client.Name, User: user.Name, Query: a.query, Target: formTarget(a.redirectURI), Asks: s.asks(a, user),
		Form:        s.cookies.formToken(browser, formConsent, user.Name, a.query),
		SignOutForm: s.cookies.formToken(browser, formSignOut, user.Name, a.query),
	})
}

func (s *Server) asks(a *authorization, user store.User) (asks []ask) {
	if slices.Contains(a.scopes, s.cfg.Registration.Scope) {
		as := "with an identity that is lent to you for the time"
		if len(user.IMPUs) > 0 {
			as = "as " + strings.Join(user.IMPUs, ", ")
		}
		asks = append(asks, ask{"Make and take calls for you", as})
	}
	if slices.Contains(a.scopes, ScopeSTUN) {
		asks = append(asks, ask{"Send your media through the relay", a.audience})
	}
	return asks
}

// serveConsent takes the user's answer (RFC 6749 §4.1.2, §4.2.2).
func (s *Server) serveConsent(w http.ResponseWriter, r *http.Request) {
	user, err := s.signedIn(r)
	if err != nil && !errors.Is(err, errSignedOut) {
		s.pageFailed(w, r, err)
		return
	}
	a, ok := s.readRequest(w, r, formConsent, user.Name)
	if !ok {
		return
	}
	if user.Name == "" { // the session ended while the page was open
		backToAuthorize(w, a.query)
		return
	}
	if r.PostForm.Get("decision") != "allow" {
		s.refuseAuthorization(w, r, a, refuse(AccessDenied, "the user said no"))
		return
	}
	g := grant{id: newGrantID(), client: a.client, user: user, scopes: a.scopes, audience: a.audience}
	var values url.Values
	if a.responseType == ResponseToken {
		values, err = s.implicitAnswer(r.Context(), g)
	} else {
		values, err = s.codeAnswer(r.Context(), g, a)
	}
	if err != nil {
		s.refuseAuthorization(w, r, a, err)
		return
	}
	s.cfg.Logger.Info("authorized", "user", user.Name, "client", a.client.ID, "reason", a.responseType)
	s.answerClient(w, a, values)
}
