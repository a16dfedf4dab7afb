package sipext

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Param is a header or Via parameter as written, quotes included.
type Param struct{ Name, Value string }

// Params are parameters in order.
type Params []Param

// Get returns the value of a parameter without its quotes; names compare without case.
func (p Params) Get(name string) (string, bool) {
	for _, q := range p {
		if strings.EqualFold(q.Name, name) {
			return q.text(), true
		}
	}
	return "", false
}

// text is the value without its quotes.
func (p Param) text() string {
	if v, err := unquote(p.Value); err == nil {
		return v
	}
	return p.Value
}

func (p Params) has(name string) bool {
	return slices.ContainsFunc(p, func(q Param) bool { return strings.EqualFold(q.Name, name) })
}

// Address is a name-addr, or an addr-spec with header parameters (RFC 3261 §20.10).
type Address struct {
	Display string // as written, quotes included
	URI     string
	Params  Params
	// Bracketed says that the URI stood in "<" and ">".
	Bracketed bool
}

// String writes the address without optional white space.
func (a Address) String() string {
	var b strings.Builder
	if a.Display != "" {
		b.WriteString(a.Display + " ")
	}
	if a.Bracketed {
		b.WriteString("<" + a.URI + ">")
	} else {
		b.WriteString(a.URI)
	}
	for _, p := range a.Params {
		b.WriteString(";" + p.Name)
		if p.Value != "" {
			b.WriteString("=" + p.Value)
		}
	}
	return b.String()
}

var errAddress = errors.New("malformed address")

// ParseAddress reads one address, which must be all of s.
func ParseAddress(s string) (Address, error) {
	a, rest, err := cutAddress(s)
	if err == nil {
		a.Params, err = parseParams(rest)
	}
	return a, err
}

// AddressParam returns a parameter of an address without its quotes, and false where there
// is none or s is no address.
func AddressParam(s, name string) (value string, ok bool) {
	_, rest, err := cutAddress(s)
	if err != nil {
		return "", false
	}
	for p, err := range params(rest) {
		if err != nil {
			break
		}
		if strings.EqualFold(p.Name, name) {
			return p.text(), true
		}
	}
	return "", false
}

// cutAddress reads the address that s begins with, but for the parameters, which are the
// rest.
func cutAddress(s string) (a Address, rest string, err error) {
	s = trimLWS(s)
	rest = s
	if strings.HasPrefix(s, `"`) {
		n := quotedLen(s)
		if n < 0 {
			return a, "", fmt.Errorf("%w: quote is not closed", errAddress)
		}
		a.Display, rest = s[:n], trimLWS(s[n:])
		if !strings.HasPrefix(rest, "<") {
			return a, "", fmt.Errorf("%w: no <URI> after the display name", errAddress)
		}
	} else if i := strings.IndexByte(s, '<'); i >= 0 && strings.IndexByte(s[:i], ';') < 0 {
		// display-name = *(token LWS) / quoted-string: anything else must be quoted.
		for word := range strings.FieldsSeq(s[:i]) {
			if !IsToken(word) {
				return a, "", fmt.Errorf("%w: the display name needs quotes", errAddress)
			}
		}
		a.Display, rest = trimLWS(s[:i]), s[i:]
	}
	if strings.HasPrefix(rest, "<") {
		i := strings.IndexByte(rest, '>')
		if i < 0 {
			return a, "", fmt.Errorf("%w: no closing bracket", errAddress)
		}
		a.URI, a.Bracketed, rest = rest[1:i], true, rest[i+1:]
	} else {
		i := strings.IndexByte(rest, ';')
		if i < 0 {
			i = len(rest)
		}
		a.URI, rest = trimLWS(rest[:i]), rest[i:]
		// RFC 3261 §20.10: a URI with a comma, semicolon or question mark must stand in brackets.
		if strings.ContainsAny(a.URI, ",?") && a.URI != "*" {
			return a, "", fmt.Errorf("%w: the URI must stand in brackets", errAddress)
		}
	}
	if a.URI != "*" && !isURI(a.URI) {
		return a, "", fmt.Errorf("%w: no URI", errAddress)
	}
	return a, rest, nil
}

