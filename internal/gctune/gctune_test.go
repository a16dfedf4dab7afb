package gctune

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentLeavesRoomForGarbage(t *testing.T) {
	for _, tt := range []struct {
		live uint64
		want int
	}{{0, 1600}, {1 << 20, 1600}, {8 << 20, 800}, {64 << 20, 100}, {10 << 30, 100}} {
		if got := percent(tt.live); got != tt.want {
			t.Errorf("percent(%d) = %d, want %d", tt.live, got, tt.want)
		}
	}
}

func TestStartFollowsTheLiveHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	stop := Start()
	ballast := make([]byte, 128<<20) // twice minGarbage: Go's own rule
	settled := func() bool {
		runtime.GC()
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now == 100
	}
	for deadline := time.Now().Add(10 * time.Second); !settled(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("GOGC does not come down to 100 for a large heap")
		}
	}
	runtime.KeepAlive(ballast)
	stop()
	if now := debug.SetGCPercent(100); now != 100 {
		t.Errorf("GOGC = %d after the end, want what it was", now)
	}
}
