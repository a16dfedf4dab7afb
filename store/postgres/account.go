package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"epcscf/store"
	"epcscf/turncred"
)

func secretOf(b []byte) turncred.Secret {
	if len(b) == 0 {
		return turncred.Secret{}
	}
	return turncred.NewSecret(b)
}

func scanClient(row pgx.Row) (c store.Client, err error) {
	var hash []byte
	err = row.Scan(&c.ID, &c.Name, &c.RedirectURIs, &c.GrantTypes, &c.Scopes, &c.Audiences, &hash, &c.Disabled, &c.Created, &c.Data)
	c.SecretHash = secretOf(hash)
	return c, err
}

func changedClient(id string) store.Change {
	return store.Change{Kind: store.ChangedClient, ID: id}
}

// AddClient implements store.Clients.
func (s *Store) AddClient(ctx context.Context, c store.Client) error {
	if err := named("client", c.ID); err != nil {
		return err
	}
	return s.changing(ctx, changedClient(c.ID), func(tx pgx.Tx) error {
		return must(ctx, tx, conflict("client", c.ID), addClient, c.ID, c.Name, list(c.RedirectURIs), list(c.GrantTypes), list(c.Scopes), list(c.Audiences),
			bytesOf(c.SecretHash.Reveal()), c.Disabled, s.cfg.Now(), bytesOf(c.Data))
	})
}

// SetClient implements store.Clients.
func (s *Store) SetClient(ctx context.Context, c store.Client) error {
	return s.changing(ctx, changedClient(c.ID), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("client", c.ID), setClient, c.ID, c.Name, list(c.RedirectURIs), list(c.GrantTypes), list(c.Scopes), list(c.Audiences),
			bytesOf(c.SecretHash.Reveal()), c.Disabled, bytesOf(c.Data))
	})
}

// Client implements store.Clients.
func (s *Store) Client(ctx context.Context, id string) (store.Client, error) {
	return one(ctx, s.pool, scanClient, notFound("client", id), oneClient, id)
}

// Clients implements store.Clients.
func (s *Store) Clients(ctx context.Context) ([]store.Client, error) {
	return rows(ctx, s.pool, scanClient, allClients)
}

// DeleteClient implements store.Clients.
func (s *Store) DeleteClient(ctx context.Context, id string) error {
	return s.changing(ctx, changedClient(id), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("client", id), deleteClient, id)
	})
}

func scanUser(row pgx.Row) (u store.User, err error) {
	var hash []byte
	err = row.Scan(&u.Name, &hash, &u.IMPI, &u.IMPUs, &u.Class, &u.Disabled, &u.Created)
	u.PasswordHash = secretOf(hash)
	return u, err
}

func changedUser(name string) store.Change {
	return store.Change{Kind: store.ChangedUser, ID: name}
}

// AddUser implements store.Users.
func (s *Store) AddUser(ctx context.Context, u store.User) error {
	if err := named("user", u.Name); err != nil {
		return err
	}
	return s.changing(ctx, changedUser(u.Name), func(tx pgx.Tx) error {
		return must(ctx, tx, conflict("user", u.Name), addUser, u.Name, bytesOf(u.PasswordHash.Reveal()), u.IMPI, list(u.IMPUs), u.Class, u.Disabled, s.cfg.Now())
	})
}

// SetUser implements store.Users.
func (s *Store) SetUser(ctx context.Context, u store.User) error {
	return s.changing(ctx, changedUser(u.Name), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("user", u.Name), setUser, u.Name, bytesOf(u.PasswordHash.Reveal()), u.IMPI, list(u.IMPUs), u.Class, u.Disabled)
	})
}

// User implements store.Users.
func (s *Store) User(ctx context.Context, name string) (store.User, error) {
	return one(ctx, s.pool, scanUser, notFound("user", name), oneUser, name)
}

// Users implements store.Users.
func (s *Store) Users(ctx context.Context) ([]store.User, error) {
	return rows(ctx, s.pool, scanUser, allUsers)
}

// DeleteUser implements store.Users.
func (s *Store) DeleteUser(ctx context.Context, name string) error {
	return s.changing(ctx, changedUser(name), func(tx pgx.Tx) error {
		return must(ctx, tx, notFound("user", name), deleteUser, name)
	})
}
