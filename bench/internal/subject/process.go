// Package subject is the process that a benchmark measures: how it is started and asked, and
// what it used.
package subject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of the CPU times in /proc/PID/stat: USER_HZ, which is 100 on every
// Linux that Go runs on.
const tick = 10 * time.Millisecond

// processStat is what we read of /proc/PID/stat (proc(5)).
type processStat struct {
	parent int
	cpu    time.Duration // user and system, of the process and of children that have ended
}

func readStat(pid int) (processStat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processStat{}, err
	}
	return parseStat(raw)
}

func parseStat(raw []byte) (processStat, error) {
	// The name in parentheses may hold anything, parentheses too; fields count from after it.
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 15 {
		return processStat{}, errors.New("/proc/PID/stat is too short")
	}
	var n [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} { // ppid, utime, stime, cutime, cstime
		v, err := strconv.ParseInt(string(fields[at]), 10, 64)
		if err != nil {
			return processStat{}, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		n[i] = v
	}
	return processStat{parent: int(n[0]), cpu: time.Duration(n[1]+n[2]+n[3]+n[4]) * tick}, nil
}

// tree returns a process and its descendants with their CPU times.
func tree(root int) (map[int]processStat, error) {
	all := map[int]processStat{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if st, err := readStat(pid); err == nil { // else it has ended meanwhile
			all[pid] = st
		}
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("process %d has ended", root)
	}
	for pid := range all {
		if !descends(all, pid, root) {
			delete(all, pid)
		}
	}
	return all, nil
}

func descends(all map[int]processStat, pid, root int) bool {
	for ; pid > 0; pid = all[pid].parent {
		if pid == root {
			return true
		}
	}
	return false
}

// CPUTime is the CPU time that the tree of root has used so far.
func CPUTime(root int) (time.Duration, error) {
	t, err := tree(root)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, st := range t {
		sum += st.cpu
	}
	return sum, nil
}

// Memory is the proportional set size of the tree of root in bytes: what the processes
// share is counted once.
func Memory(root int) (int64, error) {
	t, err := tree(root)
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid := range t {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := parsePss(raw)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Settled waits until the memory of the tree of root has not changed by more than 1 % in six
// looks, a poll apart; thirty looks at most. At a second it is longer than our edge keeps an
// answer to repeat.
func Settled(ctx context.Context, root int, every time.Duration) (int64, error) {
	last, err := Memory(root)
	if err != nil {
		return 0, err
	}
	poll := time.NewTicker(every)
	defer poll.Stop()
	for still, looks := 0, 0; still < 6 && looks < 30; looks++ {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		now, err := Memory(root)
		if err != nil {
			return 0, err
		}
		if still++; now > last+last/100 || now < last-last/100 {
			still, last = 0, now
		}
	}
	return Memory(root)
}

func parsePss(raw []byte) (int64, error) {
	for line := range bytes.Lines(raw) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "Pss:" {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/PID/smaps_rollup has no Pss")
}
