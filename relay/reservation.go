package relay

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"epcscf/turncred"
)

// reservationLife is how long a port is kept for who has its token: "The server MUST hold
// this reservation for at least 30 seconds" (RFC 8656 §7.2).
const reservationLife = 30 * time.Second

// reservationToken is the value of RESERVATION-TOKEN (RFC 8656 §18.9).
type reservationToken [8]byte

// reservationTokenOf decodes RESERVATION-TOKEN.
func reservationTokenOf(v []byte) (t reservationToken, ok bool) {
	return t, len(v) == len(t) && copy(t[:], v) == len(t)
}

// reservation is the socket beside that of an allocation, for another allocation. It counts
// as one for the quota of who made it.
type reservation struct {
	leg   *leg
	owner turncred.Subject
	until time.Time
}

// reservations are those that nobody has come for yet. The server's lock guards them.
type reservations struct {
	byToken map[reservationToken]reservation
	count   map[turncred.Subject]int
}

func newReservations() reservations {
	return reservations{map[reservationToken]reservation{}, map[turncred.Subject]int{}}
}

// add keeps l.
func (v reservations) add(owner turncred.Subject, l *leg, now time.Time) *reservationToken {
	var t reservationToken
	_, _ = rand.Read(t[:]) // crypto/rand does not fail
	v.byToken[t] = reservation{l, owner, now.Add(reservationLife)}
	v.count[owner]++
	return &t
}

// take removes and returns the leg that a token stands for, or nil. "Note that the
// reservation is a server-wide reservation" (RFC 8656 §7.2): a random token is good once,
// for whoever has it.
func (v reservations) take(t reservationToken, now time.Time) *leg {
	r, ok := v.byToken[t]
	if !ok || !now.Before(r.until) {
		return nil
	}
	v.remove(t, r)
	return r.leg
}

func (v reservations) remove(t reservationToken, r reservation) {
	delete(v.byToken, t)
	if v.count[r.owner]--; v.count[r.owner] == 0 {
		delete(v.count, r.owner)
	}
}

// prune closes what nobody came for until now.
func (v reservations) prune(now time.Time) {
	for t, r := range v.byToken {
		if !now.Before(r.until) {
			v.remove(t, r)
			r.leg.close()
		}
	}
}

// errReservation says that a token stands for no reservation.
var errReservation = errors.New("no such reservation")

// maxPairTries bounds the search for two neighbouring ports.
const maxPairTries = 16

// openPair opens a leg on an even port, and one on the next.
func (s *Server) openPair(family byte) (first, next *leg, err error) {
	for range maxPairTries {
		if first, err = s.openLeg(family, true); err != nil {
			return nil, nil, err
		}
		at := netip.AddrPortFrom(first.bound.Addr(), first.bound.Port()+1)
		if at.Port() <= s.cfg.MaxPort && !s.policy.barred(at) {
			if next, err = s.openLegAt(at); err == nil {
				return first, next, nil
			}
		}
		first.close()
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, err
		}
	}
	return nil, nil, errNoPort
}

// takeReserved returns the leg that a token stands for. The error is errReservation.
func (s *Server) takeReserved(t reservationToken, now time.Time) (*leg, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.reserved.take(t, now); l != nil {
		return l, nil
	}
	return nil, errReservation
}
