package main

import (
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
	"epcscf/store"
)

// boltRing is an operator's folder with a bolt store and one key in a file.
func boltRing(t *testing.T) *served {
	t.Helper()
	dir := t.TempDir()
	return prepare(t, dir, map[string]string{
		"kek.key": strings.Repeat("e", 32), "kek2.key": strings.Repeat("f", 32), "k2.key": "canary" + strings.Repeat("2", 32),
	}, func(yaml string) string {
		return strings.Replace(yaml, "admin:", "tokens: {server_name: turn.ims.test, keys: [{kid: t1, file: t1.key}]}\nadmin:", 1) +
			"store: {kind: bolt, file: " + filepath.Join(dir, "store.db") + ", kek_file: kek.key}\n"
	})
}

var instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// TestKeysCommand: the life of keys, with every message.
func TestKeysCommand(t *testing.T) {
	s := boltRing(t)
	for _, step := range []struct {
		args string
		exit int
		want string // with TIME for each time
	}{
		{"list", 0, "KIND        KID  STATE      MADE  FROM  UNTIL\nshared-key  k1   in a file  -     -     -\n"},
		{"add --kid k2 --from " + filepath.Join(s.dir, "k2.key"), 0, "shared-key k2 is made, and next\n"},
		{"add --kid k2", 2, "epcscf: --kid: there is a key k2: give another name\n"},
		{"add --kid t1", 2, "epcscf: --kid: there is a key t1: give another name\n"},
		{"add --kid k-3", 2, "epcscf: --kid: want 1 to 16 letters and digits, such as k2, got \"k-3\"\n"},
		{"rotate", 0, "shared-key k2 is current\nshared-key k1 stands in a file: take it out after TIME\n"},
		{"retire k2", 1, "epcscf: shared-key k2 is the only one that is current: epcscf keys rotate --kind shared-key makes another, and retires it\n"},
		{"add --kid k3", 0, "shared-key k3 is made, and next\n"},
		{"rotate", 0, "shared-key k3 is current\nshared-key k2 is retired: what was made with it lives on until TIME\nshared-key k1 stands in a file: take it out after TIME\n"},
		{"retire k2", 1, "epcscf: shared-key k2 is retired already\n"},
		{"revoke k1", 0, "shared-key k1 is revoked\n"},
		{"revoke k1", 1, "epcscf: shared-key k1 is revoked already\n"},
		{"revoke k9", 1, "epcscf: shared-key k9: not found in the store: see  epcscf keys list --kind shared-key\n"},
		{"add --kid k4", 0, "shared-key k4 is made, and next\n"},
		{"revoke k3", 0, "shared-key k3 is revoked\nshared-key k4 is current\n"},
		{"list", 0, "KIND        KID  STATE    MADE                  FROM                  UNTIL\n" +
			"shared-key  k1   revoked  TIME  -                     TIME\n" +
			"shared-key  k2   retired  TIME  TIME  TIME\n" +
			"shared-key  k3   revoked  TIME  TIME  TIME\n" +
			"shared-key  k4   current  TIME  TIME  -\n"},
		{"add --kind token --kid t2", 0, "token t2 is made, and next\n"},
		{"rotate --kind token", 0, "token t2 is current\ntoken t1 stands in a file: take it out after TIME\n"},
		{"list --kind kek", 0, "KIND  KID   STATE\nkek   kek1  current\n"},
		{"rotate --kind kek", 0, "store.older_keks is empty: everything is under kek1\n"},
		{"add --kind kek", 2, "epcscf: a key-encryption key is made by hand, since the store must not hold it: write the new one to store.kek_file, give it another store.kek_id, list the one before in store.older_keks, do that at every node, and run  epcscf keys rotate --kind kek\n"},
		{"list --kind kem", 2, "epcscf: --kind \"kem\": want shared-key, token, kek or jwt\n"},
		{"revoke", 2, "epcscf: want the name of one key: see epcscf keys revoke --help\n"},
	} {
		args := append([]string{"keys"}, strings.Fields(step.args)...)
		got := instant.ReplaceAllString(epcscf(t, step.exit, append(args, "-c", s.file)...), "TIME")
		if got != step.want {
			t.Errorf("keys %s:\n%swant:\n%s", step.args, got, step.want)
		}
	}
	s.edit(t, "kek_file: kek.key", "kek_file: kek2.key, kek_id: kek2, older_keks: kek1:kek.key")
	if got, want := epcscf(t, 0, "keys", "rotate", "--kind", "kek", "-c", s.file), "5 rows are under kek2 now\neverything is under kek2: take store.older_keks out of every node's file\n"; got != want {
		t.Errorf("keys rotate --kind kek: %s, want %s", got, want)
	}
	s.edit(t, ", older_keks: kek1:kek.key", "")
	if got := epcscf(t, 0, "keys", "list", "-c", s.file); !strings.Contains(got, "k4 ") || strings.Contains(got, "canary") {
		t.Errorf("under the new key-encryption key: %s", got)
	}
	if got := auditOf(t, s); got != "add shared-key/k2,rotate shared-key/k2,add shared-key/k3,rotate shared-key/k3,retire shared-key/k2,revoke shared-key/k1,"+
		"add shared-key/k4,revoke shared-key/k3,rotate shared-key/k4,add token/t2,rotate token/t2,rotate kek/kek2" {
		t.Errorf("the audit trail: %s", got)
	}
}

