package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/migrations"
	"epcscf/store"
	"epcscf/store/storetest"
	"epcscf/turncred/push"
)

var update = flag.Bool("update", false, "rewrite the statements of this schema's version")

// fill makes tables large, mostly of what is out of date, as before a Prune.
const fill = `
insert into credentials select 'k1-' || i, 'u', 'r', now() - interval '1 day' + i * interval '5 s', i, i, 1, 'kek1', '\x00' from generate_series(1, 20000) i;
insert into revocations select 'r' || i, '', '', i, null, i, false, now() - interval '1 day' + i * interval '4.4 s' from generate_series(1, 20000) i;
insert into keys select 'kind' || i % 500, 'k' || i, '', null, null, 'next', now(), 'kek1', '\x00' from generate_series(1, 5000) i;
insert into changes (at, kind, id) select now() - interval '1 day' + i * interval '4.4 s', 'key', 'k' from generate_series(1, 20000) i;
insert into relays select 'relay' || i, '', '{}', 1, '', 'active', '{}', null from generate_series(1, 5000) i;
insert into edges select 'edge' || i, 1 from generate_series(1, 5000) i;
insert into clients select 'c' || i, '', '{}', '{}', '{}', '{}', '', false, now(), '' from generate_series(1, 5000) i;
insert into users select 'u' || i, '', '', '{}', '', false, now() from generate_series(1, 5000) i;
insert into grants select ('\x' || lpad(to_hex(i), 64, '0'))::bytea, 'code', 'f' || i, 'c', 'u', now() - interval '1 day' + i * interval '4.4 s', null, '' from generate_series(1, 20000) i;
insert into grant_families select 'f' || i, now() - interval '1 day' + i * interval '4.4 s' from generate_series(1, 20000) i;
insert into identities select 'i' || i, '{}', 'class' || i % 100, '', now() - interval '1 day' + i * interval '4.4 s' from generate_series(1, 20000) i;
insert into audit (at, actor, action, object, detail) select now() - interval '1 day' + i * interval '4.4 s', 'a', 'b', 'c', 'd' from generate_series(1, 20000) i;
analyze;`

