package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"epcscf/turncred/push"
)

// commit writes batches in one piece and syncs once. It runs in the writer's goroutine.
func (l *Log) commit(batches [][]push.Record) []error {
	errs := make([]error, len(batches))
	fail := func(err error) []error {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = fmt.Errorf("credential log: %w", err)
			}
		}
		return errs
	}
	if l.broken != nil {
		return fail(l.broken)
	}
	if l.full() {
		if err := l.nextSegment(0); err != nil {
			return fail(err)
		}
		l.looked = time.Time{}
	}
	if now := l.cfg.Now(); now.Sub(l.looked) >= l.cfg.SegmentAge {
		l.looked = now
		l.wantSweep()
	}
	var frames []byte
	for i, rs := range batches {
		whole := len(frames)
		for _, r := range rs {
			box, err := l.cfg.KEKs.EncodeRecord(r)
			if err != nil {
				errs[i], frames = err, frames[:whole]
				break
			}
			frames = appendRecord(frames, r.Tid, box)
		}
	}
	if err := l.append(frames); err != nil {
		return fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active.size += int64(len(frames))
	for i, rs := range batches {
		if errs[i] == nil {
			for _, r := range rs {
				l.active.add(r.Texp)
			}
		}
	}
	return errs
}

// full reports whether the next record goes into a new segment.
func (l *Log) full() bool {
	return l.active.size >= l.cfg.SegmentSize || l.cfg.Now().Sub(l.began) >= l.cfg.SegmentAge && l.active.records > 0 ||
		l.active.kek != l.cfg.KEKs.Current()
}

// append writes and syncs. What could not be written whole is overwritten by the next. Where
// the sync fails nobody knows what the file holds, and the log takes no more: after a failed
// fsync a second one may well succeed and lie.
func (l *Log) append(frames []byte) error {
	if _, err := l.out.WriteAt(frames, l.active.size); err != nil {
		return err
	}
	if err := fdatasync(l.out); err != nil {
		l.broken = fmt.Errorf("sync: %w: restart, which reads what is there", err)
		return l.broken
	}
	return nil
}

func fdatasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}

// wantSweep asks for a look at the old segments.
func (l *Log) wantSweep() {
	select {
	case l.sweep <- struct{}{}:
	default:
	}
}

// sweepLoop removes and rewrites old segments, beside the writer.
func (l *Log) sweepLoop() {
	for range l.sweep {
		l.mu.Lock()
		old := slices.Clone(l.old)
		l.mu.Unlock()
		for _, seg := range old {
			if err := l.sweepSegment(seg); err != nil {
				l.cfg.Logger.Warn("an old part of the credential log stays as it is", "file", seg.file, "err", err)
			}
		}
		if err := l.makeSpare(); err != nil {
			l.cfg.Logger.Warn("the next part of the credential log is not allocated beforehand", "err", err)
		}
	}
}

// makeSpare allocates the next segment, where none is waiting.
func (l *Log) makeSpare() error {
	l.mu.Lock()
	there := l.spare != nil
	l.mu.Unlock()
	if there {
		return nil
	}
	seg, out, err := create(filepath.Join(l.cfg.Dir, "spare"+temporarySuffix), l.cfg.KEKs, l.cfg.SegmentSize)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = &spare{seg, out}
	return nil
}

func (l *Log) sweepSegment(seg *segment) error {
	now := l.cfg.Now()
	switch {
	case !now.Before(seg.last):
		l.replace(seg, nil) // first, so that nobody opens what is not there
		return os.Remove(seg.file)
	case seg.kek != l.cfg.KEKs.Current() || seg.dead(now)*2 >= seg.records:
		fresh, err := compact(seg, l.cfg.KEKs, now)
		if err != nil {
			return err
		}
		l.replace(seg, fresh)
	}
	return nil
}

// replace puts fresh, or nothing, in the place of an old segment.
func (l *Log) replace(old, fresh *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.old, old)
	if fresh == nil {
		l.old = slices.Delete(l.old, i, i+1)
		return
	}
	l.old[i] = fresh
}
