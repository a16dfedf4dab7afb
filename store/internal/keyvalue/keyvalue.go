// Package keyvalue is store.Store over a transaction of ordered keys and values. The
// stores memory and bolt are its engines and nothing more, so that they cannot differ.
//
// Values are JSON, but for credentials, which come by the thousand, in the binary form of
// store.KEKs.EncodeRecord.
package keyvalue

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"epcscf/store"
)

// Engine runs transactions.
type Engine interface {
	// View runs f on what is committed.
	View(f func(Tx) error) error
	// Update runs f, and returns when what it wrote is committed and synced. f may run more
	// than once, and in one commit with others. Where it returns an error it must have
	// written nothing.
	Update(ctx context.Context, f func(Tx) error) error
	// Close can be called twice.
	Close() error
}

// Tx is a transaction. What it returns is good until it ends.
type Tx interface {
	// Get returns nil where there is no such key.
	Get(table, key string) []byte
	Put(table, key string, value []byte) error
	Delete(table, key string) error
	// Each calls f with the keys from one on, in order, until f returns false. f must not write.
	Each(table, from string, f func(key string, value []byte) bool)
	// Next returns 1, 2, 3 and so on.
	Next(table string) (uint64, error)
}

// The tables.
const (
	credentials = store.TableCredentials
	keys        = store.TableKeys
	checks      = store.TableChecks
	revocations = "revocations"
	relays      = "relays"
	edges       = "edges"
	clients     = "clients"
	users       = "users"
	grants      = "grants"
	families    = "grant_families"
	identities  = "identities"
	audit       = "audit"
	journal     = "journal"
)

// Tables are the names of all tables, for engines that make them beforehand.
var Tables = []string{credentials, keys, checks, revocations, relays, edges, clients, users, grants, families, identities, audit, journal}

// Store implements store.Store.
type Store struct {
	engine Engine
	keks   *store.KEKs
	now    func() time.Time
	feed   feed

	closeOnce sync.Once
	closeErr  error
}

var _ store.Store = (*Store)(nil)

// New returns a store on an engine, which it closes. now may be nil for time.Now. The error
// is store.ErrKEK where the engine has rows under a key that keks have not.
func New(ctx context.Context, e Engine, keks *store.KEKs, now func() time.Time) (*Store, error) {
	if now == nil {
		now = time.Now
	}
	s := &Store{engine: e, keks: keks, now: now}
	s.feed.start()
	if err := s.proveKEKs(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.feed.close()
		s.closeErr = s.engine.Close()
	})
	return s.closeErr
}

// update runs f in a transaction and then tells the watchers.
func (s *Store) update(ctx context.Context, f func(Tx) error, changes ...store.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.engine.Update(ctx, f); err != nil {
		return err
	}
	s.feed.publish(changes)
	return nil
}

func (s *Store) view(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.engine.View(f)
}

// get reads a JSON row; the error is store.ErrNotFound.
func get[T any](tx Tx, table, key string) (row T, err error) {
	b := tx.Get(table, key)
	if b == nil {
		return row, fmt.Errorf("%s %q: %w", table, key, store.ErrNotFound)
	}
	return decode[T](table, key, b)
}

func decode[T any](table, key string, b []byte) (row T, err error) {
	if err := json.Unmarshal(b, &row); err != nil {
		return row, fmt.Errorf("%s %q: %w: %w", table, key, store.ErrCorrupt, err)
	}
	return row, nil
}

// add writes a JSON row that must not be there; the error is store.ErrConflict.
func add(tx Tx, table, key string, row any) error {
	if tx.Get(table, key) != nil {
		return fmt.Errorf("%s %q: %w", table, key, store.ErrConflict)
	}
	return put(tx, table, key, row)
}

func put(tx Tx, table, key string, row any) error {
	b, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("%s %q: %w", table, key, err)
	}
	return tx.Put(table, key, b)
}

// remove deletes a row that must be there; the error is store.ErrNotFound.
func remove(tx Tx, table, key string) error {
	if tx.Get(table, key) == nil {
		return fmt.Errorf("%s %q: %w", table, key, store.ErrNotFound)
	}
	return tx.Delete(table, key)
}

// list returns the JSON rows of a table in the order of their keys.
func list[T any](s *Store, ctx context.Context, table string) (rows []T, err error) {
	err = s.view(ctx, func(tx Tx) error {
		var bad error
		tx.Each(table, "", func(key string, b []byte) bool {
			var row T
			if row, bad = decode[T](table, key, b); bad == nil {
				rows = append(rows, row)
			}
			return bad == nil
		})
		return bad
	})
	return rows, err
}

// one reads one JSON row.
func one[T any](s *Store, ctx context.Context, table, key string) (row T, err error) {
	err = s.view(ctx, func(tx Tx) error {
		row, err = get[T](tx, table, key)
		return err
	})
	return row, err
}

// named refuses an empty key, which no table holds.
func named(what, name string) error {
	if name == "" {
		return fmt.Errorf("%s: %w: it has no name", what, store.ErrInvalid)
	}
	return nil
}
