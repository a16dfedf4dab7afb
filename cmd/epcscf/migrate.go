package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
	"epcscf/migrations"
	"epcscf/store/postgres"
)

// migrateFlags say where the database is.
type migrateFlags struct {
	config   string
	urlFile  string
	insecure bool
}

func newMigrateCommand() *cobra.Command {
	var f migrateFlags
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to this version, or say how it stands",
		Long: `Bring the schema of the PostgreSQL store up to this version, or say how it stands.

Migrations only go forward. Nodes of the version before run on the new schema: migrate
first, then replace the nodes one by one. Any number of processes may migrate at the same
time; one does, under an advisory lock.

The database is that of store.database_url_file in the configuration, or that of
--database-url-file, which needs no configuration.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVarP(&f.config, "config", "c", defaultConfig, "configuration file")
	c.PersistentFlags().StringVar(&f.urlFile, "database-url-file", "", "file of mode 0600 with the connection string, in place of the configuration")
	c.PersistentFlags().BoolVar(&f.insecure, "allow-insecure", false, "with --database-url-file: take an sslmode below verify-full to another host")
	c.AddCommand(
		&cobra.Command{Use: "up", Short: "Run the migrations that have not run yet", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error { return runMigrateUp(c, f) }},
		&cobra.Command{Use: "status", Short: "List the migrations; the exit code is 1 where some are to run", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error { return runMigrateStatus(c, f) }},
	)
	return c
}

// database returns the connection string.
func (f migrateFlags) database() (url string, insecure bool, err error) {
	if f.urlFile != "" {
		url, err = node.ReadDatabaseURL(f.urlFile)
		return url, f.insecure, err
	}
	file, err := config.Load(f.config, "")
	if err != nil {
		return "", false, usageError{err}
	}
	s := file.Store()
	if s.Kind != node.StorePostgres {
		return "", false, usageError{fmt.Errorf("%s: store.kind is %s, which has no schema to migrate", f.config, s.Kind)}
	}
	return s.DatabaseURL, s.AllowInsecure, nil
}

func runMigrateUp(c *cobra.Command, f migrateFlags) error {
	url, insecure, err := f.database()
	if err != nil {
		return err
	}
	out, ran := c.OutOrStdout(), 0
	err = postgres.Migrate(c.Context(), url, insecure, func(m migrations.Migration) {
		ran++
		_, _ = fmt.Fprintln(out, "run", m.Name)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d migrations run, the schema is up to date\n", ran)
	return err
}

// statusWait is long for a database that is there.
const statusWait = 15 * time.Second

func runMigrateStatus(c *cobra.Command, f migrateFlags) error {
	url, insecure, err := f.database()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), statusWait)
	defer cancel()
	all, at, err := postgres.Schema(ctx, url, insecure)
	if err != nil {
		return err
	}
	out, left := c.OutOrStdout(), 0
	for _, m := range all {
		state := "done"
		if !m.Done {
			state = "to run"
			left++
		}
		if _, err := fmt.Fprintf(out, "%-24s %s\n", m.Name, state); err != nil {
			return err
		}
	}
	switch {
	case left > 0:
		return errors.New("the schema is older than this version needs: run  epcscf migrate up")
	case at > len(all):
		_, err = fmt.Fprintf(out, "The schema is at %d, which a newer version made; this one runs on it.\n", at)
	}
	return err
}
