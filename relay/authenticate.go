package relay

import (
	"crypto/rand"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// The longest values that RFC 8489 allows, in bytes.
const (
	maxUsernameLen = 508 // §14.3: fewer than 509 bytes
	maxSoftwareLen = 763 // §14.14
)

// newDummyKey makes the key against which requests of unknown users are checked.
func newDummyKey() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand does not fail
	return b
}

// claim is what a request says of its sender, and what he must know if it is true.
type claim struct {
	holder holder
	// identify is set for a credential that is new to the allocation, and to be called
	// when MESSAGE-INTEGRITY has held.
	identify func() (turncred.Identity, error)
	unknown  string // why nobody can be meant
}

// authenticate makes the checks of RFC 8489 §9.2.4 in their order, and those of RFC 7635 §7
// among them. A wrong password, an unknown user, an expired and a revoked credential get
// the same bytes, so nobody learns which usernames exist.
func (w *worker) authenticate(r *request) *refusal {
	// "If the message does not contain a MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256
	// attribute"
	signed := integrityOf(r.msg)
	if signed == nil {
		return challenge("no MESSAGE-INTEGRITY")
	}

	// "... but is missing either the USERNAME or USERHASH, REALM, or NONCE attribute".
	// RFC 7635 knows no realm.
	token, byToken := w.accessToken(r)
	onToken := byToken || r.alloc != nil && r.alloc.who().byToken
	if !r.msg.Contains(stun.AttrUsername) || !r.msg.Contains(stun.AttrNonce) || !onToken && !r.msg.Contains(stun.AttrRealm) {
		return refuse(stun.CodeBadRequest, "MESSAGE-INTEGRITY without USERNAME, REALM or NONCE")
	}

	// "If the value of the USERNAME ... is not valid" and "If the resulting value does not
	// match": one answer. An unknown user's request is checked too, with a key nobody has.
	c := w.claimOf(r, token, byToken)
	keys := [][]byte{w.s.dummyKey}
	if c.unknown == "" {
		keys = c.holder.keys(signed)
	}
	var key []byte
	for _, k := range keys {
		if signed.holds(r.msg, k) {
			key = k
			break
		}
	}
	if key == nil && c.unknown == "" {
		c.unknown = "wrong password"
	}
	if c.unknown != "" {
		return challenge(c.unknown)
	}

	// From here on the username is its holder's, so who that is may be read.
	if c.identify != nil {
		if no := w.checkCredential(r, &c); no != nil {
			return no
		}
	}
	r.holder, r.key, r.signed = c.holder, key, signed

	// "If the NONCE is no longer valid": after the password, so that 438 tells nobody
	// anything. Signed, as the RFC allows.
	if nonce, _ := r.msg.Get(stun.AttrNonce); !w.s.nonces.valid(nonce, r.five, r.now) {
		return &refusal{code: stun.CodeStaleNonce, cause: "nonce is old or another's", challenge: true}
	}
	return nil
}

// claimOf returns whom a request's USERNAME and ACCESS-TOKEN name. An allocation keeps its
// own key, so a request on its five-tuple needs no lookup, and the credential may be gone
// from where it came.
func (w *worker) claimOf(r *request, token []byte, byToken bool) claim {
	username, _ := r.msg.Get(stun.AttrUsername)
	name := string(username)
	if realm, err := r.msg.Get(stun.AttrRealm); err == nil && string(realm) != string(w.s.cfg.Realm) {
		return claim{unknown: "another realm"}
	}
	if byToken {
		return w.claimByToken(r, name, token)
	}
	if r.alloc != nil && r.alloc.who().username == name {
		return claim{holder: *r.alloc.who()}
	}
	if len(name) > maxUsernameLen {
		return claim{unknown: "username too long"}
	}
	p, err := w.s.cfg.Auth.Authenticate(name, r.now)
	if err != nil {
		return claim{unknown: "unknown user"}
	}
	return claim{holder: holder{username: name, key: p.Key, tid: p.Tid, texp: p.Texp}, identify: p.Identify}
}

// claimByToken opens an ACCESS-TOKEN (RFC 7635 §7). The token of the allocation itself is
// no new credential: who holds it is known, and that it lives says that it is not revoked.
func (w *worker) claimByToken(r *request, kid string, token []byte) claim {
	p, err := w.s.cfg.Tokens.AuthenticateToken(kid, token, r.now)
	if err != nil {
		return claim{unknown: err.Error()}
	}
	h := holder{username: kid, key: p.Key, tid: p.Tid, texp: p.Texp, byToken: true}
	if r.alloc != nil && r.alloc.who().byToken && r.alloc.who().tid == h.tid {
		h.identity = r.alloc.who().identity
		return claim{holder: h}
	}
	return claim{holder: h, identify: p.Identify}
}

// accessToken returns the token of a request, where tokens are on.
func (w *worker) accessToken(r *request) ([]byte, bool) {
	if w.s.cfg.Tokens == nil {
		return nil, false
	}
	return accessTokenOf(r.msg)
}

// checkCredential reads the holder's identity and refuses credentials that are good no
// more. Expiry is strict here: what may outlive a credential is a live allocation only.
func (w *worker) checkCredential(r *request, c *claim) *refusal {
	if !r.now.Before(c.holder.texp) {
		return challenge("credential expired")
	}
	id, err := c.identify()
	if err != nil {
		return challenge("credential without an identity")
	}
	c.holder.identity = id
	if w.s.revokedNow(&c.holder) {
		return challenge("credential revoked")
	}
	return nil
}
