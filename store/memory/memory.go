// Package memory is a store that is gone with its process: for the demo and for tests.
package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"epcscf/store"
	"epcscf/store/internal/keyvalue"
	"epcscf/turncred"
)

// Store implements store.Store, and keeps a journal.
type Store struct{ *keyvalue.Store }

var _ store.Store = (*Store)(nil)

// Config configures New. The zero Config is good.
type Config struct {
	KEKs *store.KEKs      // default: a random one
	Now  func() time.Time // default time.Now
}

// New returns an empty store.
func New(cfg Config) (*Store, error) {
	if cfg.KEKs == nil {
		var b [32]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("memory store: %w", err)
		}
		var err error
		if cfg.KEKs, err = store.NewKEKs(store.KEK{ID: "memory", Secret: turncred.NewSecret(b[:])}); err != nil {
			return nil, fmt.Errorf("memory store: %w", err)
		}
	}
	s, err := keyvalue.New(context.Background(), newEngine(), cfg.KEKs, cfg.Now)
	if err != nil {
		return nil, fmt.Errorf("memory store: %w", err)
	}
	return &Store{s}, nil
}

// engine is tables of maps.
type engine struct {
	mu     sync.RWMutex // guards tables and what they hold
	tables map[string]*table
}

type table struct {
	rows map[string][]byte
	next uint64
}

func newEngine() *engine {
	e := &engine{tables: map[string]*table{}}
	for _, name := range keyvalue.Tables {
		e.tables[name] = &table{rows: map[string][]byte{}}
	}
	return e
}

// View implements keyvalue.Engine.
func (e *engine) View(f func(keyvalue.Tx) error) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return f(tx{e.tables})
}

// Update implements keyvalue.Engine.
func (e *engine) Update(_ context.Context, f func(keyvalue.Tx) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return f(tx{e.tables})
}

// Close implements keyvalue.Engine.
func (e *engine) Close() error { return nil }

// tx is used with the engine's lock held.
type tx struct{ tables map[string]*table }

func (t tx) Get(table, key string) []byte { return t.tables[table].rows[key] }

func (t tx) Put(table, key string, value []byte) error {
	t.tables[table].rows[key] = value
	return nil
}

func (t tx) Delete(table, key string) error {
	delete(t.tables[table].rows, key)
	return nil
}

func (t tx) Each(table, from string, f func(string, []byte) bool) {
	rows := t.tables[table].rows
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if key >= from && !f(key, rows[key]) {
			return
		}
	}
}

func (t tx) Next(table string) (uint64, error) {
	t.tables[table].next++
	return t.tables[table].next, nil
}
