package store

import (
	"context"
	"time"
)

// Event is an entry of the audit trail: who did what to which.
type Event struct {
	At     time.Time // set by Record where it is zero
	Actor  string    // a role and name, such as operator:anna or edge:edge1
	Action string    // such as key.rotate
	Object string    // such as shared-key/k2
	Detail string    // nothing secret
}

// Audit is the audit trail, which is only added to.
type Audit interface {
	// Record adds an event.
	Record(ctx context.Context, e Event) error
	// Events calls f with the events from a time on and before another (zero: no end), the
	// oldest first, until f returns an error, which it returns. f must not call the store.
	Events(ctx context.Context, from, before time.Time, f func(Event) error) error
}
