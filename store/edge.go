package store

import "context"

// Edge is an edge that has written, named by its certificate's SAN.
type Edge struct {
	Name  string
	Epoch uint64 // grows with each start
}

// Edges are the epochs of the edges. A write with an epoch below the highest comes from a
// process that has been replaced.
type Edges interface {
	// NextEpoch begins another life of an edge, at its start: it returns a number above the
	// last, and above those of earlier lives should the store be lost or restored, since it
	// is the time in seconds where that is higher.
	NextEpoch(ctx context.Context, edge string) (uint64, error)
	// RaiseEpoch is a relay's: it returns the highest epoch that it was ever given for an
	// edge, this one included. Where this one is lower the error is ErrConflict.
	RaiseEpoch(ctx context.Context, edge string, epoch uint64) (uint64, error)
	// Edges returns all, by name.
	Edges(ctx context.Context) ([]Edge, error)
}
