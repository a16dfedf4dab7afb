package keyvalue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"epcscf/store"
)

// feedLen is how many changes a watcher may lag behind: more than an hour of an edge with
// one a second.
const feedLen = 8192

// errClosed ends a Watch whose store is closed.
var errClosed = errors.New("the store is closed")

// feed tells watchers of one process what changed. A cursor is the name of the process and
// a count; that of another process is too old.
type feed struct {
	name string

	mu      sync.Mutex // guards the fields below
	first   uint64     // the count of changes[0]
	changes []store.Change
	wake    chan struct{} // closed at the next change
	closed  bool
}

func (f *feed) start() {
	f.name, f.wake = rand.Text(), make(chan struct{})
}

func (f *feed) publish(cs []store.Change) {
	if len(cs) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, cs...)
	if drop := len(f.changes) - feedLen; drop > feedLen { // in steps, so that a change costs a constant
		f.changes = append([]store.Change(nil), f.changes[drop:]...)
		f.first += uint64(drop)
	}
	f.wakeLocked()
}

func (f *feed) wakeLocked() {
	if !f.closed {
		close(f.wake)
		f.wake = make(chan struct{})
	}
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
	f.closed = true
}

func (f *feed) cursor(n uint64) store.Cursor {
	return store.Cursor(f.name + ":" + strconv.FormatUint(n, 10))
}

func (f *feed) parse(c store.Cursor) (uint64, error) {
	name, count, _ := strings.Cut(string(c), ":")
	n, err := strconv.ParseUint(count, 10, 64)
	if name != f.name || err != nil {
		return 0, fmt.Errorf("cursor %q: %w", c, store.ErrCursor)
	}
	return n, nil
}

// since returns the changes from n on, the count after them, and what tells of the next.
func (f *feed) since(n uint64) (cs []store.Change, end uint64, wake <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end = f.first + uint64(len(f.changes))
	switch {
	case f.closed:
		return nil, 0, nil, errClosed
	case n < f.first || n > end:
		return nil, 0, nil, store.ErrCursor
	}
	return append(cs, f.changes[n-f.first:]...), end, f.wake, nil
}

// Cursor implements store.Changes.
func (s *Store) Cursor(ctx context.Context) (store.Cursor, error) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	return s.feed.cursor(s.feed.first + uint64(len(s.feed.changes))), ctx.Err()
}

// Watch implements store.Changes.
func (s *Store) Watch(ctx context.Context, since store.Cursor, f func([]store.Change, store.Cursor) error) error {
	n, err := s.feed.parse(since)
	if err != nil {
		return err
	}
	for {
		cs, end, wake, err := s.feed.since(n)
		if err != nil {
			return err
		}
		if len(cs) > 0 {
			if err := f(cs, s.feed.cursor(end)); err != nil {
				return err
			}
		}
		n = end
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
