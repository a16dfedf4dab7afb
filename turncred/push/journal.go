package push

import (
	"context"
	"time"

	"epcscf/turncred"
)

// Journal is where an edge keeps the revocations that it could not deliver, through a
// restart. It is safe for concurrent use.
type Journal interface {
	// Add returns when r, for a relay, is on disk.
	Add(ctx context.Context, relay string, r turncred.Revocation) (id uint64, err error)
	// Done forgets what has been delivered, or matters no more, all of it with one write to the
	// disk: a relay that comes back is waited for until that is done.
	Done(ctx context.Context, ids ...uint64) error
	// Pending calls f with what is not done, in any order.
	Pending(ctx context.Context, f func(id uint64, relay string, r turncred.Revocation) error) error
}

// undelivered is a revocation that a relay has yet to be told.
type undelivered struct {
	id    uint64
	since time.Time
	turncred.Revocation
}
