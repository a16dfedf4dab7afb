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
	waiting []commit
	writing bool // a goroutine is at it, and takes what waits
}

// commit is what one caller waits for.
type commit struct {
	records []Record
	done    chan<- error
}

// put returns when rs are in the log.
func (g *groupCommit) put(ctx context.Context, rs []Record) error {
	done := make(chan error, 1)
	g.mu.Lock()
	g.waiting = append(g.waiting, commit{rs, done})
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
	// Not with the context of one of many: who gives up must not fail the others.
	ctx := context.Background()
	for {
		g.mu.Lock()
		group := g.waiting
		g.waiting = nil
		if g.writing = len(group) > 0; !g.writing {
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		var all []Record
		for _, c := range group {
			all = append(all, c.records...)
		}
		err := g.log.Put(ctx, all)
		for _, c := range group {
			if err != nil && len(group) > 1 { // what the log refuses of one is no fault of the others
				c.done <- g.log.Put(ctx, c.records)
			} else {
				c.done <- err
			}
		}
	}
}
