package sipext

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// TurnCredHeader is the header field that asks for and carries a TURN credential
// (TS 33.203 X.5.2.2 step 2).
const TurnCredHeader = "3gpp-ext-turn-cred"

// OptionTag is the special tag: in Supported it asks for a credential as the header
// does. It is private, since a registered one needs a standard, and never forwarded.
const OptionTag = "3gpp-ext-turn-cred"

// Kind tells the three forms of the header apart.
type Kind string

// The forms of the header.
const (
	KindRequest     Kind = "request"
	KindCredential  Kind = "credential"
	KindUnavailable Kind = "unavailable"
)

// TurnCred is the value of a 3gpp-ext-turn-cred header. Tpwd is secret: String,
// Format and LogValue leave it out, only Value prints it.
type TurnCred struct {
	Kind Kind

	Tid  string // with KindCredential
	Texp int64  // with KindCredential: Unix seconds
	Tpwd string // with KindCredential: base64

	Username   string // literal USERNAME for TURN; "" where not given
	Realm      string
	URIs       []string // RFC 7065
	TTL        time.Duration
	RetryAfter time.Duration
	Approach   string
	Reason     string
}

// ErrTurnCred is what every refusal of a header value wraps.
var ErrTurnCred = errors.New("malformed " + TurnCredHeader)

// String describes c without its password.
func (c TurnCred) String() string {
	if c.Kind != KindCredential {
		return strings.TrimSuffix(string(c.Kind)+" "+c.Reason, " ")
	}
	return c.Tid + ":" + strconv.FormatInt(c.Texp, 10) + ":REDACTED"
}

// Format writes String for every verb.
func (c TurnCred) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue returns String.
func (c TurnCred) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Value prints c by the grammar. It refuses what the grammar cannot carry, so no
// field can end the header line. The error wraps ErrTurnCred.
func (c TurnCred) Value() (string, error) {
	b := make([]byte, 0, 512)
	switch c.Kind {
	case KindRequest, KindUnavailable:
		b = append(b, c.Kind...)
	case KindCredential:
		if !isTid(c.Tid) || c.Texp <= 0 || !isTpwd(c.Tpwd) {
			return "", fmt.Errorf("%w: Tid, Texp or Tpwd is outside the grammar", ErrTurnCred)
		}
		b = strconv.AppendInt(append(append(b, c.Tid...), ':'), c.Texp, 10)
		b = append(append(b, ':'), c.Tpwd...)
	default:
		return "", fmt.Errorf("%w: unknown kind %q", ErrTurnCred, string(c.Kind))
	}
	for _, p := range [...]struct{ name, value string }{
		{"username", c.Username}, {"realm", c.Realm}, {"uris", strings.Join(c.URIs, " ")},
	} {
		if p.value == "" {
			continue
		}
		var err error
		if b, err = appendQuoted(appendParam(b, p.name), p.value); err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrTurnCred, p.name, err)
		}
	}
	for _, p := range [...]struct {
		name  string
		value time.Duration
	}{{"ttl", c.TTL}, {"retry-after", c.RetryAfter}} {
		if p.value > 0 {
			b = strconv.AppendInt(appendParam(b, p.name), int64(p.value/time.Second), 10)
		}
	}
	for _, p := range [...]struct{ name, value string }{{"approach", c.Approach}, {"reason", c.Reason}} {
		if p.value == "" {
			continue
		}
		if !IsToken(p.value) {
			return "", fmt.Errorf("%w: %s is no token", ErrTurnCred, p.name)
		}
		b = append(appendParam(b, p.name), p.value...)
	}
	return string(b), nil
}

func appendParam(b []byte, name string) []byte { return append(append(append(b, ';'), name...), '=') }

// ParseTurnCred reads a header value strictly. The error wraps ErrTurnCred and does
// not repeat the value, which may hold a password.
func ParseTurnCred(value string) (TurnCred, error) {
	parts, err := splitParams(value)
	if err != nil {
		return TurnCred{}, fmt.Errorf("%w: %w", ErrTurnCred, err)
	}
	var c TurnCred
	if err := c.parseHead(parts[0]); err != nil {
		return TurnCred{}, fmt.Errorf("%w: %w", ErrTurnCred, err)
	}
	seen := map[string]bool{}
	for _, p := range parts[1:] {
		name, val, hasValue := strings.Cut(p, "=")
		name, val = strings.ToLower(trimLWS(name)), trimLWS(val)
		if !IsToken(name) {
			return TurnCred{}, fmt.Errorf("%w: a parameter's name is no token", ErrTurnCred)
		}
		if seen[name] {
			return TurnCred{}, fmt.Errorf("%w: parameter %s is repeated", ErrTurnCred, name)
		}
		seen[name] = true
		if err := c.setParam(name, val, hasValue); err != nil {
			return TurnCred{}, fmt.Errorf("%w: parameter %s: %w", ErrTurnCred, name, err)
		}
	}
	return c, nil
}

