package keyvalue

import (
	"context"
	"encoding/binary"
	"fmt"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Journal is what an edge could not deliver yet: revocations, each to a relay.
type Journal struct{ s *Store }

var _ push.Journal = (*Journal)(nil)

// Journal returns the store's journal.
func (s *Store) Journal() *Journal { return &Journal{s} }

type entry struct {
	Relay      string
	Revocation turncred.Revocation
}

func rowOfEntry(id uint64) string { return string(binary.BigEndian.AppendUint64(nil, id)) }

// Add writes down that a relay is to be told of r, and returns when it will survive a crash.
func (j *Journal) Add(ctx context.Context, relay string, r turncred.Revocation) (id uint64, err error) {
	err = j.s.update(ctx, func(tx Tx) error {
		if id, err = tx.Next(journal); err != nil {
			return err
		}
		return put(tx, journal, rowOfEntry(id), entry{relay, r})
	})
	return id, err
}

// Done strikes out entries; one that is gone already is no error.
func (j *Journal) Done(ctx context.Context, ids ...uint64) error {
	return j.s.update(ctx, func(tx Tx) error {
		for _, id := range ids {
			if err := tx.Delete(journal, rowOfEntry(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pending calls f with what is left and may still hit something, the oldest first, until f
// returns an error, which it returns. f may call the journal.
func (j *Journal) Pending(ctx context.Context, f func(id uint64, relay string, r turncred.Revocation) error) error {
	var ids []uint64
	var entries []entry
	now := j.s.now()
	err := j.s.view(ctx, func(tx Tx) error {
		var bad error
		tx.Each(journal, "", func(key string, b []byte) bool {
			if len(key) != 8 {
				bad = fmt.Errorf("journal %x: %w", key, store.ErrCorrupt)
				return false
			}
			var e entry
			if e, bad = decode[entry](journal, fmt.Sprintf("%x", key), b); bad == nil && now.Before(e.Revocation.Until) {
				ids = append(ids, binary.BigEndian.Uint64([]byte(key)))
				entries = append(entries, e)
			}
			return bad == nil
		})
		return bad
	})
	if err != nil {
		return err
	}
	for i, e := range entries {
		if err := f(ids[i], e.Relay, e.Revocation); err != nil {
			return err
		}
	}
	return nil
}
