package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"epcscf/store/internal/keyvalue"
)

// engine is a bbolt file with one writer, which commits for all who wait. (bbolt's own
// Batch waits 10 ms for others, which a single writer would pay each time.)
type engine struct {
	db   *bbolt.DB
	jobs chan *job
	quit chan struct{}
	done chan struct{} // closed when the writer has ended

	closeOnce sync.Once
	closeErr  error
}

// job is a transaction that waits for the writer.
type job struct {
	f     func(keyvalue.Tx) error
	state atomic.Int32
	err   chan error // holds one
}

// The states of a job. Whoever moves it from waiting decides what becomes of it.
const (
	waiting = iota
	taken
	givenUp
)

// maxBatch bounds a commit, and so how long those wait who come during it.
const maxBatch = 256

var errClosed = errors.New("the store is closed")

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
	e := &engine{db: db, jobs: make(chan *job), quit: make(chan struct{}), done: make(chan struct{})}
	go e.write()
	return e, nil
}

// Close implements keyvalue.Engine.
func (e *engine) Close() error {
	e.closeOnce.Do(func() {
		close(e.quit)
		<-e.done
		e.closeErr = e.db.Close()
	})
	return e.closeErr
}

// View implements keyvalue.Engine.
func (e *engine) View(f func(keyvalue.Tx) error) error {
	return e.db.View(func(t *bbolt.Tx) error { return f(&tx{tx: t}) })
}

// Update implements keyvalue.Engine. After ctx has ended f does not run any more.
func (e *engine) Update(ctx context.Context, f func(keyvalue.Tx) error) error {
	j := &job{f: f, err: make(chan error, 1)}
	select {
	case e.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.quit:
		return errClosed
	}
	select {
	case err := <-j.err:
		return err
	case <-ctx.Done():
		if j.state.CompareAndSwap(waiting, givenUp) {
			return ctx.Err()
		}
		return <-j.err // it is being written
	}
}

// write is the only writer. A job that it received is answered, whatever happens.
func (e *engine) write() {
	defer close(e.done)
	for {
		select {
		case j := <-e.jobs:
			e.commit(e.gather(j))
		case <-e.quit:
			return
		}
	}
}

// gather takes what came while the last commit was on its way.
func (e *engine) gather(first *job) []*job {
	batch := make([]*job, 0, 8)
	for j := first; ; {
		if j.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, j)
		}
		if len(batch) == maxBatch {
			return batch
		}
		select {
		case j = <-e.jobs:
		default:
			return batch
		}
	}
}

// commit runs the jobs in one transaction. One that fails has, by keyvalue.Engine's rule,
// written nothing and leaves the others alone; where it did write, they start over without it.
func (e *engine) commit(batch []*job) {
	for len(batch) > 0 {
		errs := make([]error, len(batch))
		spoilt := -1
		err := e.db.Update(func(t *bbolt.Tx) error {
			for i, j := range batch {
				one := &tx{tx: t}
				if errs[i] = j.f(one); errs[i] != nil && one.wrote {
					spoilt = i
					return errs[i]
				}
			}
			return nil
		})
		if spoilt < 0 {
			for i, j := range batch {
				if err != nil { // not committed, so no answer is true
					errs[i] = fmt.Errorf("commit: %w", err)
				}
				j.err <- errs[i]
			}
			return
		}
		batch[spoilt].err <- errs[spoilt]
		batch = append(batch[:spoilt:spoilt], batch[spoilt+1:]...)
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
