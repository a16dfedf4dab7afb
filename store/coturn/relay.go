package coturn

import (
	"context"
	"errors"

	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Relay is a coturn as the edge sees one of its own relays: it takes credentials of approach
// 2 and revocations. Database may be nil where only approach 1 is used and coturn has its
// secret from elsewhere; Admin may be nil, and then live sessions go on.
type Relay struct {
	Database *Database
	Admin    *Admin
	Codec    *turncred.TidCodec
}

var (
	_ push.Sink        = (*Relay)(nil)
	_ turncred.Revoker = (*Relay)(nil)
)

// ErrNoDatabase says that approach 2 wants coturn's database.
var ErrNoDatabase = errors.New("coturn: approach push wants its database")

// Put implements push.Sink.
func (r *Relay) Put(ctx context.Context, record push.Record) error {
	if r.Database == nil {
		return ErrNoDatabase
	}
	return r.Database.Put(ctx, record)
}

// Revoke implements turncred.Revoker: rows first, so that no new session begins, then the
// sessions of those that it hits. With approach 1 a new Allocate cannot be refused before
// Texp: only a session that is there when Revoke is called ends.
func (r *Relay) Revoke(ctx context.Context, rev turncred.Revocation) error {
	if r.Database != nil {
		if err := r.Database.Revoke(ctx, rev); err != nil {
			return err
		}
	}
	if r.Admin == nil || rev.KeepLive {
		return nil
	}
	_, err := r.Admin.endSessions(ctx, func(user string) bool {
		// coturn lists who has proved to know the password, so the Tid may be read.
		tid, _, err := turncred.ParseUsername(user)
		if err != nil {
			return false
		}
		id, err := r.Codec.Open(tid)
		return err == nil && rev.Hits(tid, id)
	})
	return err
}
