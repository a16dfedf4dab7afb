package push

import (
	"context"
	"sync"
)

// groupCommit gives a log together what came while it was writing, so that a sync to disk
// serves many.
type groupCommit struct {
	log CredentialLog

	mu      sync.Mutex // guards the fields below
	waiting []Record
	told    []chan<- error // of those who wait
	writing bool           // a goroutine is at it, and takes what waits
}

// put returns when rs are in the log.
func (g *groupCommit) put(ctx context.Context, rs []Record) error {
	done := make(chan error, 1)
	g.mu.Lock()
	g.waiting, g.told = append(g.waiting, rs...), append(g.told, done)
	if !g.writing {
		g.writing = true
		go g.write() //nolint:gosec // G118: it serves many callers, and ends with what waits
	}
	g.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *groupCommit) write() {
	for {
		g.mu.Lock()
		rs, told := g.waiting, g.told
		g.waiting, g.told = nil, nil
		if g.writing = len(told) > 0; !g.writing {
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		// Not with the context of one of many: who gives up must not fail the others.
		err := g.log.Put(context.Background(), rs)
		for _, c := range told {
			c <- err
		}
	}
}
