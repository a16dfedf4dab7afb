package store

import (
	"context"
	"errors"
	"time"
)

// Store is all the records. Its methods are safe for concurrent use, and return by ctx's
// deadline. A write has reached the disk (or, in memory, the table) when it returns nil.
type Store interface {
	Credentials
	Revocations
	Keys
	Relays
	Edges
	Clients
	Users
	Grants
	Loans
	Audit
	Changes

	// Prune forgets what no longer matters: credentials and grants that have expired,
	// revocations that nothing is left for, changes older than ChangesKept, and entries of
	// the audit trail older than AuditKept. It returns how many. Call it every few minutes.
	Prune(ctx context.Context) (int, error)

	// Close releases the store. It can be called twice.
	Close() error
}

const (
	// ChangesKept is how far back Changes reaches.
	ChangesKept = time.Hour
	// AuditKept is how long the audit trail is kept: what happened a year ago is asked for.
	AuditKept = 400 * 24 * time.Hour
)

// The errors that callers branch on. What is returned wraps one of them and says which
// record it is about.
var (
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that the record exists with another body, or is not in the state that
	// the change expects. Of a credential it is push.ErrConflict as well.
	ErrConflict = errors.New("conflict with what is stored")
	// ErrUsed says that a single-use grant was consumed before.
	ErrUsed = errors.New("used before")
	// ErrExpired says that a grant has expired.
	ErrExpired = errors.New("expired")
	// ErrRevoked says that a grant's family was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrExhausted says that no identity of a pool is free.
	ErrExhausted = errors.New("none is free")
	// ErrKEK says that a key-encryption key is missing or is not the one that sealed a row.
	ErrKEK = errors.New("key-encryption key")
	// ErrCorrupt says that a row does not open: it was edited, moved or damaged.
	ErrCorrupt = errors.New("row does not open")
	// ErrCursor says that a cursor reaches back beyond what is kept: load all, then go on.
	ErrCursor = errors.New("cursor is older than what is kept")
	// ErrLocked says that another process holds the file.
	ErrLocked = errors.New("another process holds the file")
	// ErrInvalid says that a record cannot be stored as it is: a name is empty, or a field
	// is too long.
	ErrInvalid = errors.New("not valid")
)
