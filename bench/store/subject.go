package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"epcscf/bench/internal/latency"
	"epcscf/store"
	"epcscf/store/bolt"
	"epcscf/store/wal"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// log is what is measured of a store.
type log interface {
	PutCredentials(ctx context.Context, rs []push.Record) error
	EachCredential(ctx context.Context, f func(push.Record) error) error
}

// subject is a store under measurement.
type subject struct {
	name   string
	log    log
	reopen func(context.Context) (log, error)
	bytes  func(context.Context) (int64, error) // on disk
	close  func() error
	maker  maker
	rounds []round
}

// round is what one round measured.
type round struct {
	sync     latency.Spread // of fdatasync
	put      latency.Spread
	achieved float64 // a second
}

// errNotHere says that a kind of store cannot be measured on this machine.
var errNotHere = errors.New("not here")

type kind struct {
	name string
	open func(ctx context.Context, dir string) (*subject, error)
}

var kinds = []kind{{"none", openNone}, {"wal", openWAL}, {"bolt", openBolt}, {"postgres", openPostgres}}

func newKEKs() (*store.KEKs, error) {
	return store.NewKEKs(store.KEK{ID: "bench", Secret: turncred.NewSecret(make([]byte, 32))})
}

// closer is a log that is closed and opened again.
type closer interface {
	log
	Close() error
}

// durable is the subject of a store that open opens, the first time as well.
func durable(ctx context.Context, open func(context.Context) (closer, error)) (*subject, error) {
	s, err := open(ctx)
	if err != nil {
		return nil, err
	}
	return &subject{
		log: s,
		reopen: func(ctx context.Context) (log, error) {
			if err := s.Close(); err != nil {
				return nil, err
			}
			again, err := open(ctx)
			if err == nil {
				s = again
			}
			return again, err
		},
		close: func() error { return s.Close() },
	}, nil
}

func openBolt(ctx context.Context, dir string) (*subject, error) {
	keks, err := newKEKs()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "store.db")
	c, err := durable(ctx, func(ctx context.Context) (closer, error) {
		return bolt.Open(ctx, bolt.Config{File: file, KEKs: keks})
	})
	if err != nil {
		return nil, err
	}
	c.bytes = func(context.Context) (int64, error) { return sizeOf(file) }
	return c, nil
}

// none keeps nothing: what its writes take is the machine's own delay.
type none struct{ n atomic.Int64 }

func (l *none) PutCredentials(_ context.Context, rs []push.Record) error {
	l.n.Add(int64(len(rs)))
	return nil
}

func (l *none) EachCredential(_ context.Context, f func(push.Record) error) error {
	for range l.n.Load() {
		if err := f(push.Record{}); err != nil {
			return err
		}
	}
	return nil
}

func openNone(context.Context, string) (*subject, error) {
	l := &none{}
	return &subject{
		log:    l,
		bytes:  func(context.Context) (int64, error) { return 0, nil },
		reopen: func(context.Context) (log, error) { return l, nil },
		close:  func() error { return nil },
	}, nil
}

// walLog gives a wal.Log the names of the others' methods.
type walLog struct{ *wal.Log }

func (l walLog) PutCredentials(ctx context.Context, rs []push.Record) error { return l.Put(ctx, rs) }

func (l walLog) EachCredential(ctx context.Context, f func(push.Record) error) error {
	return l.Load(ctx, f)
}

func openWAL(ctx context.Context, dir string) (*subject, error) {
	keks, err := newKEKs()
	if err != nil {
		return nil, err
	}
	cfg := wal.Config{Dir: filepath.Join(dir, "wal"), KEKs: keks}
	c, err := durable(ctx, func(context.Context) (closer, error) {
		l, err := wal.Open(cfg)
		return walLog{l}, err
	})
	if err != nil {
		return nil, err
	}
	c.bytes = func(context.Context) (int64, error) { return sizeOf(cfg.Dir) }
	return c, nil
}

// sizeOf is what a file, or all files of a directory, take on disk.
func sizeOf(path string) (size int64, err error) {
	err = filepath.Walk(path, func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			size += fi.Size()
		}
		return err
	})
	return size, err
}

// maker makes credentials as an edge does, but for the random password, which costs the
// store nothing. Safe for concurrent use.
type maker struct {
	mu    sync.Mutex // guards the fields below
	codec *turncred.TidCodec
	n     uint64
}

// next returns n credentials that live for two hours.
func (m *maker) next(n int) ([]push.Record, error) {
	m.mu.Lock()
	first := m.n
	m.n += uint64(n)
	if m.codec == nil {
		var err error
		if m.codec, err = turncred.NewTidCodec(turncred.NewSecret(make([]byte, 32))); err != nil {
			m.mu.Unlock()
			return nil, err
		}
	}
	m.mu.Unlock()
	rs := make([]push.Record, n)
	texp := time.Now().Truncate(time.Second).Add(2 * time.Hour)
	for i := range rs {
		id := turncred.Identity{Subject: turncred.Subject(first + uint64(i)), Issued: turncred.IssueTimeAt(time.Now()), Binding: turncred.Binding(i)}
		tid, err := m.codec.Seal("k1", id, uint8(i))
		if err != nil {
			return nil, err
		}
		name := turncred.Order3GPP.Username(tid, texp)
		rs[i] = push.Record{Tid: tid, Username: name, Realm: "ims.example", Texp: texp, Identity: id,
			Key: turncred.NewLongTermKey(name, "ims.example", turncred.NewSecret([]byte("0123456789abcdef0123456789abcdef")))}
	}
	return rs, nil
}

// fill writes the credentials that are there before, in batches.
func (c *subject) fill(ctx context.Context, s settings) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for left := s.live; left > 0 && gctx.Err() == nil; left -= s.batch {
		g.Go(func() error {
			rs, err := c.maker.next(min(left, s.batch))
			if err != nil {
				return err
			}
			return c.log.PutCredentials(gctx, rs)
		})
	}
	return errors.Join(g.Wait(), context.Cause(ctx))
}

// issue measures one round.
func (c *subject) issue(ctx context.Context, s settings, sync latency.Spread) error {
	total := int(float64(s.rate) * s.length.Seconds())
	rs, err := c.maker.next(total)
	if err != nil {
		return err
	}
	put, achieved, err := latency.Pace(ctx, s.rate, total, func(ctx context.Context, i int) error {
		return c.log.PutCredentials(ctx, rs[i:i+1])
	})
	if err != nil {
		return err
	}
	c.rounds = append(c.rounds, round{sync, put, achieved})
	return nil
}
