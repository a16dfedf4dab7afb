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

func TestRests(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name        string
		before, now heap
		want        bool
	}{
		{"nothing to win", heap{allocated: 100 * mib, live: 8 * mib}, heap{101 * mib, 8 * mib, 9 * mib, mib}, false},
		{"garbage", heap{allocated: 100 * mib, live: 8 * mib}, heap{101 * mib, 8 * mib, 70 * mib, 0}, true},
		{"free memory", heap{allocated: 100 * mib, live: 8 * mib}, heap{101 * mib, 8 * mib, 8 * mib, 30 * mib}, true},
		{"at work", heap{allocated: 100 * mib, live: 8 * mib}, heap{104 * mib, 8 * mib, 70 * mib, 0}, false},
		{"many idle flows ping", heap{allocated: 100 * mib, live: 200 * mib}, heap{104 * mib, 200 * mib, 270 * mib, 0}, true},
		{"a fifth is not worth it", heap{allocated: 100 * mib, live: 200 * mib}, heap{104 * mib, 200 * mib, 240 * mib, 0}, false},
		{"before the first collection", heap{}, heap{mib, 0, 3 * mib, 0}, false},
	} {
		if got := tt.now.rests(tt.before); got != tt.want {
			t.Errorf("%s: rests = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestRestGivesMemoryBack(t *testing.T) {
	before := debug.SetGCPercent(-1) // only rest collects
	defer debug.SetGCPercent(before)
	garbage := make([][]byte, 64)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
	}
	full := look()
	garbage = nil
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { rest(done, time.Millisecond); close(ended) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if now := look(); now.objects+now.free < full.objects-60<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("64 MiB of garbage are not given back")
		}
	}
	close(done)
	<-ended
	runtime.KeepAlive(garbage)
}
