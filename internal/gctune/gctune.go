// Package gctune lets garbage gather while the live heap is small. Go's own rule, as much
// garbage as is live, makes a small server collect many times a second: a fifth of what a
// registration costs. A server with many flows keeps Go's rule.
package gctune

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// minGarbage is how much garbage may gather, in bytes, before it is collected.
const minGarbage = 64 << 20

// Start sets GOGC after each collection, so that garbage may reach 64 MiB or the size of the
// live heap, whichever is more. It is for the process: a main calls it, once. Where the
// environment sets GOGC, that stands and Start does nothing. What it returns ends the tuning.
func Start() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	var stopped atomic.Bool
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	before := debug.SetGCPercent(percent(0))
	// A finalizer that sets itself again runs once a collection.
	type sentinel struct{ _ [16]byte }
	var collected func(*sentinel)
	collected = func(*sentinel) {
		if stopped.Load() {
			return
		}
		metrics.Read(sample)
		debug.SetGCPercent(percent(sample[0].Value.Uint64()))
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