// testPlans: each statement that looks for rows finds them by an index. Those that want the
// whole of a small table are named here.
func testPlans(t *testing.T, c cluster) {
	conn, err := pgx.Connect(t.Context(), c.URL(c.database(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), fill); err != nil {
		t.Fatal(err)
	}
	whole := []string{"allChecks", "deleteChecks", "allKeys", "allRelays", "allEdges", "allClients", "allUsers", "allIdentities"}
	old, soon, hash := time.Now().Add(-23*time.Hour), time.Now().Add(-time.Minute), make([]byte, 32)
	args := map[string][]any{
		"theseCredentials": {[]string{"k1-5", "k1-7"}}, "liveCredentials": {soon, "", page}, "pruneCredentials": {old, 100},
		"liveRevocations": {soon}, "pruneRevocations": {old, 100},
		"oneKey": {"kind1", "k1"}, "kindKeys": {"kind1"}, "setKey": {"kind1", "k1", "next", "current", nil, nil}, "deleteKey": {"kind1", "k1"},
		"olderCredentials": {"kek1", 100}, "resealCredential": {"k1-5", "kek2", hash}, "resealKey": {"kind1", "k1", "kek2", hash},
		"newChanges": {soon, -1, page}, "pruneChanges": {old, 100},
		"setRelayState": {"relay1", "active"}, "lockRelay": {"relay1"}, "seeRelay": {"relay1", []string{}, soon}, "deleteRelay": {"relay1"},
		"setClient": {"c1", "", []string{}, []string{}, []string{}, []string{}, hash, false, hash}, "oneClient": {"c1"}, "deleteClient": {"c1"},
		"setUser": {"u1", hash, "", []string{}, "", false}, "oneUser": {"u1"}, "deleteUser": {"u1"},
		"consumeGrant": {"code", hash, old}, "oneGrant": {"code", hash}, "familyRevoked": {"f1"}, "pruneGrants": {old, 100}, "pruneFamilies": {old, 100},
		"oneIdentity": {"i1"}, "deleteIdentity": {"i1", soon}, "acquire": {"class1", "h", soon, soon},
		"changeLoan": {"i1", "h", "", soon, old}, "classIdentities": {"class1"},
		"someEvents": {soon, 0, time.Now(), page}, "pruneAudit": {old, 100},
	}
	for name, st := range statements {
		verb, _, _ := strings.Cut(string(st), " ")
		if verb == "insert" || !strings.Contains(string(st), "from") && verb == "select" || slices.Contains(whole, name) {
			continue // finds nothing, or by its conflict's index
		}
		arg, ok := args[name]
		if !ok {
			t.Errorf("%s has no arguments here", name)
			continue
		}
		var text []byte
		if err := conn.QueryRow(t.Context(), "explain (format json) "+string(st), arg...).Scan(&text); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var plans []struct{ Plan plan }
		if err := json.Unmarshal(text, &plans); err != nil {
			t.Fatal(err)
		}
		nodes := plans[0].Plan.nodes()
		if slices.Contains(nodes, "Seq Scan") || !slices.ContainsFunc(nodes, func(n string) bool { return strings.Contains(n, "Index") }) {
			t.Errorf("%s reads the table and no index: %v\n%s", name, nodes, st)
		}
	}
}

type plan struct {
	NodeType string `json:"Node Type"`
	Plans    []plan
}

func (p plan) nodes() []string {
	all := []string{p.NodeType}
	for _, sub := range p.Plans {
		all = append(all, sub.nodes()...)
	}
	return all
}

// testVersionBefore: the suite passes on the schema without its last migration, and a store
// that is open while that runs goes on.
func testVersionBefore(t *testing.T, c cluster) {
	latest, err := migrations.Latest()
	if err != nil {
		t.Fatal(err)
	}
	before := c.Database(t)
	migrateTo(t, c.URL(before), latest-1)
	name, err := c.NewDatabase(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	w := world{url: c.URL(name), schema: latest - 1}
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Open(storetest.Config{KEKs: keks, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // always nil
	r := storetest.Credential("k1-before", time.Now().Add(time.Hour))
	for range 2 {
		if err := s.PutCredentials(t.Context(), []push.Record{r}); err != nil {
			t.Error(err)
		}
		migrateTo(t, w.url, 0)
		r = storetest.Credential("k1-after", time.Now().Add(time.Hour))
	}
	n := 0
	if err := s.EachCredential(t.Context(), func(push.Record) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d credentials, %v, want that of before and that of after", n, err)
	}
	storetest.Run(t, func(t *testing.T) storetest.World {
		name, err := c.NewDatabase(t.Context(), before)
		if err != nil {
			t.Fatal(err)
		}
		return world{url: c.URL(name), schema: latest - 1}
	})
}

// testStatementsOfVersions: the statements of the version before can be prepared on this
// schema. A version's statements are written down in testdata, so a change of one is seen.
func testStatementsOfVersions(t *testing.T, c cluster) {
	latest, err := migrations.Latest()
	if err != nil {
		t.Fatal(err)
	}
	file := func(version int) string {
		return filepath.Join("testdata", fmt.Sprintf("statements_%03d.sql", version))
	}
	var now strings.Builder
	for _, name := range slices.Sorted(maps.Keys(statements)) {
		fmt.Fprintf(&now, "-- %s\n%s;\n\n", name, statements[name])
	}
	if *update {
		if err := os.WriteFile(file(latest), []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(file(latest)); err != nil || string(b) != now.String() {
		t.Errorf("%s does not have the statements of this version (%v): run  go test ./store/postgres -update", file(latest), err)
	}

	conn, err := pgx.Connect(t.Context(), c.URL(c.database(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for version := latest - 1; version <= latest; version++ {
		b, err := os.ReadFile(file(version))
		if errors.Is(err, os.ErrNotExist) {
			continue // the first version that was released has none before it
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range strings.Split(strings.TrimSpace(string(b)), ";\n\n") {
			if _, err := conn.Prepare(t.Context(), "", st); err != nil {
				t.Errorf("a statement of version %d does not run on schema %d: %v\n%s", version, latest, err, st)
			}
		}
	}
}
