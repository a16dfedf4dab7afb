package relay

import (
	"encoding/binary"
	"net/netip"

	"github.com/pion/stun/v3"
)

// The address families of RFC 8489 §14.1.
const (
	familyIPv4 = 0x01
	familyIPv6 = 0x02
)

const magicCookie = 0x2112A442

// familyOf returns the family number of ip.
func familyOf(ip netip.Addr) byte {
	if ip.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

// parseXORAddress decodes XOR-PEER-ADDRESS and its kin (RFC 8489 §14.2, RFC 8656 §18.3).
// It reports false unless the length is that of the family. An IPv6 address that encodes
// an IPv4 address stays as it is: its family is what the client said.
func parseXORAddress(v []byte, id [stun.TransactionIDSize]byte) (netip.AddrPort, bool) {
	if len(v) < 4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ magicCookie>>16
	switch {
	case v[1] == familyIPv4 && len(v) == 8:
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], binary.BigEndian.Uint32(v[4:])^magicCookie)
		return netip.AddrPortFrom(netip.AddrFrom4(ip), port), true
	case v[1] == familyIPv6 && len(v) == 20:
		ip := [16]byte(v[4:])
		xorIPv6(&ip, id)
		return netip.AddrPortFrom(netip.AddrFrom16(ip), port), true
	}
	return netip.AddrPort{}, false
}

// appendXORAddress appends the value of an XOR address attribute to b.
func appendXORAddress(b []byte, a netip.AddrPort, id [stun.TransactionIDSize]byte) []byte {
	b = append(b, 0, familyOf(a.Addr()))
	b = binary.BigEndian.AppendUint16(b, a.Port()^magicCookie>>16)
	if a.Addr().Is4() {
		ip := a.Addr().As4()
		return binary.BigEndian.AppendUint32(b, binary.BigEndian.Uint32(ip[:])^magicCookie)
	}
	ip := a.Addr().As16()
	xorIPv6(&ip, id)
	return append(b, ip[:]...)
}

// xorIPv6 XORs ip with the magic cookie and the transaction id (RFC 8489 §14.2).
func xorIPv6(ip *[16]byte, id [stun.TransactionIDSize]byte) {
	binary.BigEndian.PutUint32(ip[:], binary.BigEndian.Uint32(ip[:])^magicCookie)
	for i, x := range id {
		ip[4+i] ^= x
	}
}
