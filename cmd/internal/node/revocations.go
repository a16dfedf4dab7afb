package node

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"epcscf/store"
	"epcscf/store/bolt"
	"epcscf/turncred"
)

// openRevocations opens the relay's file of revocations, where it has one, and gives it to
// the relay. The caller closes what is returned, after the relay.
func openRevocations(r *Relay, deployment turncred.Secret) (*bolt.Store, error) {
	if r == nil || r.Revocations.File == "" {
		return nil, nil
	}
	fail := func(err error) (*bolt.Store, error) {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s %s: %w: name a file in a folder that this user may write", r.Revocations.From, r.Revocations.File, err)
		}
		return nil, fmt.Errorf("%s %s: %w", r.Revocations.From, r.Revocations.File, err)
	}
	// Revocations hold no secret, but the store wants a key for the rows that do.
	key, err := hkdf.Key(sha256.New, deployment.Reveal(), nil, "revocations", 32)
	if err != nil {
		return fail(err)
	}
	keks, err := store.NewKEKs(store.KEK{ID: "deployment", Secret: turncred.NewSecret(key)})
	if err != nil {
		return fail(err)
	}
	s, err := bolt.Open(context.Background(), bolt.Config{File: r.Revocations.File, KEKs: keks})
	if err != nil {
		return fail(err)
	}
	r.Settings.Revocations = store.RevocationLog{Revocations: s}
	return s, nil
}

// pruneEvery is how often the file forgets revocations that nothing is left for.
const pruneEvery = 10 * time.Minute

// pruneRevocations does so until ctx ends.
func (n *Node) pruneRevocations(ctx context.Context) {
	if n.revocations == nil {
		return
	}
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := n.revocations.Prune(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("revocations that are over stay in their file", "err", err)
			}
		}
	}
}
