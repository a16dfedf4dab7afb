// Package migrations is the schema of the PostgreSQL store: numbered SQL files that only go
// forward. `epcscf migrate up` runs them, one process at a time, by an advisory lock.
//
// The version before must run on the schema after: nodes are replaced one by one, after the
// schema. So a migration adds; what nobody uses any more goes a version later. A column that
// is added has a default or may be null.
package migrations

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"
)

//go:embed *.sql
var files embed.FS

// versionTable holds the number of the last migration that ran.
const versionTable = "epcscf_schema_version"

// Migration is one numbered file.
type Migration struct {
	Number int
	Name   string // of the file
	Done   bool
}

// Latest returns the number of the last file: the schema that this version needs.
func Latest() (int, error) {
	names, err := migrate.FindMigrations(files)
	return len(names), err
}

// Up runs what has not run yet, up to a number; 0 is all. What goes by happens before each.
// A schema that is newer is left alone.
func Up(ctx context.Context, conn *pgx.Conn, to int, goes func(Migration)) error {
	m, err := load(ctx, conn)
	if err != nil {
		return err
	}
	if to == 0 {
		to = len(m.Migrations)
	}
	if goes != nil {
		m.OnStart = func(number int32, name, _, _ string) { goes(Migration{Number: int(number), Name: name}) }
	}
	at, err := m.GetCurrentVersion(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if int(at) >= to {
		return nil
	}
	if err := m.MigrateTo(ctx, int32(to)); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Status returns all migrations, and the number of the schema as it is, which is higher
// than theirs where a newer version has run. It writes nothing.
func Status(ctx context.Context, conn *pgx.Conn) (all []Migration, at int, err error) {
	names, err := migrate.FindMigrations(files)
	if err != nil {
		return nil, 0, fmt.Errorf("migrate: %w", err)
	}
	if at, err = Version(ctx, conn); err != nil {
		return nil, 0, fmt.Errorf("migrate: %w", err)
	}
	for i, name := range names {
		all = append(all, Migration{i + 1, name, i < at})
	}
	return all, at, nil
}

// Version returns the number of the schema as it is, 0 where there is none, and needs no
// right but to read.
func Version(ctx context.Context, conn *pgx.Conn) (at int, err error) {
	var there bool
	if err := conn.QueryRow(ctx, "select to_regclass($1) is not null", versionTable).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = conn.QueryRow(ctx, "select version from "+versionTable).Scan(&at)
	return at, err
}

func load(ctx context.Context, conn *pgx.Conn) (*migrate.Migrator, error) {
	m, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	if err := m.LoadMigrations(files); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	return m, nil
}
