package main

import (
	"context"
	"fmt"
	"time"

	"epcscf/bench/internal/subject"
)

// idleCost is what many allocations took, and what they hold while nothing passes.
type idleCost struct {
	contender
	allocations int
	rate        float64 // Allocates a second
	cpu         float64 // microseconds of the server an allocation
	empty       int64   // bytes of the process before them
	full        int64   // after them, when it has come to rest
	collected   int64   // after a garbage collection on top; ours only
	goroutines  int     // ours only
}

// kib is in KiB an allocation.
func (c idleCost) kib(full int64) float64 {
	return float64(full-c.empty) / float64(c.allocations) / 1024
}

func (b *bench) measureIdle(ctx context.Context) (all []idleCost, err error) {
	if b.idle == 0 {
		return nil, nil
	}
	for _, c := range b.servers {
		got, err := b.measureIdleOf(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		b.say("%d idle allocations, %s: %.1f KiB each, %.0f CPU-us each, %.0f a second", got.allocations, c.name, got.kib(got.collected), got.cpu, got.rate)
		all = append(all, got)
	}
	return all, nil
}

func (b *bench) measureIdleOf(ctx context.Context, c contender) (got idleCost, err error) {
	s, err := c.start()
	if err != nil {
		return got, err
	}
	defer s.stop()
	got = idleCost{contender: c, allocations: b.idle}
	// Some allocations before the measurement: what is loaded at first use is no one's.
	warm, err := b.openFlows(c, s, 2*b.parallel, false)
	if err != nil {
		return got, err
	}
	defer closeFlows(warm)
	if _, err = collect(s); err != nil {
		return got, err
	}
	if got.empty, err = subject.Settled(ctx, s.pid, b.poll); err != nil {
		return got, err
	}
	before, err := subject.CPUTime(s.pid)
	if err != nil {
		return got, err
	}
	start := time.Now()
	flows, err := b.openFlows(c, s, b.idle, false)
	if err != nil {
		return got, err
	}
	defer closeFlows(flows)
	got.rate = float64(b.idle) / time.Since(start).Seconds()
	after, err := subject.CPUTime(s.pid)
	if err != nil {
		return got, err
	}
	got.cpu = float64((after - before).Microseconds()) / float64(b.idle)
	if got.full, err = subject.Settled(ctx, s.pid, b.poll); err != nil {
		return got, err
	}
	st, err := collect(s)
	if err != nil {
		return got, err
	}
	got.goroutines = st.Goroutines
	got.collected, err = subject.Memory(s.pid)
	return got, err
}

func collect(s *server) (subject.Status, error) {
	if s.control == nil {
		return subject.Status{}, nil
	}
	return s.control.Do(subject.Collect, "")
}
