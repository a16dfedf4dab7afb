package coturn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"epcscf/internal/realpart"
	"epcscf/store/postgres/pgtest"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// cluster runs for all tests of the package, once one of them wants it.
var cluster struct {
	once sync.Once
	*pgtest.Cluster
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if cluster.Cluster != nil {
		_ = cluster.Close()
	}
	os.Exit(code)
}

func startCluster(t *testing.T) *pgtest.Cluster {
	t.Helper()
	cluster.once.Do(func() { cluster.Cluster, cluster.err = pgtest.New() })
	if cluster.err != nil {
		realpart.Missing(t, cluster.err.Error())
	}
	return cluster.Cluster
}

// coturnDatabase is an empty database of coturn's: its name, and our side of it.
func coturnDatabase(t *testing.T, c *pgtest.Cluster) (string, *Database) {
	t.Helper()
	schema, err := os.ReadFile("/usr/share/coturn/schema.sql")
	if err != nil {
		t.Fatal(err) // turnserver is there, so its package is
	}
	name := c.Database(t)
	url := c.URL(name)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), string(schema)); err != nil {
		t.Fatal(err)
	}
	d, err := NewDatabase(turncred.NewSecret([]byte(url)), testRealm)
	if err == nil {
		err = d.Prune(t.Context(), time.Now()) // which makes our tables
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return name, d
}

