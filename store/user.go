package store

import (
	"context"
	"time"

	"epcscf/turncred"
)

// User is a local account of the WAF.
type User struct {
	Name         string
	PasswordHash turncred.Secret // argon2id in PHC form, $argon2id$v=19$...
	IMPI         turncred.IMPI
	IMPUs        []string // sip: and tel: URIs
	Class        string   // policy class; of a class with a pool, identities are lent
	Disabled     bool
	Created      time.Time // set by AddUser
}

// Users are the local accounts.
type Users interface {
	// AddUser writes a new user. The error is ErrConflict where the name is taken.
	AddUser(ctx context.Context, u User) error
	// SetUser replaces a user but for Created. The error is ErrNotFound.
	SetUser(ctx context.Context, u User) error
	// User returns a user. The error is ErrNotFound.
	User(ctx context.Context, name string) (User, error)
	// Users returns all, by name.
	Users(ctx context.Context) ([]User, error)
	// DeleteUser forgets a user. The error is ErrNotFound.
	DeleteUser(ctx context.Context, name string) error
}
