package coturn

import (
	"context"
	"errors"
	"sync"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Config configures a Relay. Realm and Codec must be set.
type Config struct {
	// DatabaseURL is the connection string of coturn's database. Without it there is approach
	// 1 alone, and coturn has its key from its own static-auth-secret.
	DatabaseURL turncred.Secret
	// Admin ends live sessions; nil: they go on.
	Admin *Admin
	Realm turncred.Realm
	Codec *turncred.TidCodec
	Now   func() time.Time // default time.Now
}

// Relay is a coturn as an edge sees one of its own relays.
type Relay struct {
	cfg Config
	db  *Database // nil: there is none

	mu      sync.Mutex // guards the fields below
	keys    []turncred.Key
	version int       // of keys
	written int       // the version that the database has
	pruned  time.Time // last
}

var _ push.Foreign = (*Relay)(nil)

// ErrNoDatabase says that approach 2 wants coturn's database.
var ErrNoDatabase = errors.New("coturn: approach push wants its database")

// pruneEvery is how long an expired credential may still be taken.
const pruneEvery = 30 * time.Second

// New checks cfg. It connects to nothing yet.
func New(cfg Config) (*Relay, error) {
	if cfg.Realm == "" || cfg.Codec == nil {
		return nil, errors.New("coturn: Realm or Codec is not set")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Relay{cfg: cfg}
	var err error
	if cfg.DatabaseURL.Len() > 0 {
		r.db, err = NewDatabase(cfg.DatabaseURL, cfg.Realm)
	}
	return r, err
}

// Close ends the connections.
func (r *Relay) Close() {
	if r.db != nil {
		r.db.Close()
	}
}

// SetKeys has coturn take these keys of approach 1, from the next Check on that succeeds. The
// error names a key that coturn cannot take.
func (r *Relay) SetKeys(keys []turncred.Key) error {
	if r.db != nil {
		if err := checkSecrets(keys); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = keys
	r.version++
	return nil
}

// Check implements push.Foreign: it asks database and admin interface, writes keys that are
// new, and deletes what has expired.
func (r *Relay) Check(ctx context.Context) ([]turncred.KeyID, error) {
	r.mu.Lock()
	keys, version, written, pruned := r.keys, r.version, r.written, r.pruned
	r.mu.Unlock()
	if r.db != nil && (written != version || r.cfg.Now().Sub(pruned) >= pruneEvery) {
		pruned = r.cfg.Now()
		if err := errors.Join(r.db.SetSecrets(ctx, keys), r.db.Prune(ctx, pruned)); err != nil {
			return nil, err
		}
	} else if r.db != nil {
		if err := r.db.pool.Ping(ctx); err != nil {
			return nil, err
		}
	}
	if r.cfg.Admin != nil {
		c, err := r.cfg.Admin.open(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.close(); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pruned, r.written = pruned, version
	var ids []turncred.KeyID
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids, nil
}

// Put implements push.Sink.
func (r *Relay) Put(ctx context.Context, record push.Record) error {
	if r.db == nil {
		return ErrNoDatabase
	}
	return r.db.Put(ctx, record)
}

// Revoke implements turncred.Revoker: rows first, so that no new session begins, then the
// sessions of those that it hits. With approach 1 a new Allocate cannot be refused before
// Texp: only a session that is there when Revoke is called ends.
func (r *Relay) Revoke(ctx context.Context, rev turncred.Revocation) error {
	if r.db != nil {
		if err := r.db.Revoke(ctx, rev); err != nil {
			return err
		}
	}
	if r.cfg.Admin == nil || rev.KeepLive {
		return nil
	}
	_, err := r.cfg.Admin.endSessions(ctx, func(user string) bool {
		// coturn lists who has proved to know the password, so the Tid may be read.
		tid, _, err := turncred.ParseUsername(user)
		if err != nil {
			return false
		}
		id, err := r.cfg.Codec.Open(tid)
		return err == nil && rev.Hits(tid, id)
	})
	return err
}