func (c *TurnCred) parseHead(head string) error {
	switch strings.ToLower(head) {
	case string(KindRequest):
		c.Kind = KindRequest
		return nil
	case string(KindUnavailable):
		c.Kind = KindUnavailable
		return nil
	}
	f := strings.Split(head, ":")
	if len(f) != 3 {
		return errors.New(`want "request", "unavailable" or Tid:Texp:Tpwd`)
	}
	c.Kind, c.Tid, c.Tpwd = KindCredential, trimLWS(f[0]), trimLWS(f[2])
	var err error
	if c.Texp, err = parseDigits(trimLWS(f[1]), 63); err != nil {
		return fmt.Errorf("Texp: %w", err)
	}
	if !isTid(c.Tid) {
		return errors.New("Tid is outside the grammar")
	}
	if !isTpwd(c.Tpwd) {
		return errors.New("Tpwd is not base64")
	}
	return nil
}

func (c *TurnCred) setParam(name, val string, hasValue bool) (err error) {
	switch name {
	case "username":
		c.Username, err = unquote(val)
	case "realm":
		c.Realm, err = unquote(val)
	case "uris":
		var s string
		s, err = unquote(val)
		c.URIs = strings.Fields(s)
	case "ttl":
		c.TTL, err = parseDeltaSeconds(val)
	case "retry-after":
		c.RetryAfter, err = parseDeltaSeconds(val)
	case "approach":
		if c.Approach = strings.ToLower(val); c.Approach != "shared-key" && c.Approach != "push" {
			err = errors.New(`want "shared-key" or "push"`)
		}
	case "reason":
		if c.Reason = val; !IsToken(val) {
			err = errors.New("no token")
		}
	default: // generic-param = token [ EQUAL gen-value ] (RFC 3261 §25.1)
		if hasValue && !isGenValue(val) {
			err = errors.New("neither token, host nor quoted-string")
		}
	}
	return err
}

// TurnCredWanted reports whether a request asks for a credential, by header or by
// option tag. A WIC that sends a credential of its own choice asks for one too; what
// it sent is ignored. A repeated or malformed header is an error that wraps ErrTurnCred.
func TurnCredWanted(req *sip.Request) (bool, error) {
	c, ok, err := TurnCredOf(req)
	return wanted(c, ok || hasOptionTag(req, OptionTag), err)
}

// TurnCredWanted is TurnCredWanted of a scanned request.
func (m *Message) TurnCredWanted() (bool, error) {
	c, ok, err := turnCredOf(slices.Collect(m.Rows(TurnCredField)))
	for i := range m.Fields {
		switch f := &m.Fields[i]; f.ID {
		case Supported, Require, ProxyRequire:
			ok = ok || WithoutOptionTags(f.Value, OptionTag) != f.Value
		}
	}
	return wanted(c, ok, err)
}

func wanted(c TurnCred, asked bool, err error) (bool, error) {
	if err == nil && c.Kind == KindUnavailable {
		err = fmt.Errorf("%w: a request cannot say unavailable", ErrTurnCred)
	}
	return asked && err == nil, err
}

// TurnCredOf returns the header of a message, if it has one. The error wraps ErrTurnCred.
func TurnCredOf(m HeaderFields) (c TurnCred, ok bool, err error) {
	var rows []string
	for _, h := range Rows(m, TurnCredHeader) {
		rows = append(rows, h.Value())
	}
	return turnCredOf(rows)
}

func turnCredOf(rows []string) (c TurnCred, ok bool, err error) {
	switch len(rows) {
	case 0:
		return TurnCred{}, false, nil
	case 1:
		c, err = ParseTurnCred(rows[0])
		return c, err == nil, err
	}
	return TurnCred{}, false, fmt.Errorf("%w: %d rows, want one", ErrTurnCred, len(rows))
}
