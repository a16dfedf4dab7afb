package relay

import (
	"encoding/binary"

	"github.com/pion/stun/v3"
)

// understood are the comprehension-required attributes that we know, those that we ignore
// where they are unexpected included (RFC 8489 §6.3). DONT-FRAGMENT is one of them where our
// sockets can set DF (RFC 8656 §7.2, step 4).
var understood = map[stun.AttrType]bool{
	stun.AttrMappedAddress: true, stun.AttrUsername: true, stun.AttrMessageIntegrity: true,
	stun.AttrErrorCode: true, stun.AttrUnknownAttributes: true, stun.AttrRealm: true,
	stun.AttrNonce: true, stun.AttrXORMappedAddress: true,
	stun.AttrMessageIntegritySHA256: true, stun.AttrPasswordAlgorithm: true,
	stun.AttrUserhash:      true,
	stun.AttrChannelNumber: true, stun.AttrLifetime: true, stun.AttrXORPeerAddress: true,
	stun.AttrData: true, stun.AttrXORRelayedAddress: true, stun.AttrEvenPort: true,
	stun.AttrRequestedTransport: true, stun.AttrRequestedAddressFamily: true,
	stun.AttrReservationToken: true, stun.AttrDontFragment: true,
}

// unknownIn returns the comprehension-required attributes of m that we do not know. tokens
// says whether ACCESS-TOKEN is known.
func unknownIn(m *stun.Message, tokens bool) []stun.AttrType {
	var unknown []stun.AttrType
	for _, a := range m.Attributes {
		if a.Type.Required() && !understood[a.Type] && !(tokens && a.Type == attrAccessToken) {
			unknown = append(unknown, a.Type)
		}
	}
	return unknown
}

// unknownValue encodes UNKNOWN-ATTRIBUTES (RFC 8489 §14.13).
func unknownValue(types []stun.AttrType) []byte {
	b := make([]byte, 0, 2*len(types))
	for _, t := range types {
		b = binary.BigEndian.AppendUint16(b, t.Value())
	}
	return b
}
