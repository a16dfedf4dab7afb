package push

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"epcscf/turncred"
)

// crowd is a Revoker of a relay that takes revocations when so many have come, as a disk syncs
// all that wait.
type crowd struct {
	want int

	mu   sync.Mutex // guards the fields below
	have int
	full chan struct{}
}

func (c *crowd) Revoke(ctx context.Context, _ turncred.Revocation) error {
	c.mu.Lock()
	if c.have++; c.have == c.want {
		close(c.full)
	}
	c.mu.Unlock()
	select {
	case <-c.full:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestRevocationsSettleTogether: many revocations that waited for a relay are one write to its
// disk and one to the edge's. Were each a write of its own, slow disks would take longer than
// the edge waits for an answer, time and again, and the relay would not come back.
func TestRevocationsSettleTogether(t *testing.T) {
	const many = maxItems
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	journal := &memoryJournal{}
	f, _ := startFleet(t, func(c *FleetConfig) { c.Journal = journal }, RelayConfig{Name: "a", Address: down.Addr().String(), URIs: []string{"turn:a"}, Weight: 1})
	for i := range many {
		r := turncred.Revocation{Subject: turncred.Subject(i + 1), IssuedUntil: 1, Until: time.Now().Add(time.Hour)}
		if err := f.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	disk := &crowd{want: many, full: make(chan struct{})}
	w := startRelay(t, func(c *ServerConfig) { c.Revoker = disk })
	serve(t, w.Server, down.Addr().String())
	eventually(t, "the relay is told of all", func() bool { return journal.len() == 0 })
	journal.mu.Lock()
	defer journal.mu.Unlock()
	if journal.done != 1 {
		t.Errorf("%d writes to the journal, want 1", journal.done)
	}
}
