package proxy

import (
	"errors"
	"slices"
	"strings"

	"epcscf/sipext"
)

// maxToken bounds a token; the limit of a header field is smaller by default.
const maxToken = 8 << 10

var (
	errBearer     = errors.New("Malformed Bearer credentials")
	errTwoTokens  = errors.New("More than one token")
	errTwoSchemes = errors.New("Credentials of two schemes")
)

// isBearer reports whether credentials are of the Bearer scheme, malformed ones too.
func isBearer(value string) bool {
	value = strings.TrimLeft(value, " \t")
	const scheme = "Bearer"
	return len(value) >= len(scheme) && strings.EqualFold(value[:len(scheme)], scheme) &&
		(len(value) == len(scheme) || strings.IndexByte(" \t,", value[len(scheme)]) >= 0)
}

// parseBearer reads the token of Bearer credentials in either spelling: that of RFC 6750 §2.1,
// to which RFC 8898 §2.1.3 points, and that of an auth-param, which fits the credentials of
// RFC 3261 §25.1 and which TS 24.371 A.3.2 shows:
//
//	Bearer b64token
//	Bearer access_token="b64token"
func parseBearer(value string) (string, error) {
	value = strings.Trim(value, " \t")
	n := strings.IndexAny(value, " \t")
	if n < 0 {
		return "", errBearer
	}
	token := strings.Trim(value[n:], " \t")
	if !isB64Token(token) {
		params, err := sipext.ParseAuthParams(token)
		if err != nil {
			return "", errBearer
		}
		token, _ = params.Get("access_token")
	}
	if !isB64Token(token) || len(token) > maxToken {
		return "", errBearer
	}
	return token, nil
}

// isB64Token reports whether s is a b64token (RFC 6750 §2.1).
func isB64Token(s string) bool {
	body := strings.TrimRight(s, "=")
	for i := range len(body) {
		switch c := body[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~+/", c) >= 0:
		default:
			return false
		}
	}
	return body != ""
}

// bearerOf returns the token of a request, "" where there is none, from the rows of those
// header fields. A token that is there twice must be the same.
func bearerOf(m *sipext.Message, fields ...sipext.Name) (token string, err error) {
	for i := range m.Fields {
		f := &m.Fields[i]
		if !slices.Contains(fields, f.ID) || !isBearer(f.Value) {
			continue
		}
		t, err := parseBearer(f.Value)
		switch {
		case err != nil:
			return "", err
		case token != "" && t != token:
			return "", errTwoTokens
		}
		token = t
	}
	return token, nil
}

// bearerChallenge is the value of a challenge (RFC 8898 §4).
func (c *Config) bearerChallenge(problem string) string {
	v := `Bearer realm="` + c.Domain + `", authz_server="` + c.Bearer.AuthzServer + `"`
	if c.Bearer.Scope != "" {
		v += `, scope="` + c.Bearer.Scope + `"`
	}
	if problem != "" {
		v += `, error="` + problem + `"`
	}
	return v
}
