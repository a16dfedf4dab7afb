// Package wal is a relay's log of credentials: what it acknowledged to an edge it still
// knows after a crash. It is only appended to, and those who write at the same time share
// one fdatasync.
//
// The log is a directory of segments. A segment is
//
//	"epcscf credential log 1\n" | frame of the KEK's proof | frames of records
//	frame = length (4) | CRC-32C of the payload (4) | payload
//
// A segment is allocated before it is written, with zeros, which stand at its end until it is
// full. A new one begins every few minutes, or when one is full. An old one is removed when
// its last record has expired, and is rewritten by the side when half of them have, or when
// they are under an older KEK: a write never waits for that. Where the process was killed in
// a write the last segment ends within a frame, which was never promised and is cut off.
//
// The log checks no conflicts: who writes has a table that does. The same record twice is
// read twice.
package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"epcscf/store"
	"epcscf/store/internal/groupcommit"
	"epcscf/turncred/push"
)

// Config configures Open. Dir and KEKs must be set.
type Config struct {
	Dir  string // made with mode 0700 where it is not there
	KEKs *store.KEKs

	SegmentSize int64            // bytes, allocated beforehand; default 16 MiB
	SegmentAge  time.Duration    // default 10 min
	Now         func() time.Time // default time.Now
	Logger      *slog.Logger     // default: none
}

// Log is an open log. Safe for concurrent use.
type Log struct {
	cfg    Config
	lock   *os.File
	writer *groupcommit.Writer[[]push.Record]
	sweep  chan struct{}  // holds one: segments want looking after
	swept  sync.WaitGroup // the goroutine that does

	// Of the writer's goroutine:
	out    *os.File
	began  time.Time // when the active segment did
	looked time.Time // when the sweeper last was sent
	serial uint64
	broken error // a sync failed: what the file holds is unknown

	mu     sync.Mutex // guards the fields below
	active *segment
	old    []*segment
	spare  *spare // nil: the sweeper has yet to make one
	closed bool
}

var _ push.CredentialLog = (*Log)(nil)

// spare is a segment that has been allocated and waits for its turn.
type spare struct {
	*segment
	out *os.File
}

const (
	fileMode        = 0o600
	dirMode         = 0o700
	segmentSuffix   = ".log"
	temporarySuffix = ".new"
	maxBatch        = 1024
)

// Open opens or makes a log, and cuts off what a crash left half-written. The error is
// store.ErrLocked where another process has it, store.ErrKEK where its records are under
// another key, and store.ErrCorrupt where a promised record is damaged.
func Open(cfg Config) (*Log, error) {
	if cfg.KEKs == nil {
		return nil, fmt.Errorf("credential log %s: KEKs is not set", cfg.Dir)
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = 16 << 20
	}
	if cfg.SegmentAge == 0 {
		cfg.SegmentAge = 10 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: cfg, sweep: make(chan struct{}, 1)}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("credential log %s: %w", cfg.Dir, err)
	}
	l.writer = groupcommit.Start(groupcommit.Config[[]push.Record]{Commit: l.commit, Max: maxBatch})
	l.swept.Go(l.sweepLoop)
	l.wantSweep()
	return l, nil
}

func (l *Log) open() (err error) {
	if err := os.MkdirAll(l.cfg.Dir, dirMode); err != nil {
		return err
	}
	if l.lock, err = lockDir(l.cfg.Dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.lock.Close())
		}
	}()
	entries, err := os.ReadDir(l.cfg.Dir) // in the order of their names, which is that of their making
	if err != nil {
		return err
	}
	var files []string
	for _, e := range entries {
		switch file := filepath.Join(l.cfg.Dir, e.Name()); {
		case strings.HasSuffix(file, temporarySuffix):
			if err := os.Remove(file); err != nil {
				return err
			}
		case strings.HasSuffix(file, segmentSuffix):
			if _, err := fmt.Sscanf(e.Name(), "%016x"+segmentSuffix, &l.serial); err != nil {
				return fmt.Errorf("%s is no name of a segment", file)
			}
			files = append(files, file)
		}
	}
	for i, file := range files {
		seg, err := l.readThrough(file, i == len(files)-1)
		if err != nil {
			return err
		}
		if seg != nil {
			l.old = append(l.old, seg)
		}
	}
	return l.nextSegment(l.cfg.SegmentSize)
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = store.ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readThrough reads a segment, and cuts the last one's torn end off.
func (l *Log) readThrough(file string, last bool) (*segment, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	seg, err := read(in, 0, l.cfg.KEKs, func([]byte) error { return nil })
	switch {
	case err != nil && !errors.Is(err, errTorn):
		return nil, err
	case err == nil:
		return seg, truncate(file, seg.size) // of what was allocated
	case !last:
		return nil, fmt.Errorf("%s: %w at byte %d: move the file away to start without it; the credentials in it are then unknown", file, store.ErrCorrupt, seg.size)
	case seg.size == 0: // not even its head was written
		return nil, os.Remove(file)
	}
	l.cfg.Logger.Warn("cut off what a crash left half-written", "file", file, "size", seg.size)
	return seg, truncate(file, seg.size)
}

