package store

import (
	"context"
	"time"

	"epcscf/turncred"
)

// LentIdentity is an IMPI with its IMPUs that users without an IMS subscription borrow
// (TS 33.203 annex X, scenario 3).
type LentIdentity struct {
	IMPI  turncred.IMPI
	IMPUs []string
	Class string // the pool

	// The loan. Until lies ahead: it is lent.
	Holder string
	Until  time.Time
}

// Loans are the pools of identities. None is ever lent twice at once.
type Loans interface {
	// AddIdentity puts an identity into a pool. The error is ErrConflict where the IMPI is in
	// one already.
	AddIdentity(ctx context.Context, id LentIdentity) error
	// DeleteIdentity takes an identity out. The error is ErrNotFound, or ErrConflict while it
	// is lent.
	DeleteIdentity(ctx context.Context, impi turncred.IMPI) error
	// Acquire lends a free identity of a class until a time; of the free ones, that which has
	// been free longest. holder names the loan, such as a token's id. The error is
	// ErrExhausted.
	Acquire(ctx context.Context, class, holder string, until time.Time) (LentIdentity, error)
	// Renew prolongs a loan. The error is ErrNotFound where holder does not hold it any more.
	Renew(ctx context.Context, impi turncred.IMPI, holder string, until time.Time) error
	// Release ends a loan. The error is ErrNotFound where holder does not hold it any more.
	Release(ctx context.Context, impi turncred.IMPI, holder string) error
	// Identities returns the identities of a class, or with "" all, by IMPI.
	Identities(ctx context.Context, class string) ([]LentIdentity, error)
}
