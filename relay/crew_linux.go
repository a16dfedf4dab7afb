package relay

import (
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// rest is how long one who is busy lets datagrams gather before it looks again: fewer
	// wake-ups for the same packets. With what the kernel adds, 300 us at most, which a
	// packet may wait on each of its ways.
	rest = 250 * time.Microsecond
	// restFrom is how many datagrams a round must have found for another rest.
	restFrom = 2

	// A carrier works by itself when the leader's rounds have more datagrams than much, and
	// has the leader work for it when its own have fewer than little.
	much   = 96
	little = 12
)

// crew is the carriers of one server. While there is not much to do one of them, the
// leader, works for all: a thread that wakes up for two sockets' packets costs half of two
// threads that do.
type crew struct {
	mu      sync.Mutex // guards the fields below
	leader  *carrier
	joining []*carrier // whom the leader has not seen yet
}

// join has the leader work for c, or makes c the leader and reports false.
func (w *crew) join(c *carrier) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leader == nil {
		w.leader = c
	}
	if w.leader == c {
		return false
	}
	w.joining = append(w.joining, c)
	w.leader.rouse()
	return true
}

// joined returns whom c leads since the last call.
func (w *crew) joined(c *carrier) (all []*carrier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leader == c {
		all, w.joining = w.joining, nil
	}
	return all
}

// resign ends c's lead.
func (w *crew) resign(c *carrier) (left []*carrier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leader != c {
		return nil
	}
	w.leader = nil
	left, w.joining = w.joining, nil
	return left
}

// run sees to it that c is worked for until Close.
func (c *carrier) run() error {
	addProcessors(1)
	defer addProcessors(-1)
	for !c.closed.Load() {
		if c.s.crew.join(c) {
			if err := <-c.back; err != nil {
				return err
			}
			if c.closed.Load() {
				return nil
			}
		}
		if err := c.work(); err != nil {
			return err
		}
	}
	return nil
}

// work moves the packets of c and, where c leads, of others. It returns at Close, and where
// c does not lead and has little to do.
func (c *carrier) work() (err error) {
	t := team{lead: c, all: []*carrier{c}}
	defer func() {
		for _, x := range append(t.all[1:], c.s.crew.resign(c)...) {
			x.back <- nil
		}
	}()
	c.load = 8 * (little + 1)
	var last time.Time // end of the last round
	for resting := false; !c.closed.Load(); {
		if !resting {
			if err := t.wait(); err != nil {
				return err
			}
		}
		began := time.Now()
		moved, more, err := t.round()
		if err != nil {
			return err
		}
		if t.weigh(moved) {
			return nil
		}
		resting = more || moved >= restFrom || !resting && began.Sub(last) < rest
		if resting && !more {
			pause(rest)
		}
		last = time.Now()
	}
	return nil
}

// team is a carrier that works and, where it leads, those for whom it works.
type team struct {
	lead *carrier
	all  []*carrier // lead first
	fds  []unix.PollFd
}

// round has one pass for each of the team. More says that there was more than that.
func (t *team) round() (moved int, more bool, err error) {
	t.all = append(t.all, t.lead.s.crew.joined(t.lead)...)
	for i := 0; i < len(t.all); i++ {
		x := t.all[i]
		events := x.ready()
		if len(events) == 0 && len(x.unread) == 0 {
			continue
		}
		n, err := x.pass(events)
		moved += n
		more = more || n >= batch || len(x.unread) > 0
		switch {
		case err != nil && x == t.lead:
			return moved, more, err
		case err != nil, x != t.lead && x.closed.Load():
			t.dismiss(i, err)
			i--
		}
	}
	return moved, more, nil
}

// dismiss gives a carrier back to its own goroutine.
func (t *team) dismiss(i int, err error) {
	x := t.all[i]
	t.all = slices.Delete(t.all, i, i+1)
	x.back <- err
}

// weigh lets one of the team go where there is much to do, and reports whether the lead,
// which is nobody's leader, has so little that another can do it.
func (t *team) weigh(moved int) (idle bool) {
	c := t.lead
	c.load += moved - c.load/8 // eight times the mean of the last rounds
	if len(t.all) > 1 && c.load > 8*much {
		t.dismiss(len(t.all)-1, nil)
		c.load /= 2
	}
	return c.load < 8*little && !c.s.crew.leads(c)
}

// leads reports whether c does. Where nobody does it takes the lead.
func (w *crew) leads(c *carrier) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leader == nil {
		w.leader = c
	}
	return w.leader == c
}

// wait returns when one of the team has something to do.
func (t *team) wait() error {
	t.fds = t.fds[:0]
	for _, x := range t.all {
		t.fds = append(t.fds, unix.PollFd{Fd: int32(x.ep), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(t.fds, -1); err != nil && err != unix.EINTR {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// ready returns what has something, without waiting.
func (c *carrier) ready() []unix.EpollEvent {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(c.ep), uintptr(unsafe.Pointer(&c.events)), uintptr(len(c.events)), 0, 0, 0)
	if errno != 0 {
		return nil
	}
	return c.events[:n]
}

// pause sleeps without Go's knowledge: its timers would wake a second thread, and its
// monitor would look every 20 us whether the carrier's processor could be given away. A
// signal, as the collector sends to stop the world, ends the sleep.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}

var processors sync.Mutex // guards changes of GOMAXPROCS

// addProcessors changes GOMAXPROCS by n. A carrier under load is in Go's eyes always
// running, so each brings a processor of its own for as long as it works.
func addProcessors(n int) {
	processors.Lock()
	defer processors.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}
