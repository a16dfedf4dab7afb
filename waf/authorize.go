package waf

import (
	"errors"
	"net/http"
	"net/url"

	"epcscf/store"
)

// serveAuthorize is the authorization endpoint (RFC 6749 §3.1): the way in, and after each
// page the way on.
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	a, err := s.parseAuthorization(r.Context(), r.URL.RawQuery)
	if err != nil {
		s.refuseAuthorization(w, r, a, err)
		return
	}
	user, err := s.signedIn(r)
	switch {
	case errors.Is(err, errSignedOut):
		s.signInPage(w, r, http.StatusOK, a, "", "")
	case err != nil:
		s.pageFailed(w, r, err)
	default:
		s.consentPage(w, r, a, user)
	}
}

// refuseAuthorization answers a request that does not hold: by a page where the redirect
// URI is in doubt, else to the client (RFC 6749 §4.1.2.1, §4.2.2.1).
func (s *Server) refuseAuthorization(w http.ResponseWriter, r *http.Request, a *authorization, err error) {
	e := new(Error)
	if a == nil || a.redirectURI == "" || errors.As(err, new(*badClientError)) {
		s.pageFailed(w, r, err)
		return
	}
	if !errors.As(err, &e) {
		e = failed(err)
	}
	s.count(r, e)
	s.answerClient(w, a, url.Values{"error": {string(e.Code)}, "error_description": {e.Description}})
}

// answerClient sends the browser back with an answer.
func (s *Server) answerClient(w http.ResponseWriter, a *authorization, values url.Values) {
	if a.state != "" {
		values.Set("state", a.state)
	}
	values.Set("iss", s.cfg.Issuer) // RFC 9207 §2
	redirectTo(w, a.redirectURI, values, a.responseType == ResponseToken)
}

// backToAuthorize goes on with a request after a page, by GET, so that a reload repeats no
// form.
func backToAuthorize(w http.ResponseWriter, query string) {
	w.Header().Set("Location", pathAuthorize+"?"+query)
	w.WriteHeader(http.StatusSeeOther)
}

// readRequest reads the form of a page: its token must hold for purpose and user, and the
// request that it carries is checked as if it had just come.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request, purpose, user string) (*authorization, bool) {
	if err := r.ParseForm(); err != nil {
		s.pageError(w, r, http.StatusBadRequest, "The form is damaged", "Go back to the application and start again.")
		return nil, false
	}
	query := r.PostForm.Get("request")
	if !s.cookies.formHolds(r, purpose, user, query) {
		s.page(w, http.StatusForbidden, "error", errorPage{
			Title: "This form is no longer good", Text: "It was opened in another browser or too long ago, or your browser keeps no cookies for this site.",
			Again: pathAuthorize + "?" + query,
		})
		return nil, false
	}
	a, err := s.parseAuthorization(r.Context(), query)
	if err != nil {
		s.refuseAuthorization(w, r, a, err)
		return nil, false
	}
	return a, true
}

// grant is one authorization: what a user (or, without one, a client) was given.
type grant struct {
	id       string // the family of its codes and refresh tokens
	client   store.Client
	user     store.User // Name "" where there is none
	scopes   []string
	audience string
	loan     *identity // what it borrowed, where that is known
}
