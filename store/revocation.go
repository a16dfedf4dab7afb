package store

import (
	"context"

	"epcscf/turncred"
)

// Revocations only grow: what is revoked stays so until nothing is left that it could hit.
type Revocations interface {
	// AddRevocation writes r. The same one again is no error.
	AddRevocation(ctx context.Context, r turncred.Revocation) error
	// Revocations returns those whose Until lies ahead, in no order.
	Revocations(ctx context.Context) ([]turncred.Revocation, error)
}