// truncate cuts a file that is longer.
func truncate(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() > size {
		err = errors.Join(f.Truncate(size), f.Sync())
	}
	return errors.Join(err, f.Close())
}

// nextSegment begins a segment. It is the writer's.
func (l *Log) nextSegment(size int64) error {
	file := filepath.Join(l.cfg.Dir, fmt.Sprintf("%016x"+segmentSuffix, l.serial+1))
	seg, out, err := l.fromSpare(file)
	if err == nil && seg == nil {
		seg, out, err = create(file, l.cfg.KEKs, size)
	}
	if err != nil {
		return err
	}
	l.serial++
	if l.out != nil { // what was allocated and not needed goes
		err = errors.Join(l.out.Truncate(l.active.size), l.out.Close())
	}
	l.out, l.began = out, l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active != nil {
		l.old = append(l.old, l.active)
	}
	l.active = seg
	return err
}

// fromSpare gives the spare its name; the segment is nil where there is none of the right key.
func (l *Log) fromSpare(file string) (*segment, *os.File, error) {
	l.mu.Lock()
	sp := l.spare
	l.spare = nil
	l.mu.Unlock()
	if sp == nil {
		return nil, nil, nil
	}
	if sp.kek != l.cfg.KEKs.Current() {
		return nil, nil, errors.Join(sp.out.Close(), os.Remove(sp.file))
	}
	err := os.Rename(sp.file, file)
	if err == nil {
		err = syncDir(l.cfg.Dir)
	}
	if err != nil {
		return nil, nil, errors.Join(err, sp.out.Close())
	}
	sp.file = file
	return sp.segment, sp.out, nil
}

// Put writes rs, and returns when they will survive a crash.
func (l *Log) Put(ctx context.Context, rs []push.Record) error {
	for _, r := range rs {
		if err := store.CheckCredential(r); err != nil {
			return err
		}
	}
	if len(rs) == 0 {
		return ctx.Err()
	}
	return l.writer.Do(ctx, rs)
}

// Load calls f with each record that was written before and has not expired, until f
// returns an error, which it returns. f may call the log.
func (l *Log) Load(ctx context.Context, f func(push.Record) error) error {
	files, size, err := l.files()
	now := l.cfg.Now()
	for i, in := range files {
		limit := int64(0)
		if i == len(files)-1 {
			limit = size
		}
		if err != nil { // the rest only want closing
			err = errors.Join(err, in.Close())
			continue
		}
		_, err = read(in, limit, l.cfg.KEKs, func(payload []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, sealed, err := splitRecord(payload)
			if err != nil || !now.Before(r.Texp) {
				return err
			}
			if err := l.cfg.KEKs.OpenRecord(&r, sealed); err != nil {
				return err
			}
			return f(r)
		})
	}
	if err != nil {
		return fmt.Errorf("credential log: %w", err)
	}
	return nil
}

// files opens all segments, the active one last, and returns how much of that is promised.
// What is open stays as it is, whatever is removed or rewritten meanwhile.
func (l *Log) files() (files []*os.File, size int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, seg := range append(slices.Clone(l.old), l.active) {
		in, err := os.Open(seg.file)
		if err != nil {
			return files, 0, err
		}
		files = append(files, in)
	}
	return files, l.active.size, nil
}

func openRecord(keks *store.KEKs, payload []byte) (push.Record, error) {
	r, sealed, err := splitRecord(payload)
	if err == nil {
		err = keks.OpenRecord(&r, sealed)
	}
	return r, err
}

// Close ends the log, after what is being written. It can be called twice.
func (l *Log) Close() error {
	l.writer.Close()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.sweep)
	l.swept.Wait()
	var err error
	if l.spare != nil {
		err = errors.Join(l.spare.out.Close(), os.Remove(l.spare.file))
	}
	return errors.Join(err, l.out.Close(), l.lock.Close())
}
