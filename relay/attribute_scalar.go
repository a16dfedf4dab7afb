package relay

import (
	"encoding/binary"
	"time"

	"github.com/pion/stun/v3"
)

// Attributes of RFC 8656 that pion/stun does not name.
const (
	attrAdditionalAddressFamily stun.AttrType = 0x8000 // §18.11
	attrAddressErrorCode        stun.AttrType = 0x8001 // §18.12
)

// protocolUDP is the only value of REQUESTED-TRANSPORT that we relay (RFC 8656 §18.8).
const protocolUDP = 17

// lifetimeOf decodes LIFETIME, whole seconds (RFC 8656 §18.2).
func lifetimeOf(v []byte) (time.Duration, bool) {
	if len(v) != 4 {
		return 0, false
	}
	return time.Duration(binary.BigEndian.Uint32(v)) * time.Second, true
}

func lifetimeValue(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
}

// channelNumberOf decodes CHANNEL-NUMBER (RFC 8656 §18.1); its last two bytes are reserved.
func channelNumberOf(v []byte) (uint16, bool) {
	if len(v) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint16(v), true
}

// firstByteOf decodes the attributes of four bytes of which only the first counts:
// REQUESTED-TRANSPORT, REQUESTED-ADDRESS-FAMILY, ADDITIONAL-ADDRESS-FAMILY
// (RFC 8656 §18.6, §18.8, §18.11).
func firstByteOf(v []byte) (byte, bool) {
	if len(v) != 4 {
		return 0, false
	}
	return v[0], true
}

// evenPortOf decodes EVEN-PORT (RFC 8656 §18.7); the bit R asks to reserve the next port.
func evenPortOf(v []byte) (reserve, ok bool) {
	if len(v) != 1 {
		return false, false
	}
	return v[0]&0x80 != 0, true
}
