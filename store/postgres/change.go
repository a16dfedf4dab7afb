package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
)

const (
	// channel is what watchers listen on. A notification is only a hint to look now.
	channel = "epcscf_changes"
	// overlap is how far back a look reaches beyond the last: a row has the time at which its
	// transaction began, and is seen when that has ended, at most statementTimeout later.
	overlap = 15 * time.Second
	// cursorPrefix tells our cursors from others'.
	cursorPrefix = "pg:"
)

// tell hints at a change. Where that fails, or the database has no such thing, watchers
// find it a poll later.
func (s *Store) tell(ctx context.Context) {
	if _, err := exec(ctx, s.pool, notify, channel, ""); err != nil {
		s.cfg.Logger.Debug("watchers were not told at once", "err", err)
	}
}

func (s *Store) databaseTime(ctx context.Context) (at time.Time, err error) {
	err = s.pool.QueryRow(ctx, string(databaseTime)).Scan(&at)
	return at, err
}

func cursorAt(t time.Time) store.Cursor {
	return store.Cursor(cursorPrefix + strconv.FormatInt(t.UnixMicro(), 10))
}

func parseCursor(c store.Cursor) (time.Time, error) {
	digits, ok := strings.CutPrefix(string(c), cursorPrefix)
	us, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil {
		return time.Time{}, fmt.Errorf("cursor %q: %w", c, store.ErrCursor)
	}
	return time.UnixMicro(us), nil
}

// Cursor implements store.Changes.
func (s *Store) Cursor(ctx context.Context) (store.Cursor, error) {
	at, err := s.databaseTime(ctx)
	return cursorAt(at), err
}

// Watch implements store.Changes: it looks every Poll, and when it is told.
func (s *Store) Watch(ctx context.Context, since store.Cursor, f func([]store.Change, store.Cursor) error) error {
	at, err := parseCursor(since)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	hints, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		s.listen(ctx, hints)
	}()
	defer func() {
		stop()
		<-ended
	}()
	w := watcher{s: s, at: at, seen: map[int64]time.Time{}}
	poll := time.NewTicker(s.cfg.Poll)
	defer poll.Stop()
	for {
		changes, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && w.stale:
			return fmt.Errorf("cursor %q: %w", since, store.ErrCursor)
		case err != nil: // the database is down; what changes meanwhile is found after
			s.cfg.Logger.Warn("watching the database", "err", err)
		case len(changes) > 0:
			if err := f(changes, cursorAt(w.at)); err != nil {
				return err
			}
		}
		select {
		case <-hints:
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listen passes notifications on, over a connection of its own, until ctx ends.
func (s *Store) listen(ctx context.Context, hints chan<- struct{}) {
	for ctx.Err() == nil {
		conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
		if err == nil {
			err = s.listenOn(ctx, conn, hints)
			_ = conn.Close(context.WithoutCancel(ctx)) // it is given up
		}
		if ctx.Err() == nil {
			s.cfg.Logger.Debug("listening to the database", "err", err)
		}
		select {
		case <-time.After(s.cfg.Poll):
		case <-ctx.Done():
		}
	}
}

func (s *Store) listenOn(ctx context.Context, conn *pgx.Conn, hints chan<- struct{}) error {
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	for {
		select {
		case hints <- struct{}{}: // also at first: what came before
		default:
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// watcher reads each change once, though its looks overlap.
type watcher struct {
	s      *Store
	at     time.Time           // all that was committed by then has been read, or is within overlap
	seen   map[int64]time.Time // what was read and the next look would read again
	looked bool
	stale  bool // at reaches back beyond what is kept
}

type changeRow struct {
	store.Change
	seq int64
	at  time.Time
}

func scanChange(row pgx.Row) (c changeRow, err error) {
	err = row.Scan(&c.seq, &c.at, &c.Kind, &c.ID)
	return c, err
}

// look returns what is new, and moves on.
func (w *watcher) look(ctx context.Context) (changes []store.Change, err error) {
	now, err := w.s.databaseTime(ctx)
	if err != nil {
		return nil, err
	}
	if !w.looked && now.Sub(w.at) > store.ChangesKept {
		w.stale = true
		return nil, nil
	}
	w.looked = true
	for from, seq := w.at.Add(-overlap), int64(-1); ; {
		rs, err := rows(ctx, w.s.pool, scanChange, newChanges, from, seq, page)
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			if _, ok := w.seen[r.seq]; !ok {
				w.seen[r.seq] = r.at
				changes = append(changes, r.Change)
			}
			from, seq = r.at, r.seq
		}
		if len(rs) < page {
			break
		}
	}
	w.at = now
	for seq, at := range w.seen {
		if at.Before(w.at.Add(-overlap)) {
			delete(w.seen, seq)
		}
	}
	return changes, nil
}
