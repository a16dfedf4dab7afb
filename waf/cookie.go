package waf

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"epcscf/turncred"
)

// The cookies. __Host- binds them to this host and to https (RFC 6265bis §4.1.3.2), so that
// a neighbour's host cannot plant one; Lax, since the way here is a link from the client.
const (
	cookieSession  = "__Host-waf-session"
	cookieForm     = "__Host-waf-form"
	cookieProvider = "__Host-waf-provider"
)

// cookies seals and opens cookies, and makes the tokens of forms. Nothing is kept here, so
// all processes with one secret are one WAF.
type cookies struct {
	aead cipher.AEAD
	form []byte // key of the forms' tokens
}

func newCookies(secret turncred.Secret) (cookies, error) {
	derive := func(label string) ([]byte, error) {
		return hkdf.Key(sha256.New, secret.Reveal(), nil, label, 32) // RFC 5869
	}
	k, err := derive("epcscf waf cookies")
	if err != nil {
		return cookies{}, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return cookies{}, err
	}
	c := cookies{}
	// Random nonces are good for 2^32 cookies under one secret (NIST SP 800-38D §8.3).
	if c.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return cookies{}, err
	}
	c.form, err = derive("epcscf waf forms")
	return c, err
}

// set seals v into a cookie, of which name is associated data.
func (c cookies) set(w http.ResponseWriter, name string, v any, life time.Duration) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sealed := c.aead.Seal(nil, nil, raw, []byte(name)) //nolint:gosec // G407: this AEAD draws its nonces itself
	setCookie(w, name, base64.RawURLEncoding.EncodeToString(sealed), int(life/time.Second))
	return nil
}

// get opens a cookie into v, and reports whether there was a good one. Its age is the
// content's to say.
func (c cookies) get(r *http.Request, name string, v any) bool {
	k, err := r.Cookie(name)
	if err != nil {
		return false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(k.Value)
	if err != nil {
		return false
	}
	raw, err := c.aead.Open(nil, nil, sealed, []byte(name))
	return err == nil && json.Unmarshal(raw, v) == nil
}

// clear deletes a cookie.
func (c cookies) clear(w http.ResponseWriter, name string) { setCookie(w, name, "", -1) }

func setCookie(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// formBrowserLen is that of rand.Text, by which a browser is told from others.
const formBrowserLen = 26

// browser returns by what this browser's forms are told from others', and sets it where it
// is new.
func (c cookies) browser(w http.ResponseWriter, r *http.Request) string {
	if k, err := r.Cookie(cookieForm); err == nil && len(k.Value) == formBrowserLen {
		return k.Value
	}
	browser := rand.Text()
	setCookie(w, cookieForm, browser, 0)
	return browser
}

// formToken returns the hidden token of a form. It is bound to the browser, to what the form
// does, to who is signed in and to the request that it goes on with: a page of another site
// has no such token, nor can it make a browser sign in as somebody else.
func (c cookies) formToken(browser, purpose, user, query string) string {
	m := hmac.New(sha256.New, c.form)
	for _, part := range []string{browser, purpose, user, query} {
		_, _ = fmt.Fprintf(m, "%d:%s", len(part), part)
	}
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// formHolds reports whether a form came with formToken's for the same words.
func (c cookies) formHolds(r *http.Request, purpose, user, query string) bool {
	k, err := r.Cookie(cookieForm)
	return err == nil && hmac.Equal([]byte(c.formToken(k.Value, purpose, user, query)), []byte(r.PostFormValue("form")))
}
