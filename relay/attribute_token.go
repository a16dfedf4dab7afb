package relay

import "github.com/pion/stun/v3"

// The attributes of RFC 7635 §6, which pion/stun does not name.
const (
	attrAccessToken             stun.AttrType = 0x001B // §6.2: a token, see turncred/token
	attrThirdPartyAuthorization stun.AttrType = 0x802E // §6.1: the server name
)

// accessTokenOf returns the token that a request brings. "The TURN client MUST include the
// ACCESS-TOKEN attribute only in Allocate and Refresh requests" (RFC 7635 §9); elsewhere it
// is unexpected and ignored (RFC 8489 §6.3).
func accessTokenOf(m *stun.Message) ([]byte, bool) {
	if m.Type.Method != stun.MethodAllocate && m.Type.Method != stun.MethodRefresh {
		return nil, false
	}
	v, err := m.Get(attrAccessToken)
	return v, err == nil
}
