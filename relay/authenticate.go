package relay

import (
	"crypto/rand"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// The longest values that RFC 8489 allows, in bytes.
const (
	maxUsernameLen = 508 // §14.3: fewer than 509 bytes
	maxRealmLen    = 763 // §14.9: at most 763 bytes
	maxSoftwareLen = 763 // §14.14
)

// newDummyKey makes the key against which requests of unknown users are checked.
func newDummyKey() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand does not fail
	return b
}

// authenticate makes the checks of RFC 8489 §9.2.4 in their order. A wrong password, an
// unknown user, an expired and a revoked credential get the same bytes, so nobody learns
// which usernames exist.
func (w *worker) authenticate(r *request) *refusal {
	// "If the message does not contain a MESSAGE-INTEGRITY ..." That of SHA-256 alone does
	// not count, since we never offer PASSWORD-ALGORITHMS.
	if !r.msg.Contains(stun.AttrMessageIntegrity) {
		return challenge("no MESSAGE-INTEGRITY")
	}

	// "... but is missing either the USERNAME or USERHASH, REALM, or NONCE attribute"
	username, noUser := r.msg.Get(stun.AttrUsername)
	realm, noRealm := r.msg.Get(stun.AttrRealm)
	nonce, noNonce := r.msg.Get(stun.AttrNonce)
	if noUser != nil || noRealm != nil || noNonce != nil {
		return refuse(stun.CodeBadRequest, "MESSAGE-INTEGRITY without USERNAME, REALM or NONCE")
	}

	// "If the value of the USERNAME ... is not valid" and "If the resulting value does not
	// match": one answer. An unknown user's request is checked too, with a key nobody has.
	h, identify, unknown := w.holderOf(r, string(username), string(realm))
	key := h.key.MD5.Reveal()
	if unknown != "" {
		key = w.s.dummyKey
	}
	if err := stun.MessageIntegrity(key).Check(r.msg); err != nil && unknown == "" {
		unknown = "wrong password"
	}
	if unknown != "" {
		return challenge(unknown)
	}

	// From here on the username is its holder's, so who that is may be read.
	if identify != nil {
		if no := w.checkCredential(r, &h, identify); no != nil {
			return no
		}
	}
	r.holder, r.key = h, key

	// "If the NONCE is no longer valid": after the password, so that 438 tells nobody
	// anything. Signed, as the RFC allows.
	if !w.s.nonces.valid(nonce, r.five, r.now) {
		return &refusal{code: stun.CodeStaleNonce, cause: "nonce is old or another's", challenge: true}
	}
	return nil
}

// holderOf returns what the user of a request must know. An allocation keeps its own key,
// so a request on its five-tuple needs no lookup, and the credential may be gone from where
// it came. For anyone else identify is set, to be called when MESSAGE-INTEGRITY has held.
func (w *worker) holderOf(r *request, username, realm string) (h holder, identify func() (turncred.Identity, error), unknown string) {
	if realm != string(w.s.cfg.Realm) {
		return holder{}, nil, "another realm"
	}
	if r.alloc != nil && r.alloc.holder.username == username {
		return r.alloc.holder, nil, ""
	}
	if len(username) > maxUsernameLen {
		return holder{}, nil, "username too long"
	}
	p, err := w.s.cfg.Auth.Authenticate(username, r.now)
	if err != nil {
		return holder{}, nil, "unknown user"
	}
	return holder{username: username, key: p.Key, tid: p.Tid, texp: p.Texp}, p.Identify, ""
}

// checkCredential reads the holder's identity and refuses credentials that are good no
// more. Expiry is strict here: what may outlive a credential is a live allocation only.
func (w *worker) checkCredential(r *request, h *holder, identify func() (turncred.Identity, error)) *refusal {
	if !r.now.Before(h.texp) {
		return challenge("credential expired")
	}
	id, err := identify()
	if err != nil {
		return challenge("credential without an identity")
	}
	h.identity = id
	if w.s.revokedNow(*h) {
		return challenge("credential revoked")
	}
	return nil
}
