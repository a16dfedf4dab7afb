package config

import (
	"strings"
	"testing"

	"epcscf/cmd/internal/node"
)

// withStore is good with a section store of its own.
func withStore(t *testing.T, section string) (*File, error) {
	t.Helper()
	dir := folder(t)
	write(t, dir, "db.url", "postgres://epcscf:canary@db.ims.test/epcscf\n", 0o600)
	write(t, dir, "insecure.url", "postgres://epcscf:canary@db.ims.test/epcscf?sslmode=require\n", 0o600)
	write(t, dir, "open.url", "postgres:///epcscf\n", 0o644)
	write(t, dir, "two.url", "postgres:///a\npostgres:///b\n", 0o600)
	return Load(write(t, dir, "epcscf.yaml", good+"store:\n"+section, 0o644), "")
}

func TestStore(t *testing.T) {
	for _, tt := range []struct {
		name, section string
		want          node.StoreKind
		older         int
		faults        []string // words of the error; none: it is good
	}{
		{name: "memory", section: "  kind: memory\n", want: node.StoreMemory},
		{name: "bolt", section: "  kind: bolt\n  file: s.db\n  kek_file: k1.key\n", want: node.StoreBolt},
		{name: "rotated", section: "  kind: bolt\n  kek_file: k1.key\n  kek_id: kek2\n  older_keks: kek1:deployment.key\n", want: node.StoreBolt, older: 1},
		{name: "postgres", section: "  kind: postgres\n  database_url_file: db.url\n  kek_file: k1.key\n", want: node.StorePostgres},
		{name: "insecure, by name", section: "  kind: postgres\n  database_url_file: insecure.url\n  kek_file: k1.key\n  allow_insecure: true\n", want: node.StorePostgres},

		{name: "another kind", section: "  kind: redis\n", faults: []string{"29:9", "memory or bolt or postgres"}},
		{name: "no KEK", section: "  kind: bolt\n", faults: []string{"store.kek_file", "openssl rand"}},
		{name: "short KEK", section: "  kind: bolt\n  kek_file: short.key\n", faults: []string{"store.kek_file", "31 bytes"}},
		{name: "open KEK", section: "  kind: bolt\n  kek_file: open.key\n", faults: []string{"store.kek_file", "chmod 600"}},
		{name: "name of a KEK", section: "  kek_id: kek-1\n", faults: []string{"store.kek_id", "letters and digits"}},
		{name: "older of the same name", section: "  kind: bolt\n  kek_file: k1.key\n  older_keks: kek1:deployment.key\n", faults: []string{"store.older_keks", "a name of its own"}},
		{name: "older without a name", section: "  older_keks: deployment.key\n", faults: []string{"store.older_keks", "ID:FILE"}},
		{name: "no database", section: "  kind: postgres\n  kek_file: k1.key\n", faults: []string{"store.database_url_file", "0600"}},
		{name: "insecure", section: "  kind: postgres\n  database_url_file: insecure.url\n  kek_file: k1.key\n", faults: []string{"store.database_url_file", "db.ims.test", "verify-full"}},
		{name: "open URL", section: "  kind: postgres\n  database_url_file: open.url\n  kek_file: k1.key\n", faults: []string{"store.database_url_file", "chmod 600"}},
		{name: "two URLs", section: "  kind: postgres\n  database_url_file: two.url\n  kek_file: k1.key\n", faults: []string{"store.database_url_file", "one line"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := withStore(t, tt.section)
			if err != nil {
				for _, word := range append(tt.faults, "") {
					if len(tt.faults) == 0 || !strings.Contains(err.Error(), word) {
						t.Errorf("Load = %v, want %q", err, tt.faults)
					}
				}
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("the error shows the password: %v", err)
				}
				return
			}
			if s := f.Store(); len(tt.faults) > 0 || s.Kind != tt.want || len(s.OlderKEKs) != tt.older {
				t.Errorf("store is %s with %d older KEKs, want %s with %d and faults %q", s.Kind, len(s.OlderKEKs), tt.want, tt.older, tt.faults)
			}
		})
	}
}
