// Package groupcommit lets those who wait for the disk at the same time wait once.
package groupcommit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// ErrClosed says that a Writer is closed.
var ErrClosed = errors.New("the store is closed")

// Writer is one goroutine that commits what others bring. While a commit is on its way the
// next ones gather, and then share one; a lone writer waits for nobody. Make one with Start.
type Writer[T any] struct {
	commit func([]T) []error
	max    int
	jobs   chan *job[T]
	quit   chan struct{}
	done   chan struct{} // closed when the goroutine has ended

	closeOnce sync.Once
}

// job is a T that waits.
type job[T any] struct {
	what  T
	state atomic.Int32
	err   chan error // holds one
}

// The states of a job. Whoever moves it from waiting decides what becomes of it.
const (
	waiting = iota
	taken
	givenUp
)

// Start returns a writer. commit is called from one goroutine with max Ts at most, and
// returns an error, or nil, for each.
func Start[T any](max int, commit func([]T) []error) *Writer[T] {
	w := &Writer[T]{commit: commit, max: max, jobs: make(chan *job[T]), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// Do commits one, and returns when that is done. Where it returns an error of ctx, or
// ErrClosed, it was not and will not be committed.
func (w *Writer[T]) Do(ctx context.Context, what T) error {
	j := &job[T]{what: what, err: make(chan error, 1)}
	select {
	case w.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.quit:
		return ErrClosed
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

// Close ends the goroutine, after the commit that is on its way. It can be called twice.
func (w *Writer[T]) Close() {
	w.closeOnce.Do(func() { close(w.quit) })
	<-w.done
}

// run answers each job that it received, whatever happens.
func (w *Writer[T]) run() {
	defer close(w.done)
	for {
		select {
		case j := <-w.jobs:
			if jobs := w.gather(j); len(jobs) > 0 {
				w.answer(jobs)
			}
		case <-w.quit:
			return
		}
	}
}

// gather takes what came meanwhile.
func (w *Writer[T]) gather(first *job[T]) []*job[T] {
	jobs := make([]*job[T], 0, 8)
	for j := first; ; {
		if j.state.CompareAndSwap(waiting, taken) {
			jobs = append(jobs, j)
		}
		if len(jobs) == w.max {
			return jobs
		}
		select {
		case j = <-w.jobs:
		default:
			return jobs
		}
	}
}

func (w *Writer[T]) answer(jobs []*job[T]) {
	batch := make([]T, len(jobs))
	for i, j := range jobs {
		batch[i] = j.what
	}
	for i, err := range w.commit(batch) {
		jobs[i].err <- err
	}
}
