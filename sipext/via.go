package sipext

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

var errVia = errors.New("malformed Via")

// maxViaParams is more than any Via has: there are about ten in the IANA registry.
const maxViaParams = 32

// normalizeVia checks one via-parm (RFC 3261 §20.42) and writes it without the optional
// white space, which sipgo's parser takes for a part of names and values:
//
//	SIP/2.0/TRANSPORT SP host[:port] *( ";" name ["=" value] )
func normalizeVia(s string) (string, error) {
	transport, rest, ok := cutTransport(s)
	if !ok {
		return "", errVia
	}
	hostEnd := strings.IndexByte(rest, ';')
	if hostEnd < 0 {
		hostEnd = len(rest)
	}
	host, err := normalizeSentBy(trimLWS(rest[:hostEnd]))
	if err != nil {
		return "", err
	}
	b := make([]byte, 0, len(s))
	b = append(append(append(append(b, "SIP/2.0/"...), transport...), ' '), host...)
	var names [maxViaParams]string
	seen := names[:0]
	for p, err := range params(rest[hostEnd:]) {
		v := p.text() // a quoted token needs no quotes
		twice := slices.ContainsFunc(seen, func(name string) bool { return strings.EqualFold(name, p.Name) })
		if err != nil || twice || len(seen) == maxViaParams || !isViaParam(p.Name, v) {
			return "", errVia
		}
		seen = append(seen, p.Name)
		b = append(append(b, ';'), p.Name...)
		if v != "" {
			b = append(append(b, '='), v...)
		}
	}
	return string(b), nil
}

// isViaParam reports whether a parameter may stand in a Via. sipgo reads the name of a quoted
// one wrongly, and nothing but a token in quotes is of use.
func isViaParam(name, value string) bool {
	if value != "" && !viaValueSet.holds(value) {
		return false
	}
	// RFC 3261 §8.1.1.7: a branch is unique; the bare cookie is not.
	return !strings.EqualFold(name, "branch") || !strings.EqualFold(value, "z9hG4bK")
}

// cutTransport reads sent-protocol, which may have white space around its slashes.
func cutTransport(s string) (transport, rest string, ok bool) {
	name, s, ok1 := strings.Cut(s, "/")
	version, s, ok2 := strings.Cut(s, "/")
	s = trimLWS(s)
	i := strings.IndexAny(s, " \t")
	if !ok1 || !ok2 || i < 0 {
		return "", "", false
	}
	name, version = trimLWS(name), trimLWS(version)
	if !strings.EqualFold(name, "SIP") || version != "2.0" || !IsToken(s[:i]) {
		return "", "", false
	}
	return s[:i], trimLWS(s[i:]), true
}

// normalizeSentBy checks host [ COLON port ].
func normalizeSentBy(s string) (string, error) {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.IndexByte(s, ']') && i >= 0 {
		host, port = trimLWS(s[:i]), trimLWS(s[i+1:])
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || !digitSet.holds(port) {
			return "", errVia
		}
	}
	if strings.HasPrefix(host, "[") {
		if !strings.HasSuffix(host, "]") || !ipv6Set.holds(host[1:len(host)-1]) {
			return "", errVia
		}
	} else if !hostnameSet.holds(host) {
		return "", errVia
	}
	if port == "" || len(host)+1+len(port) == len(s) {
		return s, nil // nothing to leave out
	}
	return host + ":" + port, nil
}
