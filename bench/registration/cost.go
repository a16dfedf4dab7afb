package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"epcscf/bench/internal/subject"
)

// cost is the measured part of one contender in one round.
type cost struct {
	cpu           float64 // microseconds of the edge's processes a registration
	rate          float64 // registrations a second
	p50, p95, p99 time.Duration
	registrations int64 // that were answered with 200
	failed        int64
	bare          int64   // answered with 200, but without a credential
	allocs        float64 // objects a registration; ours only
	allocated     float64 // bytes a registration; ours only
	firstErr      error
}

// series is what one contender cost in each round.
type series struct {
	contender
	rounds []cost
}

// measureCost lets the contenders take turns (A B C A B C), so that what else the machine
// does falls on all of them.
func (b *bench) measureCost(ctx context.Context) ([]series, error) {
	all := make([]series, len(b.edges))
	for round := range b.rounds {
		for i, c := range b.edges {
			got, err := b.measureRound(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			b.say("round %d, %s: %.1f CPU-us a registration, %.0f a second, p99 %v, %d failed, %d without credential",
				round+1, c.name, got.cpu, got.rate, got.p99.Round(10*time.Microsecond), got.failed, got.bare)
			all[i].contender = c
			all[i].rounds = append(all[i].rounds, got)
		}
	}
	return all, nil
}

// measureRound starts the edge anew, opens the flows and registers once on each; the part
// that is measured comes after that.
func (b *bench) measureRound(ctx context.Context, c contender) (cost, error) {
	e, err := c.start(ctx)
	if err != nil {
		return cost{}, err
	}
	defer e.stop()
	o := b.openFlows(ctx, c, e, 0, b.flows, 16)
	defer o.close()
	// A reader that waits ends with its connection.
	defer context.AfterFunc(ctx, o.close)()
	if err := context.Cause(ctx); err != nil {
		return cost{}, err
	}
	if o.failed > 0 {
		return cost{}, fmt.Errorf("%d of %d flows could not register: %w", o.failed, b.flows, o.firstErr)
	}
	stopProfile, err := b.startProfile(c, e)
	if err != nil {
		return cost{}, err
	}
	got, err := b.registerAll(ctx, e, o.flows)
	return got, errors.Join(err, stopProfile(), context.Cause(ctx))
}

// registerAll is the measured part.
func (b *bench) registerAll(ctx context.Context, e *edge, flows []*wic) (cost, error) {
	var (
		got     cost
		mu      sync.Mutex // guards all and got.firstErr
		all     []time.Duration
		answers atomic.Int64
		wg      sync.WaitGroup
	)
	before, err := takeSample(e)
	if err != nil {
		return got, err
	}
	total := len(flows) * b.each
	stop := b.report(ctx, func() string { return fmt.Sprintf("  %d of %d registrations", answers.Load(), total) })
	start := time.Now()
	for _, w := range flows {
		wg.Go(func() {
			times := make([]time.Duration, 0, b.each)
			for range b.each {
				sent := time.Now()
				err := w.register()
				if err != nil {
					mu.Lock()
					got.firstErr = cmp.Or(got.firstErr, err)
					mu.Unlock()
				}
				switch {
				case errors.Is(err, errNoCredential):
					atomic.AddInt64(&got.bare, 1)
				case err != nil:
					// The flow is in an unknown state, and what it had still to do has failed.
					atomic.AddInt64(&got.failed, int64(b.each-len(times)))
					return
				}
				times = append(times, time.Since(sent))
				answers.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, times...)
		})
	}
	wg.Wait()
	took := time.Since(start)
	stop()
	after, err := takeSample(e)
	if err != nil {
		return got, err
	}
	got.registrations = answers.Load()
	n := float64(max(got.registrations, 1))
	got.cpu = float64((after.cpu - before.cpu).Microseconds()) / n
	got.rate = n / took.Seconds()
	got.allocs = float64(after.Mallocs-before.Mallocs) / n
	got.allocated = float64(after.TotalAlloc-before.TotalAlloc) / n
	slices.Sort(all)
	got.p50, got.p95, got.p99 = subject.Percentile(all, 50), subject.Percentile(all, 95), subject.Percentile(all, 99)
	return got, nil
}

// sample is what an edge has used so far.
type sample struct {
	cpu time.Duration
	subject.Status
}

func takeSample(e *edge) (s sample, err error) {
	if e.control != nil {
		if s.Status, err = e.control.Do(subject.Stats, ""); err != nil {
			return s, err
		}
	}
	s.cpu, err = subject.CPUTime(e.pid)
	return s, err
}

// startProfile profiles our edge while it is measured, where that is wanted.
func (b *bench) startProfile(c contender, e *edge) (stop func() error, err error) {
	if b.profile == "" || e.control == nil {
		return func() error { return nil }, nil
	}
	if _, err := e.control.Do(subject.Profile, b.profileFile(c, "cpu")); err != nil {
		return nil, err
	}
	return func() error {
		_, err := e.control.Do(subject.ProfileEnd, "")
		_, errAllocs := e.control.Do(subject.Allocs, b.profileFile(c, "allocs"))
		return errors.Join(err, errAllocs)
	}, nil
}
