package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idleParallel is how many flows open at a time where the memory of idle ones is measured.
const idleParallel = 32

// idleMemory is what idle registered flows occupy in an edge.
type idleMemory struct {
	contender
	flows     int
	empty     int64 // bytes of the process tree before the flows
	full      int64 // after them, when it has come to rest
	collected int64 // after a garbage collection on top; ours only
	opening   *opening
	before    status // ours only
	after     status
}

// perFlow is in bytes.
func (m idleMemory) perFlow(full int64) float64 { return float64(full-m.empty) / float64(m.flows) }

// measureIdle measures each contender with the same number of flows, and ours once more
// with many.
func (b *bench) measureIdle(ctx context.Context) ([]idleMemory, error) {
	var all []idleMemory
	for _, n := range []int{b.idle, b.idleOurs} {
		for _, c := range b.edges {
			if n == 0 || n == b.idleOurs && n != b.idle && !c.ours {
				continue
			}
			got, err := b.measureIdleFlows(ctx, c, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			b.say("%d idle flows, %s: %.1f KiB each", n, c.name, got.perFlow(got.collected)/1024)
			all = append(all, got)
		}
		if b.idle == b.idleOurs {
			break
		}
	}
	return all, nil
}

func (b *bench) measureIdleFlows(ctx context.Context, c contender, n int) (m idleMemory, err error) {
	e, err := c.start(ctx)
	if err != nil {
		return m, err
	}
	defer e.stop()
	m = idleMemory{contender: c, flows: n}
	// One flow before the measurement: what is loaded at first use is no flow's memory.
	warm := b.openFlows(ctx, c, e, 0, 1, 1)
	defer warm.close()
	if m.before, err = collect(e); err != nil {
		return m, err
	}
	if m.empty, err = b.settled(ctx, e.pid); err != nil {
		return m, err
	}
	m.opening = b.openFlows(ctx, c, e, 1, n, idleParallel)
	defer m.opening.close()
	for _, w := range m.opening.flows {
		go w.idle() // until close
	}
	if m.full, err = b.settled(ctx, e.pid); err != nil {
		return m, err
	}
	if m.after, err = collect(e); err != nil {
		return m, err
	}
	if m.collected, err = memory(e.pid); err != nil {
		return m, err
	}
	if b.profile != "" && e.control != nil {
		_, err = e.control.do(opHeap, b.profileFile(c, fmt.Sprintf("heap-%d", n)))
		_, errG := e.control.do(opGoroutines, b.profileFile(c, fmt.Sprintf("goroutine-%d", n)))
		err = errors.Join(err, errG)
	}
	return m, err
}

// collect makes our edge give back what it does not use.
func collect(e *edge) (status, error) {
	if e.control == nil {
		return status{}, nil
	}
	return e.control.do(opCollect, "")
}

// settled waits until the memory has not changed by more than 1 % in six looks, a second
// apart, which is longer than our edge keeps an answer to repeat; thirty looks at most.
func (b *bench) settled(ctx context.Context, pid int) (int64, error) {
	last, err := memory(pid)
	if err != nil {
		return 0, err
	}
	poll := time.NewTicker(b.poll)
	defer poll.Stop()
	for still, looks := 0, 0; still < 6 && looks < 30; looks++ {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		now, err := memory(pid)
		if err != nil {
			return 0, err
		}
		if still++; now > last+last/100 || now < last-last/100 {
			still, last = 0, now
		}
	}
	return memory(pid)
}
