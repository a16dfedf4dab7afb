package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"epcscf/store/postgres/pgtest"
)

// TestMigrate runs the commands on a database of its own.
func TestMigrate(t *testing.T) {
	c := pgtest.Start(t)
	file := filepath.Join(t.TempDir(), "database.url")
	if err := os.WriteFile(file, []byte(c.TLSURL(c.Database(t))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		exit int
		want []string
	}{
		{[]string{"status"}, 1, []string{"001_records.sql", "to run", "epcscf migrate up"}},
		{[]string{"up"}, 0, []string{"run 001_records.sql", "run 005_rotation.sql", "up to date"}},
		{[]string{"up"}, 0, []string{"0 migrations run"}},
		{[]string{"status"}, 0, []string{"001_records.sql", "done"}},
		{[]string{"down"}, 2, []string{"takes no argument"}},
	} {
		var out bytes.Buffer
		args := append([]string{"migrate", "--database-url-file", file}, tt.args...)
		if exit := run(t.Context(), args, &out, &out); exit != tt.exit {
			t.Errorf("%q exits with %d, want %d: %s", tt.args, exit, tt.exit, out.String())
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q prints %q, want %q in it", tt.args, out.String(), want)
			}
		}
		if strings.Contains(out.String(), pgtest.Password) {
			t.Errorf("%q shows the password: %s", tt.args, out.String())
		}
	}
}
