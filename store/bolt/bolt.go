// Package bolt is the durable store of one node: a bbolt file, synced before a write that
// it promises returns. Writers that wait at the same time share a sync (group commit).
//
// The file belongs to one process at a time, and to one user: its mode is 0600.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"epcscf/store"
	"epcscf/store/internal/keyvalue"
)

// Store implements store.Store, and keeps a journal.
type Store struct{ *keyvalue.Store }

var _ store.Store = (*Store)(nil)

// Config configures Open. File and KEKs must be set.
type Config struct {
	File string           // made with mode 0600 where it is not there
	KEKs *store.KEKs      // what rows are sealed under
	Now  func() time.Time // default time.Now
}

// lockWait is how long Open waits for a process that holds the file and may be ending.
const lockWait = 2 * time.Second

// Open opens or makes the file. The error is store.ErrLocked where another process has it,
// and store.ErrKEK where the rows were sealed under another key.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.KEKs == nil {
		return nil, fmt.Errorf("store %s: KEKs is not set", cfg.File)
	}
	if err := checkMode(cfg.File); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(cfg.File, fileMode, &bbolt.Options{
		Timeout:        lockWait,
		NoFreelistSync: true, // rebuilt on opening, so a commit writes less
		FreelistType:   bbolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("store %s: %w: one process at a time can have it, so stop the other, or use postgres for more than one", cfg.File, store.ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return nil, fmt.Errorf("store %s: %w: it is no store of ours, or is damaged: %w", cfg.File, store.ErrCorrupt, err)
	case err != nil:
		return nil, fmt.Errorf("store %s: %w", cfg.File, err)
	}
	e, err := newEngine(db)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", cfg.File, err), db.Close())
	}
	s, err := keyvalue.New(ctx, e, cfg.KEKs, cfg.Now)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", cfg.File, err), e.Close())
	}
	return &Store{s}, nil
}

const fileMode = 0o600

// checkMode refuses a file that others may read or write.
func checkMode(file string) error {
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("store %s: its mode is %04o, so others can read it: chmod 600 %s", file, mode, file)
	}
	return nil
}
