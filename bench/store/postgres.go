package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"epcscf/migrations"
	"epcscf/store/postgres"
	"epcscf/store/postgres/pgtest"
)

// openPostgres runs a cluster of its own, which syncs what it commits.
func openPostgres(ctx context.Context, _ string) (c *subject, err error) {
	cluster, err := pgtest.New(pgtest.Synced)
	if errors.Is(err, pgtest.ErrMissing) {
		return nil, fmt.Errorf("%w: %w", errNotHere, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, cluster.Close())
		}
	}()
	url := cluster.URL("postgres")
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if err := migrations.Up(ctx, conn, 0, nil); err != nil {
		return nil, err
	}
	keks, err := newKEKs()
	if err != nil {
		return nil, err
	}
	c, err = durable(ctx, func(ctx context.Context) (closer, error) {
		return postgres.Open(ctx, postgres.Config{DSN: url, KEKs: keks})
	})
	if err != nil {
		return nil, err
	}
	c.bytes = func(ctx context.Context) (int64, error) { return relationSize(ctx, url) }
	closeStore := c.close
	c.close = func() error { return errors.Join(closeStore(), cluster.Close()) }
	return c, nil
}

// relationSize is what the table of credentials and its indexes take.
func relationSize(ctx context.Context, url string) (size int64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, "select pg_total_relation_size('credentials')").Scan(&size)
	return size, errors.Join(err, conn.Close(ctx))
}
