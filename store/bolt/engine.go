package bolt

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"epcscf/store/internal/groupcommit"
	"epcscf/store/internal/keyvalue"
)

// engine is a bbolt file with one writer, which commits for all who wait. (bbolt's own
// Batch waits 10 ms for others, which a lone writer would pay each time.)
type engine struct {
	db     *bbolt.DB
	writer *groupcommit.Writer[update]

	closeOnce sync.Once
	closeErr  error
}

type update = func(keyvalue.Tx) error

// maxBatch bounds a commit, and so how long those wait who come during it.
const maxBatch = 256

func newEngine(db *bbolt.DB) (*engine, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range keyvalue.Tables {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("make table %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e := &engine{db: db}
	e.writer = groupcommit.Start(groupcommit.Config[update]{Commit: e.commit, Max: maxBatch})
	return e, nil
}

// Close implements keyvalue.Engine.
func (e *engine) Close() error {
	e.closeOnce.Do(func() {
		e.writer.Close()
		e.closeErr = e.db.Close()
	})
	return e.closeErr
}

// View implements keyvalue.Engine.
func (e *engine) View(f func(keyvalue.Tx) error) error {
	return e.db.View(func(t *bbolt.Tx) error { return f(&tx{tx: t}) })
}

// Update implements keyvalue.Engine. After it has returned f does not run any more.
func (e *engine) Update(ctx context.Context, f func(keyvalue.Tx) error) error {
	return e.writer.Do(ctx, f)
}

// commit runs updates in one transaction. One that fails has, by keyvalue.Engine's rule,
// written nothing and leaves the others alone; where it did write, they start over without it.
func (e *engine) commit(batch []update) []error {
	errs := make([]error, len(batch))
	left := make([]int, len(batch)) // those that are to be committed
	for i := range left {
		left[i] = i
	}
	for {
		spoilt := -1
		err := e.db.Update(func(t *bbolt.Tx) error {
			for n, i := range left {
				one := &tx{tx: t}
				if errs[i] = batch[i](one); errs[i] != nil && one.wrote {
					spoilt = n
					return errs[i]
				}
			}
			return nil
		})
		if spoilt >= 0 {
			left = slices.Delete(left, spoilt, spoilt+1)
			continue
		}
		if err != nil { // nothing is committed, so no answer is true
			for _, i := range left {
				errs[i] = fmt.Errorf("commit: %w", err)
			}
		}
		return errs
	}
}

// tx implements keyvalue.Tx.
type tx struct {
	tx    *bbolt.Tx
	wrote bool
}

func (t *tx) table(name string) *bbolt.Bucket { return t.tx.Bucket([]byte(name)) }

func (t *tx) Get(table, key string) []byte { return t.table(table).Get([]byte(key)) }

func (t *tx) Put(table, key string, value []byte) error {
	t.wrote = true
	return t.table(table).Put([]byte(key), value)
}

func (t *tx) Delete(table, key string) error {
	t.wrote = true
	return t.table(table).Delete([]byte(key))
}

func (t *tx) Each(table, from string, f func(string, []byte) bool) {
	c := t.table(table).Cursor()
	for k, v := c.Seek([]byte(from)); k != nil && f(string(k), v); k, v = c.Next() {
	}
}

func (t *tx) Next(table string) (uint64, error) {
	t.wrote = true
	return t.table(table).NextSequence()
}
