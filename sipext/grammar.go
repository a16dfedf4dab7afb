package sipext

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	alpha  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

// IsToken reports whether s is a token of RFC 3261 §25.1.
func IsToken(s string) bool { return consistsOf(s, alpha+digits+"-.!%*_+`'~") }

func isTid(s string) bool { return consistsOf(s, alpha+digits+"-_") }

func isTpwd(s string) bool {
	body := strings.TrimRight(s, "=")
	return len(s)-len(body) <= 2 && consistsOf(body, alpha+digits+"+/")
}

// consistsOf reports whether s has bytes of set only, at least one.
func consistsOf(s, set string) bool {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// isGenValue reports whether s is a gen-value: token, host or quoted-string.
func isGenValue(s string) bool {
	if strings.HasPrefix(s, `"`) {
		_, err := unquote(s)
		return err == nil
	}
	return consistsOf(s, alpha+digits+"-.!%*_+`'~[]:")
}

// trimLWS trims SP and HTAB, and not what else Unicode calls a space.
func trimLWS(s string) string { return strings.Trim(s, " \t") }

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
	var b strings.Builder
	body := s[1 : len(s)-1]
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

func quote(s string) (string, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("control character or invalid UTF-8")
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`, nil
}

func parseDigits(s string, bits int) (int64, error) {
	if !consistsOf(s, digits) {
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
