package wic

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

var builtFS = fstest.MapFS{
	"dist/index.html":       {Data: []byte("<!doctype html><title>page</title>")},
	"dist/placeholder.html": {Data: []byte("placeholder")},
	"dist/wic.js":           {Data: []byte("'use strict';")},
	"dist/style.css":        {Data: []byte("body{}")},
	"dist/icon.svg":         {Data: []byte("<svg/>")},
}

var freshFS = fstest.MapFS{"dist/placeholder.html": {Data: []byte("make build")}}

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func testHandler(t *testing.T, cfg PageConfig, fsys fs.FS) *handler {
	t.Helper()
	h, err := newHandler(cfg, fsys)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHandlerAnswers(t *testing.T) {
	h := testHandler(t, PageConfig{Domain: "ims.test"}, builtFS)
	for _, tt := range []struct {
		method, path string
		status       int
		contentType  string
		cache        string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"HEAD", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/wic.js", 200, "text/javascript; charset=utf-8", "no-cache"},
		{"GET", "/style.css", 200, "text/css; charset=utf-8", "no-cache"},
		{"GET", "/icon.svg", 200, "image/svg+xml", "no-cache"},
		{"GET", "/config.json", 200, "application/json", "no-store"},
		{"GET", "/favicon.ico", 204, "", ""},
		{"GET", "/ca.pem", 404, "text/plain; charset=utf-8", "no-store"}, // none configured
		{"GET", "/placeholder.html", 404, "text/plain; charset=utf-8", "no-store"},
		{"GET", "/../page.go", 404, "text/plain; charset=utf-8", "no-store"},
		{"POST", "/", 405, "text/plain; charset=utf-8", ""},
		{"OPTIONS", "/config.json", 405, "text/plain; charset=utf-8", ""},
	} {
		r := get(t, h, tt.method, tt.path)
		if r.StatusCode != tt.status || r.Header.Get("Content-Type") != tt.contentType || r.Header.Get("Cache-Control") != tt.cache {
			t.Errorf("%s %s = %d %q %q, want %d %q %q", tt.method, tt.path, r.StatusCode, r.Header.Get("Content-Type"),
				r.Header.Get("Cache-Control"), tt.status, tt.contentType, tt.cache)
		}
		for _, kv := range securityHeaders {
			if got := r.Header.Get(kv[0]); got != kv[1] {
				t.Errorf("%s %s: %s = %q, want %q", tt.method, tt.path, kv[0], got, kv[1])
			}
		}
		if b := body(t, r); tt.method == "HEAD" && b != "" {
			t.Errorf("HEAD %s has a body of %d bytes", tt.path, len(b))
		}
	}
	if allow := get(t, h, "DELETE", "/").Header.Get("Allow"); allow != "GET, HEAD" {
		t.Errorf("Allow = %q", allow)
	}
}

func TestOAuthSettingsAndPolicy(t *testing.T) {
	good := OAuth{Issuer: "https://waf.test:8444", ClientID: "demo", Scope: "stun", Implicit: true}
	r := get(t, testHandler(t, PageConfig{Domain: "ims.test", OAuth: &good}, builtFS), "GET", "/config.json")
	if policy := r.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "connect-src 'self' https://waf.test:8444;") {
		t.Errorf("policy %q does not let the page ask the WAF", policy)
	}
	var got struct {
		OAuth OAuth `json:"oauth"`
	}
	if err := json.Unmarshal([]byte(body(t, r)), &got); err != nil || got.OAuth != good {
		t.Errorf("config.json has %+v, %v, want %+v", got.OAuth, err, good)
	}
	for _, issuer := range []string{"", "http://waf.test", "https://", "https://waf.test/", "https://waf.test; script-src *", "https://*", "https://waf.test https://evil.test"} {
		bad := good
		bad.Issuer = issuer
		if _, err := newHandler(PageConfig{Domain: "ims.test", OAuth: &bad}, builtFS); err == nil {
			t.Errorf("issuer %q is taken: it goes into the policy", issuer)
		}
	}
	if _, err := newHandler(PageConfig{Domain: "ims.test", OAuth: &OAuth{Issuer: good.Issuer}}, builtFS); err == nil {
		t.Error("no client id, and no error")
	}
}

