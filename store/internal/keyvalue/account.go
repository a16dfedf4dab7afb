package keyvalue

import (
	"context"

	"epcscf/store"
	"epcscf/turncred"
)

// clientRow and userRow hold the hash that the embedded record would print as REDACTED.
type clientRow struct {
	store.Client
	SecretHash []byte
}

func (r clientRow) client() store.Client {
	r.Client.SecretHash = secretOf(r.SecretHash)
	return r.Client
}

type userRow struct {
	store.User
	PasswordHash []byte
}

func (r userRow) user() store.User {
	r.User.PasswordHash = secretOf(r.PasswordHash)
	return r.User
}

// secretOf is the zero Secret for none.
func secretOf(b []byte) turncred.Secret {
	if len(b) == 0 {
		return turncred.Secret{}
	}
	return turncred.NewSecret(b)
}

func changedClient(id string) store.Change {
	return store.Change{Kind: store.ChangedClient, ID: id}
}

func changedUser(name string) store.Change {
	return store.Change{Kind: store.ChangedUser, ID: name}
}

// AddClient implements store.Clients.
func (s *Store) AddClient(ctx context.Context, c store.Client) error {
	if err := named("client", c.ID); err != nil {
		return err
	}
	c.Created = s.now().UTC()
	row := clientRow{c, c.SecretHash.Reveal()}
	return s.update(ctx, func(tx Tx) error { return add(tx, clients, c.ID, row) }, changedClient(c.ID))
}

// SetClient implements store.Clients.
func (s *Store) SetClient(ctx context.Context, c store.Client) error {
	row := clientRow{c, c.SecretHash.Reveal()}
	return s.update(ctx, func(tx Tx) error {
		old, err := get[clientRow](tx, clients, c.ID)
		if err != nil {
			return err
		}
		row.Created = old.Created
		return put(tx, clients, c.ID, row)
	}, changedClient(c.ID))
}

// Client implements store.Clients.
func (s *Store) Client(ctx context.Context, id string) (store.Client, error) {
	row, err := one[clientRow](s, ctx, clients, id)
	return row.client(), err
}

// Clients implements store.Clients.
func (s *Store) Clients(ctx context.Context) ([]store.Client, error) {
	rows, err := list[clientRow](s, ctx, clients)
	cs := make([]store.Client, len(rows))
	for i, row := range rows {
		cs[i] = row.client()
	}
	return cs, err
}

// DeleteClient implements store.Clients.
func (s *Store) DeleteClient(ctx context.Context, id string) error {
	return s.update(ctx, func(tx Tx) error { return remove(tx, clients, id) }, changedClient(id))
}

// AddUser implements store.Users.
func (s *Store) AddUser(ctx context.Context, u store.User) error {
	if err := named("user", u.Name); err != nil {
		return err
	}
	u.Created = s.now().UTC()
	row := userRow{u, u.PasswordHash.Reveal()}
	return s.update(ctx, func(tx Tx) error { return add(tx, users, u.Name, row) }, changedUser(u.Name))
}

// SetUser implements store.Users.
func (s *Store) SetUser(ctx context.Context, u store.User) error {
	row := userRow{u, u.PasswordHash.Reveal()}
	return s.update(ctx, func(tx Tx) error {
		old, err := get[userRow](tx, users, u.Name)
		if err != nil {
			return err
		}
		row.Created = old.Created
		return put(tx, users, u.Name, row)
	}, changedUser(u.Name))
}

// User implements store.Users.
func (s *Store) User(ctx context.Context, name string) (store.User, error) {
	row, err := one[userRow](s, ctx, users, name)
	return row.user(), err
}

// Users implements store.Users.
func (s *Store) Users(ctx context.Context) ([]store.User, error) {
	rows, err := list[userRow](s, ctx, users)
	us := make([]store.User, len(rows))
	for i, row := range rows {
		us[i] = row.user()
	}
	return us, err
}

// DeleteUser implements store.Users.
func (s *Store) DeleteUser(ctx context.Context, name string) error {
	return s.update(ctx, func(tx Tx) error { return remove(tx, users, name) }, changedUser(name))
}
