package waf

import (
	"errors"
	"net/http"
	"net/url"

	"epcscf/turncred"
)

// The paths of the endpoints.
const (
	pathMetadata   = "/.well-known/oauth-authorization-server" // RFC 8414 §3
	pathKeys       = "/jwks"                                   // RFC 7517 §5
	pathAuthorize  = "/authorize"                              // RFC 6749 §3.1
	pathToken      = "/token"                                  // RFC 6749 §3.2
	pathRevoke     = "/revoke"                                 // RFC 7009 §2
	pathIntrospect = "/introspect"                             // RFC 7662 §2
	pathRegister   = "/register"                               // RFC 7591 §3
	pathSignIn     = "/sign-in"
	pathSignOut    = "/sign-out"
	pathConsent    = "/consent"
	pathProvider   = "/sign-in/provider"
	pathCallback   = "/sign-in/callback"
	pathStyle      = "/style.css"
)

// maxForm bounds the body of a POST.
const maxForm = 64 << 10

// Server is the authorization server, a http.Handler. It must be reached by https alone.
type Server struct {
	cfg      Config
	mux      *http.ServeMux
	cookies  cookies
	throttle *throttle
	provider *provider // nil: local accounts only
	metrics  metrics
	loopback bool // the issuer is a host of loopback: a demo
}

// New checks cfg; the error names the field that is wrong.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), throttle: newThrottle(cfg.Now), metrics: newMetrics(cfg.Metrics)}
	var err error
	if s.cookies, err = newCookies(cfg.Secret); err != nil {
		return nil, err
	}
	if cfg.Provider != nil {
		if s.provider, err = newProvider(*cfg.Provider, cfg.Issuer+pathCallback); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(cfg.Issuer)
	if err != nil {
		return nil, err
	}
	s.loopback = isLoopback(u.Hostname())
	s.route()
	if cfg.AllowImplicit {
		cfg.Logger.Warn("the implicit grant is on: tokens travel in URLs, where scripts and histories see them; RFC 9700 2.1.2 advises against it, pages should use response_type=code")
	}
	return s, nil
}

func (s *Server) route() {
	for pattern, h := range map[string]http.HandlerFunc{
		"GET " + pathMetadata:    s.serveMetadata,
		"GET " + pathKeys:        s.serveKeys,
		"POST " + pathToken:      s.serveToken,
		"POST " + pathRevoke:     s.serveRevoke,
		"POST " + pathIntrospect: s.serveIntrospect,
		"POST " + pathRegister:   s.serveRegister,
	} {
		s.mux.HandleFunc(pattern, s.forPrograms(h))
	}
	for pattern, h := range map[string]http.HandlerFunc{
		"GET " + pathAuthorize: s.serveAuthorize,
		// RFC 6749 §3.1: POST may be taken too, and is not: a form of another site's could
		// then carry the request, and the pages' URLs would lack it.
		"POST " + pathSignIn:  s.serveSignIn,
		"POST " + pathSignOut: s.serveSignOut,
		"POST " + pathConsent: s.serveConsent,
		"GET " + pathProvider: s.serveProvider,
		"GET " + pathCallback: s.serveCallback,
		"GET " + pathStyle:    serveStyle,
	} {
		s.mux.HandleFunc(pattern, s.forBrowsers(h))
	}
	s.mux.HandleFunc("/", s.forBrowsers(func(w http.ResponseWriter, r *http.Request) {
		s.pageError(w, r, http.StatusNotFound, "There is nothing here", "This address belongs to the sign-in service. Go back to the application and start from there.")
	}))
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !s.loopback { // there it would bind whatever else is tried on this machine
		w.Header().Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	s.mux.ServeHTTP(w, r)
}

// forPrograms is around endpoints that scripts call, from any origin: they take no cookies,
// so an answer tells a foreign page nothing that it could not fetch by itself.
func (s *Server) forPrograms(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		if !s.throttle.request(clientAddr(r)) {
			s.metrics.throttled.Inc()
			w.Header().Set("Retry-After", "1")
			answerJSON(w, http.StatusTooManyRequests, refuse(TemporarilyUnavailable, "too many requests from this address"))
			return
		}
		next(w, r)
	}
}

// forBrowsers is around the pages.
func (s *Server) forBrowsers(next http.HandlerFunc) http.HandlerFunc {
	foreign := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w, "")
		if !s.throttle.request(clientAddr(r)) {
			s.metrics.throttled.Inc()
			w.Header().Set("Retry-After", "1")
			s.pageError(w, r, http.StatusTooManyRequests, "Too many requests", "Too much comes from your address. Wait a moment and try again.")
			return
		}
		// A form of another site's is refused by what the browser itself says of it, before
		// the form's own token is looked at.
		if err := foreign.Check(r); err != nil {
			s.pageError(w, r, http.StatusForbidden, "This did not come from here", "The form was sent by another site. Go back to the application and start again.")
			return
		}
		next(w, r)
	}
}

// relay returns the TURN server of a name, or nil.
func (s *Server) relay(name string) *Relay {
	for i := range s.cfg.Relays {
		if s.cfg.Relays[i].Name == name {
			return &s.cfg.Relays[i]
		}
	}
	return nil
}

// count counts and logs an answer that is an error.
func (s *Server) count(r *http.Request, e *Error) {
	s.metrics.refused(e.Code)
	if e.Code == ServerError || e.Code == TemporarilyUnavailable {
		s.cfg.Logger.Error("oauth request failed", "method", r.Method, "path", r.URL.Path, "reason", e.Code, "err", e.cause)
		return
	}
	s.cfg.Logger.Info("oauth request refused", "method", r.Method, "path", r.URL.Path, "reason", e.Code, "err", e)
}

// errUnknownClient is for a client that is not there, or disabled.
var errUnknownClient = errors.New("waf: unknown client")

// subjectIMPI stands for a user without an IMPI where a TURN token needs a subject. No IMPI
// has a space.
func subjectIMPI(kind, name string) turncred.IMPI { return turncred.IMPI("waf " + kind + " " + name) }
