// Package wic serves the browser side: a page that registers over secure WebSocket,
// gets TURN credentials in the header 3gpp-ext-turn-cred and calls with them.
//
// The page and the class WicTurn behind it are TypeScript, in src; README.md tells how
// to use the class in a page of one's own. This Go package embeds what esbuild made of
// them and hands it out:
//
//	/               the page, or how to build it where it has not been built
//	/wic.js, ...    its parts
//	/config.json    what the page must know: domain, WebSocket path, names of the users
//	/ca.pem         the CA to import, where the server made its own
//
// It knows no passwords and answers GET and HEAD only.
package wic

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// PageConfig says what the page shows and where it connects. Domain must be set.
type PageConfig struct {
	Domain        string   // home domain, the part after "@" of every address
	WebSocketPath string   // where SIP over WebSocket is accepted; default "/ws"
	Users         []string // names that the sign-in form offers; never passwords
	TURNApproach  string   // shown beside the credential
	CAPEM         []byte   // certificates in PEM for /ca.pem; nil: there is no /ca.pem
	Demo          bool     // the page then says that it is a demonstration
	TrustHint     string   // command that starts a browser which trusts the server; shown where turns: fails
	OAuth         *OAuth   // how the page signs users in by their web account; nil: it does not
}

// OAuth is what the page must know of a WAF. Issuer, ClientID and Scope must be set.
type OAuth struct {
	Issuer     string `json:"issuer"` // https://HOST or https://HOST:PORT
	ClientID   string `json:"client_id"`
	Scope      string `json:"scope"`
	TURNServer string `json:"turn_server,omitempty"` // the aud of its TURN tokens
	Implicit   bool   `json:"implicit"`              // the WAF has the implicit grant too
	// TokenFields is a path of this server's that says what the relay reads in a token, for
	// the page to show; "": the page says that the token is sealed.
	TokenFields string `json:"token_fields,omitempty"`
}

// check says what is wrong. The issuer goes into the page's policy, so it must be an origin
// and nothing else.
func (o *OAuth) check() error {
	if o == nil {
		return nil
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || o.Issuer != "https://"+u.Host || strings.ContainsAny(o.Issuer, " ;,'\"*") {
		return fmt.Errorf("OAuth.Issuer is %q, want https://HOST or https://HOST:PORT", o.Issuer)
	}
	if o.ClientID == "" || o.Scope == "" {
		return errors.New("OAuth: ClientID and Scope must be set")
	}
	return nil
}

// pageSettings is /config.json.
type pageSettings struct {
	Domain        string   `json:"domain"`
	WebSocketPath string   `json:"websocket_path"`
	Users         []string `json:"users"`
	TURNApproach  string   `json:"turn_approach"`
	CA            string   `json:"ca,omitempty"`
	Demo          bool     `json:"demo"`
	TrustHint     string   `json:"trust_hint,omitempty"`
	OAuth         *OAuth   `json:"oauth,omitempty"`
}

// contentSecurityPolicy allows what the page loads and nothing else. 'self' in
// connect-src covers wss on the page's own origin (CSP3 §6.7.2.8).
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; " +
	"connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// securityHeaders go out with every answer.
var securityHeaders = [][2]string{
	{"Content-Security-Policy", contentSecurityPolicy},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Permissions-Policy", "microphone=(self), camera=(), geolocation=(), display-capture=()"},
	{"Referrer-Policy", "no-referrer"},
	{"X-Content-Type-Options", "nosniff"},
}

const (
	// A part of the page is asked for again each time and answered 304 while its ETag
	// holds: a new build is then seen at once.
	cacheRevalidate = "no-cache"
	cacheNever      = "no-store"
)

// part is one file of the page, held in memory.
type part struct {
	body        []byte
	contentType string
	cache       string
	etag        string
}

// handler serves parts by path. It does not change once made.
type handler struct {
	parts  map[string]part
	policy string
}

// NewHandler returns the page's handler. It refuses a configuration that the page could
// not work with, and a CAPEM that holds anything but certificates.
func NewHandler(cfg PageConfig) (http.Handler, error) { return newHandler(cfg, dist) }

func newHandler(cfg PageConfig, fsys fs.FS) (*handler, error) {
	if cfg.Domain == "" {
		return nil, errors.New("page: Domain is not set")
	}
	if cfg.WebSocketPath == "" {
		cfg.WebSocketPath = "/ws"
	}
	if !strings.HasPrefix(cfg.WebSocketPath, "/") {
		return nil, fmt.Errorf("page: WebSocketPath is %q, want a path that starts with /", cfg.WebSocketPath)
	}
	if err := cfg.OAuth.check(); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	h := &handler{parts: map[string]part{}, policy: contentSecurityPolicy}
	if cfg.OAuth != nil { // whose token endpoint the page asks
		h.policy = strings.Replace(h.policy, "connect-src 'self'", "connect-src 'self' "+cfg.OAuth.Issuer, 1)
	}
	if err := h.addDist(fsys); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	settings := pageSettings{
		Domain: cfg.Domain, WebSocketPath: cfg.WebSocketPath, Users: append([]string{}, cfg.Users...),
		TURNApproach: cfg.TURNApproach, Demo: cfg.Demo, TrustHint: cfg.TrustHint, OAuth: cfg.OAuth,
	}
	if len(cfg.CAPEM) > 0 {
		if err := onlyCertificates(cfg.CAPEM); err != nil {
			return nil, fmt.Errorf("page: CAPEM: %w", err)
		}
		settings.CA = "/ca.pem"
		h.add(settings.CA, "application/x-pem-file", cacheNever, cfg.CAPEM)
	}
	body, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("page: config.json: %w", err)
	}
	h.add("/config.json", "application/json", cacheNever, body)
	return h, nil
}

