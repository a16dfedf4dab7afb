// Package postgres is the store of more than one node: PostgreSQL, or a distributed database
// that speaks its protocol and SQL.
//
// Statements are prepared; values never enter their text. To another host the connection is
// TLS with the server's certificate and name checked, unless the operator gives that up by
// name. The schema is that of package migrations, this version's or a later one's.
//
// Where the database is down each method fails by its context's deadline, and works again
// when it is back: nothing is kept here that would have to be mended.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"epcscf/migrations"
	"epcscf/store"
	"epcscf/store/internal/groupcommit"
	"epcscf/turncred/push"
)

// Config configures Open. DSN and KEKs must be set.
type Config struct {
	// DSN is a URL or keywords, as libpq takes them. Without an sslmode it is verify-full to
	// another host.
	DSN string
	// AllowInsecure takes an sslmode below verify-full to another host too.
	AllowInsecure bool
	// Late opens a store whose database does not answer too: each call then fails until it
	// does, and the checks of Open are those of the first connection.
	Late     bool
	KEKs     *store.KEKs
	MaxConns int              // default 16
	Poll     time.Duration    // how often a watcher looks, whatever it is told; default 1 s
	Now      func() time.Time // default time.Now
	Logger   *slog.Logger     // default: none

	schema int // what is needed; default the latest. Tests set it
}

// Store implements store.Store.
type Store struct {
	cfg  Config
	pool *pgxpool.Pool
	puts *groupcommit.Writer[[]push.Record]

	checked   atomic.Bool // by one connection or more
	closeOnce sync.Once
}

var _ store.Store = (*Store)(nil)

// ErrSchema says that migrations have not run.
var ErrSchema = errors.New("the database's schema is older than this version needs: run  epcscf migrate up")

// statementTimeout bounds what the database spends on a statement whose client has given up.
const statementTimeout = "10s"

// Open connects. The error is ErrSchema where migrations have not run, ErrInsecure where the
// connection would not be safe, or store.ErrKEK where rows were sealed under another key.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.KEKs == nil {
		return nil, errors.New("postgres: KEKs is not set")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 16
	}
	pc, err := ParseDSN(cfg.DSN, cfg.AllowInsecure)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	pc.MaxConns = int32(cfg.MaxConns)
	for name, value := range map[string]string{
		"application_name": "epcscf", "statement_timeout": statementTimeout, "idle_in_transaction_session_timeout": statementTimeout,
	} {
		if _, set := pc.ConnConfig.RuntimeParams[name]; !set {
			pc.ConnConfig.RuntimeParams[name] = value
		}
	}
	s := &Store{cfg: cfg}
	pc.AfterConnect = s.check
	if s.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if err := s.pool.Ping(ctx); err != nil {
		if !cfg.Late || !Away(err) {
			s.pool.Close()
			return nil, fmt.Errorf("postgres: %w", err)
		}
		cfg.Logger.Error("the database does not answer: until it does, what needs it fails", "err", err)
	}
	s.puts = groupcommit.Start(groupcommit.Config[[]push.Record]{Commit: s.commitPuts, Max: maxPuts, Writers: putWriters, Leave: true})
	return s, nil
}

// check is what must hold before a connection is used.
func (s *Store) check(ctx context.Context, c *pgx.Conn) error {
	if s.checked.Load() {
		return nil
	}
	need := s.cfg.schema
	if need == 0 {
		var err error
		if need, err = migrations.Latest(); err != nil {
			return err
		}
	}
	at, err := migrations.Version(ctx, c)
	if err == nil && at < need {
		err = fmt.Errorf("%w: it is at %d, and %d is needed", ErrSchema, at, need)
	}
	if err == nil {
		err = s.proveKEKs(ctx, c)
	}
	s.checked.Store(err == nil)
	return err
}

// Away reports whether an error is that the database did not answer, or said to come later; a wrong password
// or schema will not mend itself.
func Away(err error) bool {
	if refused := new(pgconn.PgError); errors.As(err, &refused) {
		return refused.Code == "57P03" // cannot_connect_now
	}
	failed := new(pgconn.ConnectError)
	return errors.As(err, &failed) || errors.Is(err, context.DeadlineExceeded)
}

// Close implements store.Store. Watchers must have ended.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.puts.Close()
		s.pool.Close()
	})
	return nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.pool.Ping(ctx) }

// querier is the pool or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

var (
	_ querier = (*pgxpool.Pool)(nil)
	_ querier = (pgx.Tx)(nil)
)

// exec returns how many rows a statement wrote.
func exec(ctx context.Context, q querier, st statement, args ...any) (int64, error) {
	tag, err := q.Exec(ctx, string(st), args...)
	return tag.RowsAffected(), err
}

// must is exec of a statement that writes a row, or else returns none.
func must(ctx context.Context, q querier, none error, st statement, args ...any) error {
	n, err := exec(ctx, q, st, args...)
	if err == nil && n == 0 {
		err = none
	}
	return err
}

// rows reads what a statement returns.
func rows[T any](ctx context.Context, q querier, scan func(pgx.Row) (T, error), st statement, args ...any) ([]T, error) {
	rs, err := q.Query(ctx, string(st), args...)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	var all []T
	for rs.Next() {
		one, err := scan(rs)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rs.Err()
}

// one reads the row that a statement returns, or else returns none.
func one[T any](ctx context.Context, q querier, scan func(pgx.Row) (T, error), none error, st statement, args ...any) (T, error) {
	row, err := scan(q.QueryRow(ctx, string(st), args...))
	if errors.Is(err, pgx.ErrNoRows) {
		err = none
	}
	return row, err
}

// The errors of PostgreSQL after which a transaction is to be tried again.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

const maxTries = 5

// inTx runs f in a transaction, again where the database says that it got in another's way.
func (s *Store) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, s.pool, f)
		var pe *pgconn.PgError
		if try == maxTries || !errors.As(err, &pe) || pe.Code != serializationFailure && pe.Code != deadlockDetected {
			return err
		}
	}
}

// changing runs f in a transaction, with a row for the watchers, who are then told.
func (s *Store) changing(ctx context.Context, c store.Change, f func(pgx.Tx) error) error {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		_, err := exec(ctx, tx, addChange, c.Kind, c.ID)
		return err
	})
	if err == nil {
		s.tell(ctx)
	}
	return err
}

func notFound(what, name string) error {
	return fmt.Errorf("%s %q: %w", what, name, store.ErrNotFound)
}

func conflict(what, name string) error {
	return fmt.Errorf("%s %q: %w", what, name, store.ErrConflict)
}

func named(what, name string) error {
	if name == "" {
		return fmt.Errorf("%s: %w: it has no name", what, store.ErrInvalid)
	}
	return nil
}

// null is a time that may be zero.
func null(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// list is an array that is never null.
func list[T ~string](ts []T) []string {
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = string(t)
	}
	return out
}

// bytesOf is bytes that are never null.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
