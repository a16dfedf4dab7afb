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

// Config configures a Writer.
type Config[T any] struct {
	// Commit is given Max Ts at most, and returns an error, or nil, for each.
	Commit func([]T) []error
	Max    int
	// Writers is how many commits may be on their way at the same time; default 1.
	Writers int
	// Leave has Do return when its context ends, though the commit is on its way: nobody
	// then knows whether it succeeds. Else Do waits for it, as for a disk.
	Leave bool
}

// Writer commits what others bring. While commits are on their way the next ones gather, and
// then share one; a lone writer waits for nobody. Make one with Start.
type Writer[T any] struct {
	cfg  Config[T]
	jobs chan *job[T]
	quit chan struct{}
	done sync.WaitGroup // the goroutines

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

// Start returns a writer, which is to be closed.
func Start[T any](cfg Config[T]) *Writer[T] {
	w := &Writer[T]{cfg: cfg, jobs: make(chan *job[T]), quit: make(chan struct{})}
	for range max(cfg.Writers, 1) {
		w.done.Go(w.run)
	}
	return w
}

// Do commits one, and returns when that is done. Where it returns ErrClosed, or without
// Leave an error of ctx, it was not and will not be committed.
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
		if j.state.CompareAndSwap(waiting, givenUp) || w.cfg.Leave {
			return ctx.Err()
		}
		return <-j.err // it is being written
	}
}

// Close ends the goroutines, after the commits that are on their way. It can be called twice.
func (w *Writer[T]) Close() {
	w.closeOnce.Do(func() { close(w.quit) })
	w.done.Wait()
}

// run answers each job that it received, whatever happens.
func (w *Writer[T]) run() {
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
		if len(jobs) == w.cfg.Max {
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
	for i, err := range w.cfg.Commit(batch) {
		jobs[i].err <- err
	}
}
