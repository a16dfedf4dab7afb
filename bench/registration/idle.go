package main

import (
	"context"
	"errors"
	"fmt"

	"epcscf/bench/internal/subject"
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
	before    subject.Status // ours only
	after     subject.Status
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
	if m.empty, err = subject.Settled(ctx, e.pid, b.poll); err != nil {
		return m, err
	}
	m.opening = b.openFlows(ctx, c, e, 1, n, idleParallel)
	defer m.opening.close()
	for _, w := range m.opening.flows {
		go w.idle() // until close
	}
	if m.full, err = subject.Settled(ctx, e.pid, b.poll); err != nil {
		return m, err
	}
	if m.after, err = collect(e); err != nil {
		return m, err
	}
	if m.collected, err = subject.Memory(e.pid); err != nil {
		return m, err
	}
	if b.profile != "" && e.control != nil {
		_, err = e.control.Do(subject.Heap, b.profileFile(c, fmt.Sprintf("heap-%d", n)))
		_, errG := e.control.Do(subject.Goroutines, b.profileFile(c, fmt.Sprintf("goroutine-%d", n)))
		err = errors.Join(err, errG)
	}
	return m, err
}

// collect makes our edge give back what it does not use.
func collect(e *edge) (subject.Status, error) {
	if e.control == nil {
		return subject.Status{}, nil
	}
	return e.control.Do(subject.Collect, "")
}
