package relay

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	// challengeBurst is how many seconds' answers a source may have at once: a browser
	// opens a dozen allocations, and many users share an address behind a carrier's NAT.
	challengeBurst = 4
	// maxAmplification is how many bytes an unauthenticated answer on UDP may have for one
	// of its request, whose source may be forged.
	maxAmplification = 8
	// maxNames is how long the realm and the server name of tokens may be together, so that
	// an Allocate with nothing but REQUESTED-TRANSPORT, 28 bytes, has its challenge.
	maxNames = 100
	// strangerSlots is how many sources are told apart. A power of two.
	strangerSlots = 1 << 16
)

// strangers limits the answers to unauthenticated datagrams, by source: an IPv4 address, or
// an IPv6 /64, which one host can be all of. Whoever forges sources makes us send no more
// than that to each.
//
// It is a table of fixed size, one number a slot, so no flood makes it grow and no lock is
// shared. Sources that meet in a slot share its rate; a secret seed decides which, so nobody
// can choose to meet another.
type strangers struct {
	seed  maphash.Seed
	every time.Duration // time that one answer costs
	slots *[strangerSlots]allowance
}

func newStrangers(rate int) *strangers {
	return &strangers{maphash.MakeSeed(), time.Second / time.Duration(rate), new([strangerSlots]allowance)}
}

// admit reports whether a stranger at ip may have an answer, and counts it.
func (s *strangers) admit(ip netip.Addr, now time.Time) bool {
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			ip = p.Addr()
		}
	}
	slot := &s.slots[maphash.Comparable(s.seed, ip)%strangerSlots]
	return slot.take(now, s.every, challengeBurst*time.Second)
}
