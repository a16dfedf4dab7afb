package sipext

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// charset is a set of ASCII characters.
type charset [256]bool

func charsetOf(chars string) *charset {
	var c charset
	for i := range len(chars) {
		c[chars[i]] = true
	}
	return &c
}

const (
	alpha      = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits     = "0123456789"
	tokenChars = alpha + digits + "-.!%*_+`'~" // RFC 3261 §25.1
)

var (
	digitSet  = charsetOf(digits)
	tokenSet  = charsetOf(tokenChars)
	hostSet   = charsetOf(tokenChars + "[]:") // token and host, as gen-value has them
	tidSet    = charsetOf(alpha + digits + "-_")
	base64Set = charsetOf(alpha + digits + "+/")

	schemeSet   = charsetOf(alpha + digits + "+-.")
	viaValueSet = charsetOf(tokenChars + "[]:=/")
	hostnameSet = charsetOf(alpha + digits + "-._")
	ipv6Set     = charsetOf("0123456789abcdefABCDEF:.")
	// What ends a parameter's name, and its value where that is not quoted.
	nameEndSet  = charsetOf("=;, \t\"")
	valueEndSet = charsetOf("; \t,\"<>")
	notInURISet = charsetOf(" \t<>\"")
	// plainSet is what a quoted-string holds as it is, and nearly all of them are made of.
	plainSet = charsetOf(tokenChars + " !#$&()/,:;<=>?@[]^{|}")
)

// holds reports whether s has characters of the set only, at least one.
func (c *charset) holds(s string) bool {
	for i := range len(s) {
		if !c[s[i]] {
			return false
		}
	}
	return s != ""
}

// index returns where the first character of the set stands in s, or len(s).
func (c *charset) index(s string) int {
	for i := range len(s) {
		if c[s[i]] {
			return i
		}
	}
	return len(s)
}

// IsToken reports whether s is a token of RFC 3261 §25.1.
func IsToken(s string) bool { return tokenSet.holds(s) }

func isTid(s string) bool { return tidSet.holds(s) }

func isTpwd(s string) bool {
	body := strings.TrimRight(s, "=")
	return len(s)-len(body) <= 2 && base64Set.holds(body)
}

// isGenValue reports whether s is a gen-value: token, host or quoted-string.
func isGenValue(s string) bool {
	if strings.HasPrefix(s, `"`) {
		_, err := unquote(s)
		return err == nil
	}
	return hostSet.holds(s)
}

// trimLWS trims SP and HTAB, and not what else Unicode calls a space.
func trimLWS(s string) string {
	for s != "" && isLWS(s[0]) {
		s = s[1:]
	}
	for s != "" && isLWS(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isLWS(c byte) bool { return c == ' ' || c == '\t' }

// splitParams splits at ";" outside quotes and refuses an unquoted comma, an open
// quote and control characters.
func splitParams(s string) ([]string, error) {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' && c != '\t' || c == 0x7f:
			return nil, errors.New("control character")
		case quoted && c == '\\':
			i++ // the next byte is checked by unquote
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',':
			return nil, errors.New("comma outside quotes: the header is no list")
		case c == ';':
			parts = append(parts, trimLWS(s[start:i]))
			start = i + 1
		}
	}
	if quoted {
		return nil, errors.New("quote is not closed")
	}
	return append(parts, trimLWS(s[start:])), nil
}

var errQuoted = errors.New("no quoted-string")

// unquote reads a quoted-string (RFC 3261 §25.1), which must be all of s.
func unquote(s string) (string, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' || !utf8.ValidString(s) {
		return "", errQuoted
	}
	body := s[1 : len(s)-1]
	if plainSet.holds(body) || body == "" {
		return body, nil
	}
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		c := body[i]
		if c == '\\' {
			if i++; i == len(body) {
				return "", errQuoted
			}
			c = body[i]
		} else if c == '"' {
			return "", errQuoted
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", errQuoted
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// Quote writes s as a quoted-string (RFC 3261 §25.1). It refuses what one cannot hold:
// control characters and what is not UTF-8.
func Quote(s string) (string, error) {
	b, err := appendQuoted(make([]byte, 0, len(s)+2), s)
	return string(b), err
}

func appendQuoted(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("invalid UTF-8")
	}
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c == 0x7f:
			return nil, errors.New("control character")
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"'), nil
}

func parseDigits(s string, bits int) (int64, error) {
	if !digitSet.holds(s) {
		return 0, errors.New("want digits only")
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, errors.New("out of range")
	}
	return int64(n), nil
}

// parseDeltaSeconds reads delta-seconds, at most 2**32 - 1 (RFC 3261 §20.19).
func parseDeltaSeconds(s string) (time.Duration, error) {
	n, err := parseDigits(s, 32)
	return time.Duration(n) * time.Second, err
}
