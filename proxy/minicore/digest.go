package minicore

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"

	"epcscf/sipext"
	"epcscf/turncred"
)

// authenticator checks SIP Digest (RFC 3261 §22, RFC 7616, RFC 8760).
//
// A nonce is base64url of
//
//	time of issue in ns (8 bytes) | random (8) | HMAC-SHA256(key, the 16 bytes before)[:16]
//
// so that no state is kept for challenges that nobody answers. A nonce comes into the
// table with its first right answer, which takes the password.
type authenticator struct {
	realm      string
	users      map[string]turncred.Secret
	algorithms []string
	nonceLife  time.Duration
	now        func() time.Time
	key        [32]byte

	mu   sync.Mutex // guards used
	used map[string]nonceUse
}

// nonceUse is the highest nonce count seen, kept while the nonce is fresh.
type nonceUse struct {
	count int
	until time.Time
}

// verdict is what a request's credentials are worth.
type verdict int

const (
	rejected  verdict = iota // none, or wrong: challenge
	stale                    // right password, but the nonce is old or its count was used: challenge with stale=true
	malformed                // not even a challenge helps: 400
	accepted
)

const nonceLen = 32

func newAuthenticator(cfg Config) *authenticator {
	a := &authenticator{
		realm: cfg.Domain, users: cfg.Users, algorithms: cfg.Algorithms,
		nonceLife: cfg.NonceLife, now: cfg.Now, used: map[string]nonceUse{},
	}
	_, _ = rand.Read(a.key[:]) // crypto/rand.Read never returns an error
	return a
}

// challenges returns the WWW-Authenticate rows: one an algorithm (RFC 8760 §2.3).
func (a *authenticator) challenges(stale bool) []sip.Header {
	var rows []sip.Header
	for _, alg := range a.algorithms {
		ch := digest.Challenge{Realm: a.realm, Nonce: a.nonce(), Algorithm: alg, QOP: []string{"auth"}, Stale: stale}
		rows = append(rows, sip.NewHeader("WWW-Authenticate", ch.String()))
	}
	return rows
}

func (a *authenticator) nonce() string {
	var n [nonceLen]byte
	binary.BigEndian.PutUint64(n[:], uint64(a.now().UnixNano()))
	_, _ = rand.Read(n[8:16])
	copy(n[16:], a.seal(n[:16]))
	return base64.RawURLEncoding.EncodeToString(n[:])
}

func (a *authenticator) seal(b []byte) []byte {
	m := hmac.New(sha256.New, a.key[:])
	m.Write(b)
	return m.Sum(nil)[:16]
}

// issued returns when a nonce was made, if we made it.
func (a *authenticator) issued(nonce string) (time.Time, bool) {
	n, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(n) != nonceLen || !hmac.Equal(n[16:], a.seal(n[:16])) {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(n))), true
}

// check returns the user part that a request's Authorization proves.
func (a *authenticator) check(req *sip.Request) (user string, v verdict) {
	cred, v := a.credentials(req)
	if v != accepted {
		return "", v
	}
	user = strings.TrimSuffix(cred.Username, "@"+a.realm)
	password, known := a.users[user]
	made, ours := a.issued(cred.Nonce)
	if !known || !ours {
		return "", rejected
	}
	want, err := digest.Digest(
		&digest.Challenge{Realm: a.realm, Nonce: cred.Nonce, Algorithm: cred.Algorithm, QOP: []string{"auth"}},
		digest.Options{
			Method: string(req.Method), URI: cred.URI, Count: cred.Nc, Cnonce: cred.Cnonce,
			Username: cred.Username, Password: string(password.Reveal()),
		})
	// Constant time, though the response is no key: it costs nothing.
	if err != nil || subtle.ConstantTimeCompare([]byte(want.Response), []byte(strings.ToLower(cred.Response))) != 1 {
		return "", rejected
	}
	until := made.Add(a.nonceLife)
	if !a.now().Before(until) || !a.count(cred.Nonce, cred.Nc, until) {
		return "", stale
	}
	return user, accepted
}

// credentials finds and checks the form of the Authorization for our realm. The
// verdict is accepted where there is something to compute.
func (a *authenticator) credentials(req *sip.Request) (*digest.Credentials, verdict) {
	for _, row := range sipext.Rows(req, "Authorization") {
		cred, err := digest.ParseCredentials(row.Value())
		if err != nil {
			return nil, malformed
		}
		if cred.Realm != a.realm {
			continue // RFC 3261 §22.1: credentials for another realm are no concern of ours
		}
		// TS 24.229 §5.1.1.2.2: the first REGISTER of a UE names itself with an
		// empty nonce and an empty response.
		if cred.Nonce == "" || cred.Response == "" {
			return nil, rejected
		}
		if cred.Algorithm == "" {
			cred.Algorithm = "MD5" // RFC 7616 §3.4
		}
		cred.Algorithm = strings.ToUpper(cred.Algorithm)
		// We offer qop=auth alone, so a count and a cnonce must be there (RFC 7616 §3.4).
		if cred.QOP != "auth" || cred.Nc <= 0 || cred.Cnonce == "" || cred.Userhash {
			return nil, malformed
		}
		if !slices.Contains(a.algorithms, cred.Algorithm) {
			return nil, rejected
		}
		// RFC 7616 §3.4.6: the digest URI must name the resource of the request line.
		var uri sip.Uri
		if sip.ParseUri(cred.URI, &uri) != nil || !strings.EqualFold(uri.Host, req.Recipient.Host) || uri.User != req.Recipient.User {
			return nil, malformed
		}
		return cred, accepted
	}
	return nil, rejected
}

// count takes a nonce count; it reports false where it is not above the last one:
// "If the server has seen the same nc-value twice, then the request is a replay"
// (RFC 7616 §3.4).
func (a *authenticator) count(nonce string, nc int, until time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if nc <= a.used[nonce].count {
		return false
	}
	if _, known := a.used[nonce]; !known {
		now := a.now()
		for n, u := range a.used {
			if !now.Before(u.until) {
				delete(a.used, n)
			}
		}
	}
	a.used[nonce] = nonceUse{nc, until}
	return true
}
