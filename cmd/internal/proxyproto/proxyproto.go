// Package proxyproto reads the PROXY protocol, version 2, by which a balancer says whose
// connection it passes on (haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2):
//
//	0            12       13        14      16
//	+------------+--------+---------+-------+---------------------------+----------+
//	| signature  | 2 | cmd| AF | tr | length| source, dest addr + ports | TLVs ... |
//	+------------+--------+---------+-------+---------------------------+----------+
//
// It takes less than the protocol allows: version 2 only, TCP over IPv4 or IPv6 only, and
// only from peers that are listed. A listed peer must greet; from anybody else a greeting
// is bytes like others, which no TLS server takes for a handshake. That a claim of another
// address cannot be made by strangers is all that keeps limits by address worth anything.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
)

// signature begins every header of version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	headerLen = 16
	// maxRest bounds addresses and TLVs: those that balancers send are below 600 bytes,
	// a client certificate's name and a link's id included.
	maxRest = 4096

	commandLocal = 0x20 // the balancer speaks for itself, as in a health check
	commandProxy = 0x21

	familyTCP4 = 0x11
	familyTCP6 = 0x21

	typeCRC32C = 0x03
)

// ErrMalformed says that a listed peer did not greet as it must.
var ErrMalformed = errors.New("proxyproto: malformed header")

// Read reads one header from r, and nothing beyond it. The source is the zero AddrPort
// where the balancer speaks for itself. The error is, or wraps, ErrMalformed, or is r's.
func Read(r io.Reader) (source netip.AddrPort, err error) {
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return source, err
	}
	if string(head[:12]) != signature {
		return source, fmt.Errorf("%w: no signature of version 2", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(head[14:]))
	if n > maxRest {
		return source, fmt.Errorf("%w: %d bytes after the header, want %d or fewer", ErrMalformed, n, maxRest)
	}
	all := append(head, make([]byte, n)...)
	if _, err := io.ReadFull(r, all[headerLen:]); err != nil {
		return source, err
	}
	rest := all[headerLen:]
	switch head[12] {
	case commandLocal: // "the receiver must discard the protocol block"
		return source, nil
	case commandProxy:
	default:
		return source, fmt.Errorf("%w: version and command %#x", ErrMalformed, head[12])
	}
	addrLen := map[byte]int{familyTCP4: net.IPv4len, familyTCP6: net.IPv6len}[head[13]]
	if addrLen == 0 {
		return source, fmt.Errorf("%w: family and transport %#x, want TCP over IPv4 or IPv6", ErrMalformed, head[13])
	}
	if len(rest) < 2*addrLen+4 {
		return source, fmt.Errorf("%w: %d bytes are no two addresses", ErrMalformed, len(rest))
	}
	ip, _ := netip.AddrFromSlice(rest[:addrLen])
	source = netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(rest[2*addrLen:]))
	if ip.IsUnspecified() || ip.IsMulticast() || source.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: source %v is nobody's", ErrMalformed, source)
	}
	if err := checkTLVs(all, headerLen+2*addrLen+4); err != nil {
		return netip.AddrPort{}, err
	}
	return source, nil
}

// checkTLVs sees that what follows the addresses is whole, and holds the checksum, where
// there is one, against the header with a checksum of zero (section 2.2.4).
func checkTLVs(all []byte, at int) error {
	summed := false
	for at < len(all) {
		if len(all)-at < 3 {
			return fmt.Errorf("%w: a TLV is cut short", ErrMalformed)
		}
		kind, n := all[at], int(binary.BigEndian.Uint16(all[at+1:]))
		if at += 3; n > len(all)-at {
			return fmt.Errorf("%w: a TLV is cut short", ErrMalformed)
		}
		if kind == typeCRC32C {
			if n != 4 || summed {
				return fmt.Errorf("%w: a checksum of %d bytes, or a second one", ErrMalformed, n)
			}
			summed = true
			got := binary.BigEndian.Uint32(all[at:])
			clear(all[at : at+4])
			if want := crc32.Checksum(all, crc32.MakeTable(crc32.Castagnoli)); got != want {
				return fmt.Errorf("%w: checksum %#x, want %#x", ErrMalformed, got, want)
			}
		}
		at += n
	}
	return nil
}
