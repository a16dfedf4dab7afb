package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"epcscf/store"
	"epcscf/store/bolt"
	"epcscf/turncred"
)

// openRevocations opens the relay's file of revocations, where it has one, and gives it to
// the relay. The caller closes what is returned, after the relay.
func openRevocations(r *Relay, deployment turncred.Secret) (*revocationFile, error) {
	if r == nil || r.Revocations.File == "" {
		return nil, nil
	}
	fail := func(err error) (*revocationFile, error) {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s %s: %w: name a file in a folder that this user may write", r.Revocations.From, r.Revocations.File, err)
		}
		return nil, fmt.Errorf("%s %s: %w", r.Revocations.From, r.Revocations.File, err)
	}
	// Revocations hold no secret, but the store wants a key for the rows that do.
	keks, err := stateKEKs(deployment, "revocations")
	if err != nil {
		return fail(err)
	}
	s, err := bolt.Open(context.Background(), bolt.Config{File: r.Revocations.File, KEKs: keks})
	if err != nil {
		return fail(err)
	}
	r.Settings.Revocations = store.RevocationLog{Revocations: s}
	return &revocationFile{s}, nil
}

// revocationFile is an open file of revocations; nil is none, and its Close does nothing.
type revocationFile struct{ store *bolt.Store }

func (f *revocationFile) Close() error {
	if f == nil {
		return nil
	}
	return f.store.Close()
}

// prune has the file forget what nothing is left for, until ctx ends.
func (f *revocationFile) prune(ctx context.Context, log *slog.Logger) {
	if f != nil {
		prune(ctx, f.store, log)
	}
}

// pruneEvery is how often a store forgets what is over.
const pruneEvery = 10 * time.Minute

// prune has a store forget what is over, until ctx ends.
func prune(ctx context.Context, s interface {
	Prune(context.Context) (int, error)
}, log *slog.Logger) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := s.Prune(ctx); err != nil && ctx.Err() == nil {
				log.Warn("what is over stays in the store", "err", err)
			}
		}
	}
}
