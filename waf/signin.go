package waf

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// The purposes that a form's token is bound to.
const (
	formSignIn  = "sign in"
	formSignOut = "sign out"
	formConsent = "consent"
)

// signInPage asks who the user is; problem says why again.
func (s *Server) signInPage(w http.ResponseWriter, r *http.Request, status int, a *authorization, user, problem string) {
	data := struct{ Client, Form, Query, User, Problem, Provider, ProviderURL string }{
		Client: a.client.Name, Query: a.query, User: user, Problem: problem,
		Form: s.cookies.formToken(s.cookies.browser(w, r), formSignIn, "", a.query),
	}
	if s.provider != nil {
		data.Provider = s.provider.cfg.Name
		data.ProviderURL = pathProvider + "?" + url.Values{"request": {a.query}}.Encode()
	}
	s.page(w, status, "signin", data)
}

// serveSignIn checks user name and password.
func (s *Server) serveSignIn(w http.ResponseWriter, r *http.Request) {
	a, ok := s.readRequest(w, r, formSignIn, "")
	if !ok {
		return
	}
	name, address := r.PostForm.Get("user"), clientAddr(r)
	password := turncred.NewSecret([]byte(r.PostForm.Get("password")))
	if checkUserName(name) != nil || password.Len() > maxPassword {
		name, password = "?", turncred.NewSecret([]byte("?")) // wrong, like any other
	}
	// The account is throttled by its name, whether it is there or not, and before the hash
	// is computed: neither the answer nor its time tells which accounts are.
	if wait, ok := s.throttle.signIn(name, address); !ok {
		s.metrics.signIns.WithLabelValues(signInThrottled).Inc()
		s.cfg.Logger.Warn("sign-in throttled", "address", address)
		w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
		s.signInPage(w, r, http.StatusTooManyRequests, a, name, "There were too many tries. Wait "+inWords(wait)+", then try again.")
		return
	}
	user, err := s.user(r.Context(), name)
	if err != nil && !errors.Is(err, errUnknownUser) {
		s.pageFailed(w, r, err)
		return
	}
	right, err := s.cfg.Hasher.check(r.Context(), user.PasswordHash, password)
	if err != nil {
		s.pageFailed(w, r, err)
		return
	}
	if !right {
		s.metrics.signIns.WithLabelValues(signInWrong).Inc()
		// Of an account that is there; else it may be a password in the wrong field.
		s.cfg.Logger.Info("sign-in refused", "user", user.Name, "address", address)
		s.signInPage(w, r, http.StatusUnauthorized, a, r.PostForm.Get("user"), "User name or password is wrong.")
		return
	}
	s.throttle.succeeded(name, address)
	s.enter(w, r, a.query, user, "", signInOK)
}

// enter starts a session and goes on with the request.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, query string, user store.User, class, how string) {
	if err := s.signIn(w, user, class); err != nil {
		s.pageFailed(w, r, err)
		return
	}
	s.metrics.signIns.WithLabelValues(how).Inc()
	s.cfg.Logger.Info("signed in", "user", user.Name, "reason", how)
	backToAuthorize(w, query)
}

// serveSignOut ends the session, for somebody else to sign in.
func (s *Server) serveSignOut(w http.ResponseWriter, r *http.Request) {
	user, err := s.signedIn(r)
	if err != nil && !errors.Is(err, errSignedOut) {
		s.pageFailed(w, r, err)
		return
	}
	a, ok := s.readRequest(w, r, formSignOut, user.Name)
	if !ok {
		return
	}
	s.cookies.clear(w, cookieSession)
	backToAuthorize(w, a.query)
}

func inWords(d time.Duration) string {
	if d <= time.Minute {
		return "a minute"
	}
	return fmt.Sprintf("%d minutes", int((d+time.Minute-1)/time.Minute))
}
