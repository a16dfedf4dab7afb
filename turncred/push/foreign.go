package push

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"epcscf/turncred"
)

// Foreign is a TURN server that is not ours: something writes into it for us what our own
// relays hear at the credential interface. What is written once stays, so nothing is compared
// and there are no snapshots and no events. It is safe for concurrent use.
type Foreign interface {
	Sink
	turncred.Revoker
	// Check reports whether it answers, and which keys of approach 1 it has.
	Check(ctx context.Context) ([]turncred.KeyID, error)
}

// foreignWriters is how many items of a batch are written at a time.
const foreignWriters = 8

// tell writes items to a foreign server. An error of one of them that is not about the item
// is an error of all: they are written again, or expire.
func (m *member) tell(ctx context.Context, items []Item) ([]error, error) {
	results := make([]error, len(items))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(foreignWriters)
	for i, it := range items {
		g.Go(func() error {
			if it.Revocation != nil {
				return m.Foreign.Revoke(ctx, *it.Revocation)
			}
			err := m.Foreign.Put(ctx, *it.Record)
			if errors.Is(err, ErrConflict) {
				results[i], err = problem(409, CauseConflict, "the server has Tid %s with another body", it.Record.Tid), nil
			}
			return err
		})
	}
	return results, g.Wait()
}

// check is compare for a foreign server.
func (m *member) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	keys, err := m.Foreign.Check(ctx)
	if err == nil {
		m.seen(State{Relay: m.Name, Ready: true, Keys: keys}, 0)
	}
	return err
}
