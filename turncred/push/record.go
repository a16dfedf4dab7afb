package push

import (
	"context"
	"errors"
	"time"

	"epcscf/turncred"
)

// Record is what a relay is told of a credential.
type Record struct {
	Tid      turncred.Tid
	Username string
	Realm    turncred.Realm
	Key      turncred.LongTermKey
	Texp     time.Time
	Identity turncred.Identity
}

// equal reports whether both say the same, keys compared in constant time.
func (r Record) equal(o Record) bool {
	return r.Tid == o.Tid && r.Username == o.Username && r.Realm == o.Realm &&
		r.Texp.Equal(o.Texp) && r.Identity == o.Identity && r.Key.Equal(o.Key)
}

// ErrConflict says that a Tid was written before with another body.
var ErrConflict = errors.New("push: Tid exists with another body")

// Sink takes credentials on a relay's behalf. When Put returns nil the relay knows the
// credential. The same record again is the same answer; another record of the same Tid
// is ErrConflict.
type Sink interface {
	Put(ctx context.Context, r Record) error
}

// Placer is a Sink that chooses a relay, and says how WICs reach it.
type Placer interface {
	// Place returns the TURN URIs of the relays that know the credential now.
	Place(ctx context.Context, r Record) (uris []string, err error)
}

// CredentialLog is where a relay keeps its credentials through a restart. It is safe for
// concurrent use; one that syncs to disk does so once for all who wait.
type CredentialLog interface {
	// Put returns when rs are on disk, all of them or, with an error, perhaps some.
	Put(ctx context.Context, rs []Record) error
	// Load calls f with each record that has not expired, in any order.
	Load(ctx context.Context, f func(Record) error) error
}