// addDist takes over the files of dist; "/" is the page or, without one, the placeholder.
func (h *handler) addDist(fsys fs.FS) error {
	root := placeholderName
	if built(fsys) {
		root = indexName
	}
	return fs.WalkDir(fsys, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		switch base := strings.TrimPrefix(name, "dist/"); base {
		case root:
			h.add("/", contentTypeOf(base), cacheRevalidate, body)
		case indexName, placeholderName:
		default:
			h.add("/"+base, contentTypeOf(base), cacheRevalidate, body)
		}
		return nil
	})
}

func (h *handler) add(name, contentType, cache string, body []byte) {
	sum := sha256.Sum256(body)
	h.parts[name] = part{
		body: bytes.Clone(body), contentType: contentType, cache: cache,
		etag: `"` + hex.EncodeToString(sum[:16]) + `"`,
	}
}

// contentTypeOf does not ask the host's MIME table, which differs from machine to machine.
func contentTypeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json", ".map":
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}

// onlyCertificates guards against the slip of handing out a private key.
func onlyCertificates(data []byte) error {
	certificates := 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 || certificates == 0 {
				return errors.New("not a PEM file of certificates")
			}
			return nil
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a PEM block %q, want CERTIFICATE only", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		certificates++
	}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	for _, kv := range securityHeaders {
		header.Set(kv[0], kv[1])
	}
	header.Set("Content-Security-Policy", h.policy)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "the page is for GET and HEAD only", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/favicon.ico" { // asked for by browsers, whatever the page links to
		w.WriteHeader(http.StatusNoContent)
		return
	}
	p, ok := h.parts[r.URL.Path]
	if !ok {
		header.Set("Cache-Control", cacheNever)
		http.Error(w, "no such page; the page is at /", http.StatusNotFound)
		return
	}
	header.Set("Content-Type", p.contentType)
	header.Set("Cache-Control", p.cache)
	if p.cache != cacheNever {
		header.Set("ETag", p.etag)
	}
	// The zero time leaves Last-Modified out: embedded files have none.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.body))
}
