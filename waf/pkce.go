package waf

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// challengeLen is that of base64url(SHA-256), unpadded.
const challengeLen = 43

// checkChallenge holds to RFC 7636 §4.3, with S256 as the only method: "plain", which a
// request without a method means, shows the verifier to whoever sees the request.
func checkChallenge(challenge, method string) error {
	switch {
	case challenge == "":
		return refuse(InvalidRequest, "code_challenge is missing: PKCE is wanted (RFC 7636)")
	case method != "S256":
		return refuse(InvalidRequest, "code_challenge_method must be S256")
	}
	if b, err := base64.RawURLEncoding.Strict().DecodeString(challenge); len(challenge) != challengeLen || err != nil || len(b) != sha256.Size {
		return refuse(InvalidRequest, "code_challenge must be base64url(SHA-256(code_verifier)), unpadded")
	}
	return nil
}

// verifies reports whether verifier belongs to challenge (RFC 7636 §4.6).
func verifies(verifier, challenge string) bool {
	// RFC 7636 §4.1: 43*128unreserved
	if len(verifier) < 43 || len(verifier) > 128 || strings.ContainsFunc(verifier, notUnreserved) {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

func notUnreserved(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("-._~", r)
}