// auditOf returns what the audit trail says of keys.
func auditOf(t *testing.T, s *served) string {
	t.Helper()
	f, err := config.Load(s.file, "")
	if err != nil {
		t.Fatal(err)
	}
	db, err := node.OpenStore(t.Context(), f.Store(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	err = db.Events(t.Context(), time.Time{}, time.Time{}, func(e store.Event) error {
		all = append(all, strings.TrimPrefix(e.Action, "key.")+" "+e.Object)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ",")
}

// TestKeysWithBolt: a single node takes the keys of its file store at its start; while it runs
// the commands say whose the file is. Without a store there is nothing to change.
func TestKeysWithBolt(t *testing.T) {
	s := boltRing(t)
	epcscf(t, 0, "keys", "rotate", "-c", s.file)
	s.spawn(t)
	s.follows(t)
	cred, err := s.asks(t).credential()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := allocate(cred); err != nil || strings.HasPrefix(cred.Tid, "k1") {
		t.Errorf("a credential of the ring's key: %v, %v", cred, err)
	} else {
		a.close()
	}
	out := epcscf(t, 1, "keys", "list", "-c", s.file)
	for _, want := range []string{"another process holds the file", "while epcscf serve is stopped"} {
		if !strings.Contains(out, want) {
			t.Errorf("keys list beside the process: %s, want %q", out, want)
		}
	}
	s.edit(t, "tokens: {server_name: turn.ims.test, keys: [{kid: t1, file: t1.key}]}", "")
	if out := epcscf(t, 2, "keys", "rotate", "--kind", "token", "-c", s.file); !strings.Contains(out, "tokens.server_name is not set") {
		t.Errorf("keys rotate --kind token without tokens: %s", out)
	}
	without := prepare(t, t.TempDir(), nil, nil)
	if out := epcscf(t, 2, "keys", "list", "-c", without.file); !strings.Contains(out, "store.kind is memory, which would forget this at once") {
		t.Errorf("keys list without a store: %s", out)
	}
}

// TestKeysJWT: the WAF's signing keys rotate too.
func TestKeysJWT(t *testing.T) {
	s := boltRing(t)
	first := epcscf(t, 0, "keys", "rotate", "--kind", "jwt", "-c", s.file)
	second := epcscf(t, 0, "keys", "rotate", "--kind", "jwt", "-c", s.file)
	if !strings.Contains(first, " is current\n") || strings.Contains(first, "retired") || !strings.Contains(second, " is retired: ") {
		t.Errorf("keys rotate --kind jwt: %s%s", first, second)
	}
}