func TestHandlerRevalidates(t *testing.T) {
	h := testHandler(t, PageConfig{Domain: "ims.test"}, builtFS)
	etag := get(t, h, "GET", "/wic.js").Header.Get("ETag")
	if etag == "" {
		t.Fatal("no ETag on /wic.js")
	}
	if r := get(t, h, "GET", "/wic.js", "If-None-Match", etag); r.StatusCode != http.StatusNotModified {
		t.Errorf("status with the ETag = %d, want 304", r.StatusCode)
	}
	if r := get(t, h, "GET", "/config.json"); r.Header.Get("ETag") != "" {
		t.Error("config.json has an ETag, though it must not be stored")
	}
}

func TestPlaceholderSaysHowToBuild(t *testing.T) {
	if built(freshFS) || !built(builtFS) {
		t.Error("built does not tell a page from a placeholder")
	}
	if got := body(t, get(t, testHandler(t, PageConfig{Domain: "ims.test"}, freshFS), "GET", "/")); got != "make build" {
		t.Errorf("GET / = %q, want the placeholder", got)
	}
	committed, err := fs.ReadFile(dist, "dist/"+placeholderName)
	if err != nil || !strings.Contains(string(committed), "make build") {
		t.Errorf("the committed placeholder does not say %q: %v", "make build", err)
	}
	if strings.Contains(string(committed), "<script") || strings.Contains(string(committed), "style=") {
		t.Error("the placeholder has inline script or style, which its own policy forbids")
	}
}

func TestConfigJSON(t *testing.T) {
	ca := testCertificate(t)
	h := testHandler(t, PageConfig{
		Domain: "ims.test", Users: []string{"alice", "bob"}, TURNApproach: "push", CAPEM: ca, Demo: true, TrustHint: "chromium --x",
	}, builtFS)
	var got pageSettings
	if err := json.NewDecoder(get(t, h, "GET", "/config.json").Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Domain != "ims.test" || got.WebSocketPath != "/ws" || !slices.Equal(got.Users, []string{"alice", "bob"}) ||
		got.TURNApproach != "push" || got.CA != "/ca.pem" || !got.Demo || got.TrustHint != "chromium --x" {
		t.Errorf("config.json = %+v", got)
	}
	if b := body(t, get(t, h, "GET", got.CA)); b != string(ca) {
		t.Errorf("/ca.pem has %d bytes, want the %d of CAPEM", len(b), len(ca))
	}

	// No users is an empty list, not null, which the page would trip over.
	h = testHandler(t, PageConfig{Domain: "ims.test"}, builtFS)
	if b := body(t, get(t, h, "GET", "/config.json")); !strings.Contains(b, `"users":[]`) {
		t.Errorf("config.json without users = %s", b)
	}
}

func TestNewHandlerRefuses(t *testing.T) {
	key := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}})
	for _, tt := range []struct {
		name string
		cfg  PageConfig
		want string // what the error must name
	}{
		{"no domain", PageConfig{}, "Domain"},
		{"relative path", PageConfig{Domain: "d", WebSocketPath: "ws"}, "WebSocketPath"},
		{"CA is no PEM", PageConfig{Domain: "d", CAPEM: []byte("x")}, "CAPEM"},
		{"CA holds a key", PageConfig{Domain: "d", CAPEM: append(testCertificate(t), key...)}, "EC PRIVATE KEY"},
		{"trailing bytes", PageConfig{Domain: "d", CAPEM: append(testCertificate(t), "secret"...)}, "CAPEM"},
	} {
		if _, err := NewHandler(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error = %v, want one that names %s", tt.name, err, tt.want)
		}
	}
}

// TestBuiltPage checks the real page where it is embedded.
func TestBuiltPage(t *testing.T) {
	if !Built() {
		t.Skip("the page is not built: run make build")
	}
	h, err := NewHandler(PageConfig{Domain: "ims.test"})
	if err != nil {
		t.Fatal(err)
	}
	page := body(t, get(t, h, "GET", "/"))
	for _, forbidden := range []string{"<style", "style=\"", "onclick", "javascript:", "http://"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page has %q", forbidden)
		}
	}
	for _, name := range []string{"/wic.js", "/style.css", "/icon.svg", "/THIRD_PARTY_LICENSES.txt"} {
		if r := get(t, h, "GET", name); r.StatusCode != http.StatusOK {
			t.Errorf("GET %s = %d", name, r.StatusCode)
		}
	}
}

func testCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
