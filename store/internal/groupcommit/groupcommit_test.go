package groupcommit

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held is a commit that waits until it is let go.
type held struct {
	begun, goOn chan struct{}
	batches     chan int
}

func (h held) commit(ns []int) []error {
	h.begun <- struct{}{}
	<-h.goOn
	h.batches <- len(ns)
	return make([]error, len(ns))
}

func newHeld() held {
	return held{make(chan struct{}), make(chan struct{}), make(chan int, 16)}
}

// TestShared: those who come during a commit share the next one, as many as may.
func TestShared(t *testing.T) {
	h := newHeld()
	w := Start(Config[int]{Commit: h.commit, Max: 4})
	defer w.Close()
	errs := make(chan error)
	do := func() { errs <- w.Do(t.Context(), 1) }
	go do()
	<-h.begun
	for range 6 { // they can only queue now
		go do()
	}
	h.goOn <- struct{}{}
	total := <-h.batches
	if total != 1 {
		t.Errorf("a lone writer's commit has %d, want 1", total)
	}
	for total < 7 {
		<-h.begun
		h.goOn <- struct{}{}
		n := <-h.batches
		if n > 4 {
			t.Errorf("a commit has %d, want 4 at most", n)
		}
		total += n
	}
	for range 7 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestGivenUp: what waits when its context ends is never committed; what is on its way is
// waited for, or with Leave left.
func TestGivenUp(t *testing.T) {
	for _, leave := range []bool{false, true} {
		h := newHeld()
		w := Start(Config[int]{Commit: h.commit, Max: 4, Leave: leave})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { first <- w.Do(ctx, 1) }()
		<-h.begun
		cancel()
		if err := w.Do(ctx, 2); !errors.Is(err, context.Canceled) {
			t.Errorf("Do that waits = %v, want context.Canceled", err)
		}
		if leave {
			if err := <-first; !errors.Is(err, context.Canceled) {
				t.Errorf("Do on its way = %v, want context.Canceled", err)
			}
		}
		h.goOn <- struct{}{}
		if !leave {
			if err := <-first; err != nil {
				t.Errorf("Do on its way = %v, want what the commit said", err)
			}
		}
		w.Close()
		w.Close()
		if n := <-h.batches; n != 1 || len(h.batches) > 0 {
			t.Errorf("committed were %d and %d batches more, want the first alone", n, len(h.batches))
		}
		if err := w.Do(t.Context(), 3); !errors.Is(err, ErrClosed) {
			t.Errorf("Do after Close = %v, want ErrClosed", err)
		}
	}
}
