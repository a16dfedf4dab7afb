// Package gctune lets garbage gather while a server works, and gives memory back when it
// rests.
//
// Go's own rule, as much garbage as is live, makes a small server collect many times a
// second: a fifth of what a registration costs. A server with many flows keeps Go's rule.
//
// After the work the garbage would lie there for two minutes, until the runtime collects
// unasked, and an operator would see the memory of a storm where there is a calm.
package gctune

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// minGarbage is how much garbage may gather, in bytes, before it is collected.
	minGarbage = 64 << 20
	// lookEvery is how long a process must have been quiet to be at rest.
	lookEvery = 2 * time.Second
)

// Start sets GOGC after each collection, so that garbage may reach 64 MiB or the size of the
// live heap, whichever is more; and collects and gives back to the system what a process has
// that has come to rest. It is for the process: a main calls it, once. Where the environment
// sets GOGC, that stands and Start does nothing. What it returns ends the tuning.
func Start() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	undo := gather()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { rest(done, lookEvery) })
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
		undo()
	})
}

// gather sets GOGC after each collection, until undo.
func gather() (undo func()) {
	var stopped atomic.Bool
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	before := debug.SetGCPercent(percent(0))
	// A finalizer that sets itself again runs once a collection.
	type sentinel struct{ _ [16]byte }
	var collected func(*sentinel)
	collected = func(*sentinel) {
		if stopped.Load() {
			return
		}
		metrics.Read(live)
		debug.SetGCPercent(percent(live[0].Value.Uint64()))
		runtime.SetFinalizer(&sentinel{}, collected)
	}
	runtime.SetFinalizer(&sentinel{}, collected)
	return func() {
		stopped.Store(true)
		debug.SetGCPercent(before)
	}
}

// percent is the GOGC for a live heap of so many bytes.
func percent(live uint64) int {
	const least, most = 100, 1600 // of the 4 MiB that Go starts with, 1600 makes 64
	if live == 0 {
		return most
	}
	return int(min(max(minGarbage*100/live, least), most))
}

// rest looks now and then whether the process rests, and then collects.
func rest(done <-chan struct{}, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for before := look(); ; {
		select {
		case <-done:
			return
		case <-t.C:
		}
		now := look()
		if now.rests(before) {
			// Twice: what a sync.Pool holds goes at the second collection.
			runtime.GC()
			debug.FreeOSMemory()
			now = look()
		}
		before = now
	}
}

// heap is what the process has, in bytes.
type heap struct {
	allocated uint64 // in all its life
	live      uint64 // after the last collection
	objects   uint64 // live, or garbage
	free      uint64 // neither, and not given back
}

func look() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}

// rests reports whether little was allocated since before, a thirtieth of what may gather as
// garbage, and a quarter of what is live would be won by a collection. Idle flows allocate
// a little too, for pings: so it may come again, some times a minute.
func (h heap) rests(before heap) bool {
	const leastWon = 4 << 20
	won := h.free
	if h.objects > h.live {
		won += h.objects - h.live
	}
	return h.allocated-before.allocated < max(minGarbage, h.live)/30 && won > max(leastWon, h.live/4)
}
