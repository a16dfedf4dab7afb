package waf

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxRedirectURI bounds a redirect URI; it stands in every authorization request.
const maxRedirectURI = 1024

// CheckRedirectURI says what is wrong with a redirect URI that is to be registered
// (RFC 6749 §3.1.2, RFC 8252 §7): https, or http on loopback, or a scheme of the
// application's own, which has a dot.
func CheckRedirectURI(s string) error {
	if s == "" || len(s) > maxRedirectURI {
		return fmt.Errorf("redirect URI: want 1 to %d bytes", maxRedirectURI)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7F || strings.ContainsRune(`\"<>^{|}`, r) }) {
		return errors.New("redirect URI: has a character that stands in no URI")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("redirect URI: malformed")
	case strings.Contains(s, "#"): // RFC 6749 §3.1.2: no fragment, also no empty one
		return errors.New("redirect URI: must not have a fragment")
	case u.User != nil:
		return errors.New("redirect URI: must not name a user")
	// Beyond DNS names and addresses a host could say things to a Content-Security-Policy.
	case strings.ContainsFunc(u.Host, func(r rune) bool { return notUnreserved(r) && !strings.ContainsRune(":[]", r) }):
		return errors.New("redirect URI: the host is no name or address")
	case u.Scheme == "https" && u.Hostname() != "":
		return nil
	case u.Scheme == "http" && isLoopback(u.Hostname()): // RFC 8252 §7.3
		return nil
	case strings.Contains(u.Scheme, ".") && u.Host == "": // RFC 8252 §7.1
		return nil
	}
	return errors.New("redirect URI: want https://..., http:// on loopback, or a scheme of your own such as com.example.app:/...")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// hasRedirectURI compares as RFC 9700 §2.1 wants: character by character. RFC 8252 §7.3
// would let the port of a loopback URI vary, for applications that listen on a port of the
// moment; a WIC's page does not, so ours may not.
func hasRedirectURI(registered []string, uri string) bool { return slices.Contains(registered, uri) }

// redirectTo sends the browser back to the client with values added to the redirect URI: in
// the query (RFC 6749 §4.1.2), or in the fragment (§4.2.2).
func redirectTo(w http.ResponseWriter, uri string, values url.Values, inFragment bool) {
	switch {
	case inFragment:
		uri += "#" + values.Encode()
	case strings.Contains(uri, "?"): // RFC 6749 §3.1.2: an existing query is kept
		uri += "&" + values.Encode()
	default:
		uri += "?" + values.Encode()
	}
	w.Header().Set("Location", uri)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther) // RFC 9700 §4.12: 303 repeats no form, 307 would
}

// formTarget is what the policy of a page with a form must allow beside 'self', since
// Chromium holds form-action against the redirect that follows too.
func formTarget(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return ""
	case u.Host == "":
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}
