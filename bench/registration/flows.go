package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// attempts is how often a flow tries to connect and register before it counts as failed.
const attempts = 3

// opening is how the opening of many flows went.
type opening struct {
	flows    []*wic
	took     time.Duration
	again    int64 // flows that needed a second attempt
	thrice   int64 // flows that needed a third
	failed   int64 // flows that gave up
	firstErr error // of any attempt
}

// openFlows opens n flows, at most parallel at a time, and registers on each. Their users
// are numbered from first.
func (b *bench) openFlows(ctx context.Context, c contender, e *edge, first, n, parallel int) *opening {
	var (
		o      opening
		mu     sync.Mutex // guards o.flows and o.firstErr
		opened atomic.Int64
		wg     sync.WaitGroup
	)
	slots := make(chan struct{}, parallel)
	start := time.Now()
	stop := b.report(ctx, func() string { return fmt.Sprintf("  %d of %d flows are registered", opened.Load(), n) })
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for try := 1; try <= attempts && ctx.Err() == nil; try++ {
				switch try {
				case 2:
					atomic.AddInt64(&o.again, 1)
				case 3:
					atomic.AddInt64(&o.thrice, 1)
				}
				w, err := b.openFlow(ctx, c, e, first+i)
				mu.Lock()
				if err == nil {
					o.flows = append(o.flows, w)
				} else if o.firstErr == nil {
					o.firstErr = err
				}
				mu.Unlock()
				if err == nil {
					opened.Add(1)
					return
				}
			}
			atomic.AddInt64(&o.failed, 1)
		})
	}
	wg.Wait()
	o.took = time.Since(start)
	stop()
	return &o
}

func (b *bench) openFlow(ctx context.Context, c contender, e *edge, id int) (*wic, error) {
	w, err := dial(ctx, e.addr, b.roots, id, c.credential)
	if err != nil {
		return nil, err
	}
	if err := w.register(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (o *opening) close() {
	for _, w := range o.flows {
		w.close()
	}
}

// report prints what text returns every few seconds, until stop is called.
func (b *bench) report(ctx context.Context, text func() string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				b.say("%s", text())
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}
