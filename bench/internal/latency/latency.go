// Package latency measures how long writes take that come at a steady rate.
package latency

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Spread sums up durations.
type Spread struct{ P50, P99, Max time.Duration }

// SpreadOf sorts ds, of which there must be one or more.
func SpreadOf(ds []time.Duration) Spread {
	slices.Sort(ds)
	return Spread{ds[len(ds)/2], ds[len(ds)*99/100], ds[len(ds)-1]}
}

// tick is the grain of Pace: at 2,000 a second, two at a time.
const tick = time.Millisecond

// Pace calls f with 0, 1 and so on, n times at a rate a second, whatever f takes (an open
// loop, so that a stall is counted for all who wait in it). A duration is from when a call
// was due to when it returned. achieved is how many a second there were.
func Pace(ctx context.Context, rate, n int, f func(ctx context.Context, i int) error) (sp Spread, achieved float64, err error) {
	took := make([]time.Duration, n)
	began := time.Now()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	g, gctx := errgroup.WithContext(ctx)
	for i := 0; i < n && gctx.Err() == nil; {
		<-ticker.C
		for ; i < n; i++ {
			due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
			if time.Now().Before(due) {
				break
			}
			call := i
			g.Go(func() error {
				err := f(gctx, call)
				took[call] = time.Since(due)
				return err
			})
		}
	}
	if err := errors.Join(g.Wait(), context.Cause(ctx)); err != nil {
		return sp, 0, err
	}
	return SpreadOf(took), float64(n) / time.Since(began).Seconds(), nil
}

// Sync is what one fdatasync of 4 KiB takes on the disk of dir: no promise can be faster.
func Sync(dir string) (sp Spread, err error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return sp, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const n = 400
	ds, page := make([]time.Duration, n), make([]byte, 4096)
	for i := range ds {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return sp, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return sp, fmt.Errorf("fdatasync: %w", err)
		}
		ds[i] = time.Since(began)
	}
	return SpreadOf(ds), nil
}
