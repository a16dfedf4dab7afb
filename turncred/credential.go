package turncred

import (
	"crypto/md5" //nolint:gosec // RFC 8489 §9.2.2 defines the long-term key with MD5; browsers know no other.
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// IMPI is an IMS private user identity (TS 23.003 §13.3), the user name of SIP Digest.
type IMPI string

// Realm is the REALM of the long-term credential mechanism (RFC 8489 §9.2).
type Realm string

// KeyID is a kid: 1*16(ALPHA / DIGIT), the part of a Tid before its first "-".
type KeyID string

// Tid is the temporary user id of TS 33.203 X.5.2.2.
type Tid string

// Subject numbers a user: the first 8 bytes of HMAC-SHA256 over the IMPI. Quota and
// revocation count by it; it cannot be turned back into the IMPI.
type Subject uint64

// String returns 16 hexadecimal digits.
func (s Subject) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// Binding is a short hash of one registered device of a user: its instance and reg-id
// (RFC 5626), or its contact address where it has none. Two devices of one user
// collide once in 65,536, and then share a revocation.
type Binding uint16

// BindingOf hashes what distinguishes one binding of a user from the others.
func BindingOf(instance, regID string) Binding {
	var b [128]byte // what most instances fit into
	h := sha256.Sum256(append(append(append(b[:0], instance...), 0), regID...))
	return Binding(uint16(h[0])<<8 | uint16(h[1]))
}

// IssueTime counts 1/64 s since the Unix epoch, 40 bits wide: good until the year 2514.
type IssueTime uint64

const issueTicksPerSecond = 64

// IssueTimeAt returns the tick that t falls in.
func IssueTimeAt(t time.Time) IssueTime {
	return IssueTime(t.Unix()*issueTicksPerSecond + int64(t.Nanosecond())*issueTicksPerSecond/int64(time.Second))
}

// Time returns the instant at which the tick begins.
func (t IssueTime) Time() time.Time {
	return time.Unix(int64(t/issueTicksPerSecond), int64(t%issueTicksPerSecond)*int64(time.Second)/issueTicksPerSecond)
}

// Identity is what a credential says of its holder to those who share the deployment secret.
type Identity struct {
	Subject Subject // 0: unknown, as of a token that another authorization server made
	Issued  IssueTime
	Binding Binding
}

// Approach names how a credential comes about; the values stand in the SIP header.
type Approach string

// The two approaches that the SIP header carries.
const (
	ApproachSharedKey Approach = "shared-key" // TS 33.203 X.5.2
	ApproachPush      Approach = "push"
)

// ParseApproach returns the approach that s names.
func ParseApproach(s string) (Approach, error) {
	switch a := Approach(s); a {
	case ApproachSharedKey, ApproachPush:
		return a, nil
	}
	return "", fmt.Errorf("unknown TURN approach %q: use %q or %q", s, ApproachSharedKey, ApproachPush)
}

// Credential is one TURN long-term credential, as it goes to a WIC.
type Credential struct {
	Tid      Tid
	Texp     time.Time     // expiry, whole seconds
	TTL      time.Duration // rest of its life at issue; browsers' clocks are wrong, so clients count this down
	Username string        // Tid and Texp in the configured order
	Password Secret
	Realm    Realm
	URIs     []string // RFC 7065, turns first
	Approach Approach
	Identity Identity
}

// UsernameOrder is the order of Tid and Texp in a USERNAME.
type UsernameOrder string

const (
	// Order3GPP is Tid:Texp (TS 33.203 X.5.2.2 step 5).
	Order3GPP UsernameOrder = "3gpp"
	// OrderREST is Texp:Tid, for TURN servers that follow draft-uberti-behave-turn-rest alone.
	OrderREST UsernameOrder = "rest"
)

// Username joins Tid and Texp.
func (o UsernameOrder) Username(tid Tid, texp time.Time) string {
	exp := strconv.FormatInt(texp.Unix(), 10)
	if o == OrderREST {
		return exp + ":" + string(tid)
	}
	return string(tid) + ":" + exp
}

// ErrUsername says that a USERNAME is not of the form Tid:Texp or Texp:Tid.
var ErrUsername = errors.New("turncred: malformed username")

// ParseUsername splits a USERNAME in either order. A Tid has no colon and Texp has
// digits only, so a name with a sign, a space, a second colon or 20 digits and more
// is refused. The error is ErrUsername.
func ParseUsername(name string) (Tid, time.Time, error) {
	left, right, ok := strings.Cut(name, ":")
	if !ok {
		return "", time.Time{}, ErrUsername
	}
	if texp, ok := parseTexp(right); ok && validTid(left) {
		return Tid(left), texp, nil
	}
	if texp, ok := parseTexp(left); ok && validTid(right) {
		return Tid(right), texp, nil
	}
	return "", time.Time{}, ErrUsername
}

func parseTexp(s string) (time.Time, bool) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0), err == nil
}

// LongTermKey holds the keys of RFC 8489 §9.2.2 for one credential: what a relay
// stores instead of the password.
type LongTermKey struct {
	MD5    Secret // 16 bytes, MESSAGE-INTEGRITY
	SHA256 Secret // 32 bytes, MESSAGE-INTEGRITY-SHA256
}

// NewLongTermKey derives the keys from username ":" realm ":" password. Ours are ASCII,
// so OpaqueString processing (RFC 8265) would leave them as they are.
func NewLongTermKey(username string, realm Realm, password Secret) LongTermKey {
	in := append([]byte(username+":"+string(realm)+":"), password.Reveal()...)
	m, s := md5.Sum(in), sha256.Sum256(in) //nolint:gosec // see the import
	return LongTermKey{MD5: NewSecret(m[:]), SHA256: NewSecret(s[:])}
}

// Equal reports whether both hold the same keys, in constant time.
func (k LongTermKey) Equal(o LongTermKey) bool { return k.MD5.Equal(o.MD5) && k.SHA256.Equal(o.SHA256) }
