package store

import "context"

// ChangeKind says what kind of record changed.
type ChangeKind string

// What is watched. Credentials are not: there are thousands a second, and edges write them
// to the relays themselves.
const (
	ChangedRevocation ChangeKind = "revocation"
	ChangedKey        ChangeKind = "key"
	ChangedRelay      ChangeKind = "relay"
	ChangedClient     ChangeKind = "client"
	ChangedUser       ChangeKind = "user"
)

// Change says that a record was written or deleted. ID names it: of a key KIND/KID, of a
// relay, client or user its name, of a revocation a hash. A watcher then reads it.
type Change struct {
	Kind ChangeKind
	ID   string
}

// Cursor is a place in the changes of a store. It is opaque, and of one store only.
type Cursor string

// Changes tell a process what others wrote.
type Changes interface {
	// Cursor returns the place of now. Take it, load what is to be watched, then Watch from
	// it: so nothing is missed.
	Cursor(ctx context.Context) (Cursor, error)
	// Watch calls f with what changed since a cursor, and the place to go on from, until ctx
	// ends or f returns an error, which it returns. A change may be told twice, never not at
	// all. f may call the store. The error is ErrCursor where since is older than what is
	// kept; an outage of the database is waited out.
	Watch(ctx context.Context, since Cursor, f func([]Change, Cursor) error) error
}
