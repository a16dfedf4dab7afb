package relay

import (
	"crypto/sha1" //nolint:gosec // RFC 7635 Appendix B shortens a long mac_key with SHA-1.
	"crypto/sha256"
	"encoding/binary"
	"time"

	"epcscf/turncred"
)

// holder is who has proved to know a credential.
type holder struct {
	username string
	key      turncred.LongTermKey
	tid      turncred.Tid
	texp     time.Time
	identity turncred.Identity
	// byToken says that an ACCESS-TOKEN brought the credential (RFC 7635): username is a
	// kid, and key holds the mac_key.
	byToken bool
}

// sameUser reports whether o may use what h has made. RFC 8656 §5 wants the same username;
// with tokens that is a kid, which may change with each Refresh, so the users are compared.
// Of foreign tokens no user is known. There the five-tuple must do, on which whoever sends
// has had a nonce.
func (h *holder) sameUser(o *holder) bool {
	if h.byToken && o.byToken {
		return h.identity.Subject == o.identity.Subject
	}
	return h.byToken == o.byToken && h.username == o.username
}

// owner is whom the quota counts: the user, or, where nobody knows him, the credential.
func (h *holder) owner() turncred.Subject {
	if h.identity.Subject != 0 {
		return h.identity.Subject
	}
	sum := sha256.Sum256([]byte(h.tid))
	return turncred.Subject(binary.BigEndian.Uint64(sum[:]))
}

// shortMACKey is how much of a mac_key coturn's client signs with.
const shortMACKey = 16

// keys returns the keys with any of which h may sign. An algorithm says how a password
// becomes a key; a mac_key is one already.
func (h *holder) keys(i *integrity, a passwordAlgorithm) [][]byte {
	switch {
	case !h.byToken && a == algorithmSHA256:
		return [][]byte{h.key.SHA256.Reveal()}
	case !h.byToken:
		return [][]byte{h.key.MD5.Reveal()}
	}
	mac := h.key.MD5.Reveal()
	keys := [][]byte{mac}
	if i == integritySHA1 && len(mac) > sha1.Size { // RFC 7635 Appendix B
		short := sha1.Sum(mac) //nolint:gosec // see the import
		keys = append(keys, short[:])
	}
	if i == integritySHA1 && len(mac) > shortMACKey {
		keys = append(keys, mac[:shortMACKey])
	}
	return keys
}
