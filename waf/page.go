package waf

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"time"
)

//go:embed pages
var pageFiles embed.FS

var pages = template.Must(template.ParseFS(pageFiles, "pages/*.html"))

// pageHeaders go out with every page. formTarget is where a form's redirect may lead beside
// here. No script runs, nothing is loaded from elsewhere and no other page frames these, so
// that a click on Allow is the user's own (RFC 9700 §4.16).
func pageHeaders(w http.ResponseWriter, formTarget string) {
	h := w.Header()
	if formTarget != "" {
		formTarget = " " + formTarget
	}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"+formTarget)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	// The client must not see the request's URL; our own forms must be seen to be ours.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// page answers with a page.
func (s *Server) page(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		s.cfg.Logger.Error("page does not render", "reason", name, "err", err)
		http.Error(w, "This page is broken.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// errorPage is the data of a page that says what went wrong.
type errorPage struct{ Title, Text, Again string }

// pageError ends a request with a page.
func (s *Server) pageError(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	s.cfg.Logger.Info("page refused", "method", r.Method, "path", r.URL.Path, "status", status, "reason", title)
	s.page(w, status, "error", errorPage{Title: title, Text: text})
}

// pageFailed ends a request that failed through no fault of the user's.
func (s *Server) pageFailed(w http.ResponseWriter, r *http.Request, err error) {
	if bad := new(badClientError); errors.As(err, &bad) {
		s.metrics.refused(InvalidRequest)
		s.pageError(w, r, http.StatusBadRequest, "The application made a mistake", bad.text+" Go back to it, and tell its operator if this happens again.")
		return
	}
	s.count(r, failed(err))
	s.page(w, http.StatusInternalServerError, "error", errorPage{Title: "Something went wrong", Text: "This is not your fault. Wait a moment and try again."})
}

func serveStyle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=3600")
	raw, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic("waf: style.css is not embedded")
	}
	http.ServeContent(w, r, "style.css", time.Time{}, bytes.NewReader(raw))
}
