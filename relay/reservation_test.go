package relay

import (
	"testing"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// pair makes an allocation with the next port reserved, and returns its token.
func (c *rawClient) pair() (port uint16, token stun.RawAttribute) {
	c.t.Helper()
	c.challenge()
	m := c.sign(c.request(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80)))
	res, again := c.do(m), c.do(m)
	wantCode(c.t, res, 0)
	v, err := res.Get(stun.AttrReservationToken)
	if err != nil || len(v) != 8 {
		c.t.Fatalf("RESERVATION-TOKEN %x, %v", v, err)
	}
	if b, _ := again.Get(stun.AttrReservationToken); string(b) != string(v) {
		c.t.Errorf("the answer to a retransmission bears the token %x, want %x", b, v)
	}
	return c.relayed(res).Port(), attr(stun.AttrReservationToken, v...)
}

// RFC 8656 §7.2: the port after an even one is kept for who has the token.
func TestReservation(t *testing.T) {
	clk := newClock()
	w := newWorld(t, func(c *Config) { c.Now, c.MaxAllocationsPerSubject = clk.Now, 3 })
	cred := func(impi turncred.IMPI) turncred.Credential { return w.credential(t, impi, 1) }
	rtp := w.client(t, UDP, cred("alice"))
	port, token := rtp.pair()
	if port%2 != 0 {
		t.Errorf("port %d is not even", port)
	}

	rtcp := w.client(t, TCP, cred("alice"))
	if next := rtcp.allocate(token).Port(); next != port+1 {
		t.Errorf("the reservation gave port %d, want %d", next, port+1)
	}
	late := w.client(t, UDP, cred("alice"))
	late.challenge()
	wantCode(t, late.signed(stun.MethodAllocate, transportUDP, token), stun.CodeInsufficientCapacity) // once only

	// A reservation counts as an allocation, ends after its time, and frees its port.
	wantCode(t, rtcp.signed(stun.MethodRefresh, lifetime(0)), 0)
	another := w.client(t, UDP, cred("alice"))
	_, unused := another.pair()
	wantCode(t, late.signed(stun.MethodAllocate, transportUDP), stun.CodeAllocQuotaReached)
	clk.advance(reservationLife)
	w.sweep(clk.Now())
	wantCode(t, late.signed(stun.MethodAllocate, transportUDP, unused), stun.CodeInsufficientCapacity)
	wantCode(t, late.signed(stun.MethodAllocate, transportUDP), 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reserved.byToken) != 0 || len(w.reserved.count) != 0 {
		t.Errorf("reservations are left: %v", w.reserved)
	}
}
