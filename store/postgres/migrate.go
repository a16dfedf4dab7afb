package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"epcscf/migrations"
)

// Migrate brings the schema up to this version's, under a lock that other nodes wait for.
// goes is called before each migration; it may be nil.
func Migrate(ctx context.Context, dsn string, allowInsecure bool, goes func(migrations.Migration)) error {
	return connected(ctx, dsn, allowInsecure, func(conn *pgx.Conn) error {
		return migrations.Up(ctx, conn, 0, goes)
	})
}

// Schema returns the migrations of this version, and the number of the schema as it is.
func Schema(ctx context.Context, dsn string, allowInsecure bool) (all []migrations.Migration, at int, err error) {
	err = connected(ctx, dsn, allowInsecure, func(conn *pgx.Conn) error {
		all, at, err = migrations.Status(ctx, conn)
		return err
	})
	return all, at, err
}

// connected opens one connection under the rules of Open.
func connected(ctx context.Context, dsn string, allowInsecure bool, f func(*pgx.Conn) error) error {
	pc, err := ParseDSN(dsn, allowInsecure)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, pc.ConnConfig)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return errors.Join(f(conn), conn.Close(context.WithoutCancel(ctx)))
}
