package node

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/token"
)

// tokenFieldsPath is where the demo's page asks what the relay reads in a token. A relay in
// earnest tells nobody.
const tokenFieldsPath = "/demo/token"

// maxTokenForm bounds the question: a USERNAME has 508 bytes at most (RFC 8489 §14.3).
const maxTokenForm = 1 << 10

// tokenFields is what the relay reads in a token (RFC 7635 §6.2), but for the session key.
type tokenFields struct {
	KeyID      string `json:"kid"`
	ServerName string `json:"server_name"`
	Issued     string `json:"issued"`
	Lifetime   int    `json:"lifetime_s"`
	KeyBits    int    `json:"session_key_bits"`
	Subject    string `json:"subject"` // hexadecimal; a number that names nobody (turncred.Subject)
}

// withTokenFields is page, and the answer to "POST username=kid~token" at tokenFieldsPath. It
// needs the whole token, so nobody learns what he could not use, and returns no key.
func withTokenFields(page http.Handler, tokens Tokens, realm turncred.Realm) (http.Handler, error) {
	ring, err := token.NewKeyRing(tokens.Keys...)
	if err != nil {
		return nil, err
	}
	auth, err := token.NewAuthenticator(token.AuthenticatorConfig{Ring: ring, ServerName: tokens.ServerName, Realm: realm, MaxLifetime: tokens.MaxLifetime})
	if err != nil {
		return nil, fmt.Errorf("access tokens: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != tokenFieldsPath || r.Method != http.MethodPost {
			page.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, maxTokenForm)
		if err := r.ParseForm(); err != nil {
			http.Error(w, "want username=kid~token", http.StatusBadRequest)
			return
		}
		f, err := readTokenFields(ring, auth, r.PostForm.Get("username"))
		if err != nil {
			http.Error(w, "not a token of this relay", http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(f) // to a peer that has gone there is nothing to say
	}), nil
}

func readTokenFields(ring *token.KeyRing, auth *token.Authenticator, username string) (f tokenFields, err error) {
	kid, encoded, _ := strings.Cut(username, "~")
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return f, err
	}
	c, err := ring.Open(turncred.KeyID(kid), auth.ServerName(), raw)
	if err != nil {
		return f, err
	}
	p, err := auth.AuthenticateToken(kid, raw, c.Issued) // at a time when it was fresh: an old one has fields too
	if err != nil {
		return f, err
	}
	id, err := p.Identify()
	if err != nil {
		return f, err
	}
	return tokenFields{
		KeyID: kid, ServerName: auth.ServerName(), Issued: c.Issued.UTC().Format(time.RFC3339), Lifetime: int(c.Lifetime / time.Second),
		KeyBits: 8 * c.MACKey.Len(), Subject: fmt.Sprintf("%016x", uint64(id.Subject)),
	}, nil
}