// isURI checks the scheme and that no delimiter of a header stands inside.
func isURI(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	return ok && rest != "" && isScheme(scheme) && notInURISet.index(rest) == len(rest)
}

// isScheme checks RFC 3986 §3.1: ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ).
func isScheme(s string) bool {
	return schemeSet.holds(s) && strings.IndexByte(alpha, s[0]) >= 0
}

// parseParams reads *( SEMI name [ EQUAL value ] ), which must be all of s.
func parseParams(s string) (Params, error) {
	if s = trimLWS(s); s == "" {
		return nil, nil
	}
	ps := make(Params, 0, strings.Count(s, ";"))
	for p, err := range params(s) {
		if err != nil {
			return ps, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// params yields what parseParams reads, and ends with the first error.
func params(s string) iter.Seq2[Param, error] {
	return func(yield func(Param, error) bool) {
		for s = trimLWS(s); s != ""; {
			if s[0] != ';' {
				yield(Param{}, fmt.Errorf("%w: parameters are separated by semicolons", errAddress))
				return
			}
			p, rest, err := cutParam(s[1:])
			if !yield(p, err) || err != nil {
				return
			}
			s = rest
		}
	}
}

// cutParam reads the name [ EQUAL value ] that s begins with; rest begins with what
// follows, without white space.
func cutParam(s string) (p Param, rest string, err error) {
	s = trimLWS(s)
	n := nameEndSet.index(s)
	p.Name = s[:n]
	if !IsToken(p.Name) {
		return p, "", fmt.Errorf("%w: a parameter's name is no token", errAddress)
	}
	s = trimLWS(s[n:])
	if strings.HasPrefix(s, "=") {
		s = trimLWS(s[1:])
		if n = valueLen(s); n <= 0 {
			return p, "", fmt.Errorf("%w: parameter without a value after the equals sign", errAddress)
		}
		p.Value, s = s[:n], trimLWS(s[n:])
	}
	return p, s, nil
}

var errAuthParams = errors.New("malformed auth-params")

// ParseAuthParams reads auth-param *( COMMA auth-param ) (RFC 3261 §25.1), which must be
// all of s. A parameter that is repeated is refused: one reader takes the first, the next
// the last.
func ParseAuthParams(s string) (Params, error) {
	ps := make(Params, 0, strings.Count(s, ",")+1)
	for {
		p, rest, err := cutParam(s)
		if err != nil || p.Value == "" {
			return ps, errAuthParams
		}
		if ps.has(p.Name) {
			return ps, fmt.Errorf("%w: %s is repeated", errAuthParams, p.Name)
		}
		ps = append(ps, p)
		switch {
		case rest == "":
			return ps, nil
		case rest[0] != ',':
			return ps, errAuthParams
		}
		s = rest[1:]
	}
}

// valueLen returns the length of the gen-value that s begins with, or -1.
func valueLen(s string) int {
	if strings.HasPrefix(s, `"`) {
		return quotedLen(s)
	}
	return valueEndSet.index(s)
}

// quotedLen returns the length of the quoted-string that s begins with, or -1.
func quotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// SplitList splits a header value at the commas outside quotes and brackets.
func SplitList(s string) []string { return slices.Collect(ListElements(s)) }

// ListElements yields what SplitList returns.
func ListElements(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, bracket := 0, false
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '"' && !bracket:
				n := quotedLen(s[i:])
				if n < 0 {
					i = len(s)
					break
				}
				i += n - 1
			case c == '<':
				bracket = true
			case c == '>':
				bracket = false
			case c == ',' && !bracket:
				if !yield(trimLWS(s[start:i])) {
					return
				}
				start = i + 1
			}
		}
		yield(trimLWS(s[start:]))
	}
}

// Addresses returns the addresses of a header field over all its rows; malformed ones
// are left out.
func Addresses(m HeaderFields, name string) []Address {
	var all []Address
	for _, h := range Rows(m, name) {
		for _, e := range SplitList(h.Value()) {
			if a, err := ParseAddress(e); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}
