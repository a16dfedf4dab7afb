package bearer

import (
	"maps"
	"strings"
	"sync"
	"time"

	"epcscf/turncred"
)

// grantKeyID stands in the Tid of a grant: no key of credentials may have this name.
const grantKeyID = "grant"

// GrantTid is how a grant is named at the credential interface, which carries its revocation
// as that of one credential. It is "" for what is no grant of our WAF.
func GrantTid(grant string) turncred.Tid {
	tid := turncred.Tid(grantKeyID + "-" + grant)
	if tid.KeyID() == "" {
		return ""
	}
	return tid
}

// GrantOf reads it back; it is "" where tid names no grant.
func GrantOf(tid turncred.Tid) string {
	if tid.KeyID() != grantKeyID {
		return ""
	}
	return strings.TrimPrefix(string(tid), grantKeyID+"-")
}

// maxRevocations bounds the set; at 40 bytes each that is a few MiB. Tokens live for
// minutes, so it holds more than a WAF revokes.
const maxRevocations = 100_000

// Revocations are what a WAF told of: tokens that ended before their time. Each entry is
// kept until the token would have expired anyway. A nil Revocations holds none. Safe for
// concurrent use.
type Revocations struct {
	now func() time.Time

	mu    sync.RWMutex // guards until
	until map[string]time.Time
}

// NewRevocations returns an empty set. now is time.Now where it is nil.
func NewRevocations(now func() time.Time) *Revocations {
	if now == nil {
		now = time.Now
	}
	return &Revocations{now: now, until: map[string]time.Time{}}
}

// Revoke ends the tokens of a grant, or the one token of a jti; none of them is good after
// until. It reports whether there was room: where not, the caller should stop to trust
// offline checks.
func (r *Revocations) Revoke(id string, until time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.until) >= maxRevocations {
		now := r.now()
		maps.DeleteFunc(r.until, func(_ string, t time.Time) bool { return now.After(t.Add(Leeway)) })
	}
	if _, there := r.until[id]; !there && len(r.until) >= maxRevocations {
		return false
	}
	if until.After(r.until[id]) {
		r.until[id] = until
	}
	return true
}

func (r *Revocations) hits(c Claims) bool {
	if r == nil {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, token := r.until[c.TokenID]
	_, grant := r.until[c.Grant]
	return token || grant && c.Grant != ""
}