// userdb is turnserver's argument for a database.
func userdb(t *testing.T, c *pgtest.Cluster, name string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(c.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("--psql-userdb=host=%s port=%d dbname=%s user=%s", cfg.Host, cfg.Port, cfg.Database, cfg.User)
}

// TestPush: approach 2 with coturn as the relay. A credential works when Provision returns,
// twice the same is one, another body is a conflict; a revoked one makes no session any more
// and its session ends, another device's goes on; an expired one is pruned.
func TestPush(t *testing.T) {
	cluster := startCluster(t)
	name, d := coturnDatabase(t, cluster)
	s := startServer(t, "--lt-cred-mech", userdb(t, cluster, name))
	e, _ := newEdge(t, Config{DatabaseURL: turncred.NewSecret([]byte(cluster.URL(name))), Admin: s.admin}, turncred.ApproachPush)

	first, second := e.issue(t, "alice", 1), e.issue(t, "alice", 2)
	live, err := allocate(t, s, first)
	if err != nil || !live.relays(t) {
		t.Fatalf("a credential right after it was made: %v", err)
	}
	other, err := allocate(t, s, second)
	if err != nil || !other.relays(t) {
		t.Fatalf("the other device: %v", err)
	}
	wrong := first
	wrong.Password = second.Password
	if _, err := allocate(t, s, wrong); err == nil {
		t.Error("coturn takes a wrong password: is it checking at all?")
	}

	e.revoke(t, turncred.Scope{IMPI: "alice", Binding: 1})
	if live.relays(t) {
		t.Error("the revoked session relays on")
	}
	if _, err := allocate(t, s, first); err == nil {
		t.Error("a revoked credential makes a session")
	}
	if !other.relays(t) {
		t.Error("the other device's session has ended")
	}
	if again, err := allocate(t, s, e.issue(t, "alice", 1)); err != nil || !again.relays(t) {
		t.Errorf("a new credential of the device: %v", err)
	}

	if err := d.Prune(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := allocate(t, s, second); err == nil {
		t.Error("an expired and pruned credential makes a session")
	}
	for _, c := range []turncred.Credential{first, second} {
		if bytes.Contains(cluster.Dump(t, name), c.Password.Reveal()) {
			t.Error("the database holds a password")
		}
	}
}

// TestSecrets: approach 1 with the keys in coturn's table, through a rotation; rows that are
// not ours stay.
func TestSecrets(t *testing.T) {
	cluster := startCluster(t)
	name, d := coturnDatabase(t, cluster)
	s := startServer(t, "--use-auth-secret", userdb(t, cluster, name))
	e, r := newEdge(t, Config{DatabaseURL: turncred.NewSecret([]byte(cluster.URL(name))), Admin: s.admin}, turncred.ApproachSharedKey)
	if _, err := d.pool.Exec(t.Context(), `INSERT INTO turn_secret (realm, value) VALUES ($1, 'somebody else''s')`, string(testRealm)); err != nil {
		t.Fatal(err)
	}
	next := turncred.Key{ID: "k2", Secret: turncred.NewSecret(bytes.Repeat([]byte("n"), turncred.MinSecretLen))}
	old := turncred.Key{ID: "k1", Secret: testKm}
	c := e.issue(t, "alice", 1)
	for _, tt := range []struct {
		keys []turncred.Key
		good bool
	}{
		{nil, false}, {[]turncred.Key{old}, true}, {[]turncred.Key{old, next}, true}, {[]turncred.Key{next}, false},
	} {
		if err := r.SetKeys(tt.keys); err != nil {
			t.Fatal(err)
		}
		if ids, err := r.Check(t.Context()); err != nil || len(ids) != len(tt.keys) {
			t.Fatalf("Check: %v, %v", ids, err)
		}
		if _, err := allocate(t, s, c); (err == nil) != tt.good {
			t.Errorf("with %d keys: %v, want good: %v", len(tt.keys), err, tt.good)
		}
	}
	var rows int
	if err := d.pool.QueryRow(t.Context(), `SELECT count(*) FROM turn_secret`).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows of turn_secret (%v), want ours and somebody else's", rows, err)
	}
	binary := turncred.Key{ID: "k3", Secret: turncred.NewSecret([]byte("a\x00b"))}
	if err := r.SetKeys([]turncred.Key{binary}); err == nil || !strings.Contains(err.Error(), "printable") {
		t.Errorf("a key that is no text: %v", err)
	}
}

// record is a credential as an issuer writes it.
func record(tid turncred.Tid, id turncred.Identity, texp time.Time, password string) push.Record {
	name := fmt.Sprintf("%s:%d", tid, texp.Unix())
	return push.Record{
		Tid: tid, Username: name, Realm: testRealm, Texp: texp, Identity: id,
		Key: turncred.NewLongTermKey(name, testRealm, turncred.NewSecret([]byte(password))),
	}
}

// TestOrder is a model test: writes and revocations in any order, repeated and from two edges
// at once, leave in coturn's table exactly what no revocation hits.
func TestOrder(t *testing.T) {
	cluster := startCluster(t)
	_, d := coturnDatabase(t, cluster)
	codec, err := turncred.NewTidCodec(testDeployment)
	if err != nil {
		t.Fatal(err)
	}
	texp := time.Now().Add(time.Hour).Truncate(time.Second)
	var number uint8
	rapid.Check(t, func(rt *rapid.T) {
		if _, err := d.pool.Exec(t.Context(), `TRUNCATE turnusers_lt, epcscf_turn_users, epcscf_turn_revocations`); err != nil {
			rt.Fatal(err)
		}
		var records []push.Record
		for range rapid.IntRange(1, 6).Draw(rt, "credentials") {
			number++
			id := turncred.Identity{
				Subject: turncred.Subject(rapid.IntRange(1, 2).Draw(rt, "subject")),
				Binding: turncred.Binding(rapid.IntRange(1, 2).Draw(rt, "binding")),
				Issued:  turncred.IssueTime(rapid.IntRange(1, 4).Draw(rt, "issued")),
			}
			kid := rapid.SampledFrom([]turncred.KeyID{"a", "b"}).Draw(rt, "kid")
			tid, err := codec.Seal(kid, id, number)
			if err != nil {
				rt.Fatal(err)
			}
			records = append(records, record(tid, id, texp, "p"))
		}
		revocations := drawRevocations(rt, records, texp)
		var steps []func() error
		for _, r := range records {
			put := func() error { return d.Put(t.Context(), r) }
			steps = append(steps, put, put)
		}
		for _, r := range revocations {
			steps = append(steps, func() error { return d.Revoke(t.Context(), r) })
		}
		steps = rapid.Permutation(steps).Draw(rt, "order")
		var g errgroup.Group
		for i := range 2 {
			g.Go(func() error {
				for n := i; n < len(steps); n += 2 {
					if err := steps[n](); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			rt.Fatal(err)
		}
		for _, r := range records {
			want := true
			for _, rev := range revocations {
				want = want && !rev.Hits(r.Tid, r.Identity)
			}
			var there bool
			if err := d.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM turnusers_lt WHERE name = $1)`, r.Username).Scan(&there); err != nil {
				rt.Fatal(err)
			}
			if there != want {
				rt.Fatalf("%s of %+v is there: %v, want %v, after %+v", r.Tid, r.Identity, there, want, revocations)
			}
		}
	})
}

func drawRevocations(rt *rapid.T, records []push.Record, until time.Time) (revocations []turncred.Revocation) {
	for range rapid.IntRange(0, 4).Draw(rt, "revocations") {
		r := turncred.Revocation{IssuedUntil: turncred.IssueTime(rapid.IntRange(0, 4).Draw(rt, "until")), Until: until}
		switch rapid.IntRange(0, 3).Draw(rt, "of") {
		case 0:
			r.Tid = rapid.SampledFrom(records).Draw(rt, "record").Tid
		case 1:
			r.KeyID = "a"
		case 2:
			b := turncred.Binding(1)
			r.Subject, r.Binding = 1, &b
		default:
			r.Subject = 2
		}
		revocations = append(revocations, r)
	}
	return revocations
}

func TestConflict(t *testing.T) {
	_, d := coturnDatabase(t, startCluster(t))
	texp := time.Now().Add(time.Hour)
	codec, _ := turncred.NewTidCodec(testDeployment)
	id := turncred.Identity{Subject: 1, Issued: 1}
	tid, err := codec.Seal("k1", id, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := record(tid, id, texp, "one")
	var wg sync.WaitGroup
	for range 8 { // the same from many edges is the same answer
		wg.Go(func() {
			if err := d.Put(t.Context(), r); err != nil {
				t.Errorf("the same again: %v", err)
			}
		})
	}
	wg.Wait()
	for name, other := range map[string]push.Record{"another key": record(tid, id, texp, "two"), "another expiry": record(tid, id, texp.Add(time.Second), "one")} {
		if err := d.Put(t.Context(), other); !errors.Is(err, push.ErrConflict) {
			t.Errorf("%s: %v, want ErrConflict", name, err)
		}
	}
}

func TestDatabaseIsNotCoturns(t *testing.T) {
	cluster := startCluster(t)
	d, err := NewDatabase(turncred.NewSecret([]byte(cluster.URL(cluster.Database(t)))), testRealm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if err := d.Prune(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "schema.sql") {
		t.Errorf("error %v, want one that says to load coturn's schema.sql", err)
	}
	if _, err := NewDatabase(turncred.NewSecret([]byte("postgres://u:hush@:x/")), testRealm); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("error %v, want one without the password", err)
	}
}
