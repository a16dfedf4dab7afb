package relay

import (
	"sync/atomic"
	"time"
)

// allowance is a token bucket in one number: the time at which it is full again, which lies
// ahead by what has been taken. The zero allowance is full. Safe for concurrent use.
type allowance struct{ full atomic.Int64 }

// take takes what costs the given time, unless more than burst would then be taken.
func (a *allowance) take(now time.Time, cost, burst time.Duration) bool {
	t := now.UnixNano()
	for {
		old := a.full.Load()
		next := old
		if old < t || old > t+int64(burst) { // full; or the clock was set back
			next = t
		}
		if next += int64(cost); next > t+int64(burst) {
			return false
		}
		if a.full.CompareAndSwap(old, next) {
			return true
		}
	}
}

// atRest reports whether nothing is taken at now.
func (a *allowance) atRest(now time.Time) bool { return a.full.Load() <= now.UnixNano() }
