package latency

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var calls atomic.Int64
	sp, achieved, err := Pace(t.Context(), 10_000, 100, func(context.Context, int) error { calls.Add(1); return nil })
	if err != nil || calls.Load() != 100 || achieved <= 0 || sp.P50 > sp.P99 || sp.P99 > sp.Max {
		t.Errorf("Pace = %+v, %v, %v after %d calls", sp, achieved, err, calls.Load())
	}
	bad := errors.New("bad")
	if _, _, err := Pace(t.Context(), 10_000, 100, func(context.Context, int) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("Pace = %v, want %v", err, bad)
	}
}

func TestSpreadOf(t *testing.T) {
	if got := SpreadOf([]time.Duration{3, 1, 2}); got != (Spread{2, 3, 3}) {
		t.Errorf("SpreadOf = %v", got)
	}
}

func TestSync(t *testing.T) {
	if sp, err := Sync(t.TempDir()); err != nil || sp.Max <= 0 {
		t.Errorf("Sync = %v, %v", sp, err)
	}
}
