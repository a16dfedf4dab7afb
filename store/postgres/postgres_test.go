package postgres

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"epcscf/migrations"
	"epcscf/store"
	"epcscf/store/postgres/pgtest"
	"epcscf/store/storetest"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a PostgreSQL, and a database with the schema, from which others are made.
type cluster struct {
	*pgtest.Cluster
	template string
}

func newCluster(t *testing.T) cluster {
	c := cluster{Cluster: pgtest.Start(t)}
	c.template = c.Database(t)
	migrateTo(t, c.URL(c.template), 0)
	return c
}

func migrateTo(t *testing.T, url string, to int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := migrations.Up(t.Context(), conn, to, nil); err != nil {
		t.Fatal(err)
	}
}

// database makes one with the schema and returns its name.
func (c cluster) database(t *testing.T) string {
	t.Helper()
	name, err := c.NewDatabase(t.Context(), c.template)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// world is a database.
type world struct {
	url    string
	schema int
}

func (w world) Open(cfg storetest.Config) (store.Store, error) {
	s, err := Open(context.Background(), Config{DSN: w.url, KEKs: cfg.KEKs, Now: cfg.Now, MaxConns: 8, Poll: 50 * time.Millisecond, schema: w.schema})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func open(t *testing.T, url string) *Store {
	t.Helper()
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{DSN: url, KEKs: keks, MaxConns: 8, Poll: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // always nil
	return s
}

// TestPostgres is all that one cluster serves.
func TestPostgres(t *testing.T) {
	c := newCluster(t)
	t.Run("Store", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.World { return world{url: c.URL(c.database(t))} })
	})
	t.Run("TwoNodes", func(t *testing.T) { testTwoNodes(t, c) })
	t.Run("Plans", func(t *testing.T) { testPlans(t, c) })
	t.Run("VersionBefore", func(t *testing.T) { testVersionBefore(t, c) })
	t.Run("StatementsOfVersions", func(t *testing.T) { testStatementsOfVersions(t, c) })
	t.Run("Schema", func(t *testing.T) { testSchema(t, c) })
	t.Run("NodeRole", func(t *testing.T) { testNodeRole(t, c) })
	t.Run("NoSecretInDump", func(t *testing.T) { testNoSecretInDump(t, c) })
	t.Run("TLS", func(t *testing.T) { testTLS(t, c) })
	t.Run("Outage", func(t *testing.T) { testOutage(t, c) })
	t.Run("Late", func(t *testing.T) { testLate(t, c) })
}

// testTwoNodes: what one writes the other sees, conflicts and changes included.
func testTwoNodes(t *testing.T, c cluster) {
	url := c.URL(c.database(t))
	a, b := open(t, url), open(t, url)
	r := storetest.Credential("k1-one", time.Now().Add(time.Hour))
	if err := a.PutCredentials(t.Context(), []push.Record{r}); err != nil {
		t.Fatal(err)
	}
	if err := b.PutCredentials(t.Context(), []push.Record{r}); err != nil {
		t.Errorf("the same of another node: %v", err)
	}
	r.Identity.Subject++
	if err := b.PutCredentials(t.Context(), []push.Record{r}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another body of another node: %v, want ErrConflict", err)
	}

	told, stop := watch(t, b)
	if err := a.PutRelay(t.Context(), store.Relay{Name: "relay1"}); err != nil {
		t.Fatal(err)
	}
	if got, want := <-told, (store.Change{Kind: store.ChangedRelay, ID: "relay1"}); got != want {
		t.Errorf("told of %v, want %v", got, want)
	}
	stop()
	select {
	case c := <-told:
		t.Errorf("told of %v too, though only one thing changed", c)
	default:
	}
}

// watch watches a store from now on; stop ends that and waits.
func watch(t *testing.T, s *Store) (told chan store.Change, stop func()) {
	t.Helper()
	cursor, err := s.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan store.Change, 16), make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, cursor, func(cs []store.Change, _ store.Cursor) error {
			for _, c := range cs {
				told <- c
			}
			return nil
		})
	}()
	return told, func() {
		t.Helper()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v, want context.Canceled", err)
		}
	}
}

func testSchema(t *testing.T, c cluster) {
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	url := c.URL(c.Database(t))
	for _, to := range []int{0, 1} {
		if to > 0 {
			migrateTo(t, url, to)
		}
		_, err = Open(t.Context(), Config{DSN: url, KEKs: keks})
		if !errors.Is(err, ErrSchema) {
			t.Errorf("Open at version %d: %v, want ErrSchema", to, err)
		}
	}
	t.Log(err)
	// Many nodes may run them at the same time.
	errs := make(chan error)
	for range 4 {
		go func() {
			conn, err := pgx.Connect(t.Context(), url)
			if err == nil {
				err = migrations.Up(t.Context(), conn, 0, nil)
				_ = conn.Close(context.WithoutCancel(t.Context()))
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	open(t, url)
}

// testNodeRole: a node needs no right but to read and write rows, as the README grants them.
func testNodeRole(t *testing.T, c cluster) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rights, _ := strings.Cut(string(readme), "```sql\n")
	rights, _, found := strings.Cut(rights, "```")
	if !found || !strings.Contains(rights, "grant ") {
		t.Fatal("the README grants no rights")
	}
	name := c.database(t)
	conn, err := pgx.Connect(t.Context(), c.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), rights)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	s := open(t, strings.Replace(c.URL(name), "postgres@", "epcscf_node@", 1))
	if err := storetest.PutCanaries(t.Context(), s); err != nil {
		t.Error(err)
	}
	if err := s.AddRevocation(t.Context(), turncred.Revocation{Tid: "k1-x", Until: time.Now()}); err != nil {
		t.Error(err)
	}
	if err := s.Record(t.Context(), store.Event{Action: "test"}); err != nil {
		t.Error(err)
	}
	if n, err := s.Prune(t.Context()); n != 1 || err != nil {
		t.Errorf("Prune = %d, %v, want 1", n, err)
	}
	if _, err := s.pool.Exec(t.Context(), "create table x ()"); err == nil {
		t.Error("a node may change the schema")
	}
}

func testNoSecretInDump(t *testing.T, c cluster) {
	name := c.database(t)
	if err := storetest.PutCanaries(t.Context(), open(t, c.URL(name))); err != nil {
		t.Fatal(err)
	}
	storetest.WantNoCanary(t, "pg_dump", c.Dump(t, name))
}

func testTLS(t *testing.T, c cluster) {
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	good := c.TLSURL(c.database(t))
	s, err := Open(t.Context(), Config{DSN: good, KEKs: keks})
	if err != nil {
		t.Fatal(err)
	}
	var version string
	if err := s.pool.QueryRow(t.Context(), "select version from pg_stat_ssl where pid = pg_backend_pid()").Scan(&version); err != nil || version != "TLSv1.3" {
		t.Errorf("the connection has %q, %v, want TLSv1.3", version, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for name, dsn := range map[string]string{
		"another name":        strings.Replace(good, "127.0.0.1", "localhost", 1), // not in the certificate
		"unknown authority":   strings.Split(good, "&sslrootcert")[0],
		"no TLS":              strings.Replace(good, "verify-full", "disable", 1), // the server wants it
		"a wrong password":    strings.Replace(good, pgtest.Password, "other", 1),
		"authority not there": strings.Replace(good, "ca.pem", "none.pem", 1),
	} {
		s, err := Open(t.Context(), Config{DSN: dsn, KEKs: keks})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened, want an error", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if strings.Contains(err.Error(), pgtest.Password) {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

// testOutage: while the database is down each call fails by its deadline, and a watcher
// waits; when it is back all goes on, and nothing promised is lost.
func testOutage(t *testing.T, c cluster) {
	s := open(t, c.URL(c.database(t)))
	told, done := watch(t, s)
	r := storetest.Credential("k1-one", time.Now().Add(time.Hour))
	if err := s.PutCredentials(t.Context(), []push.Record{r}); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	err := s.PutCredentials(short, []push.Record{storetest.Credential("k1-two", time.Now().Add(time.Hour))})
	stop()
	if err == nil {
		t.Error("PutCredentials without a database: no error")
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	// Connections that the crash cut are replaced, each at the cost of one error.
	rev := turncred.Revocation{Tid: "k1-two", Until: time.Now().Add(time.Hour)}
	deadline := time.Now().Add(20 * time.Second)
	for s.AddRevocation(t.Context(), rev) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the store does not come back")
		}
	}
	if got, err := s.Credential(t.Context(), r.Tid); err != nil || !store.SameRecord(got, r) {
		t.Errorf("what was promised before is %+v, %v", got, err)
	}
	select {
	case got := <-told:
		if got.Kind != store.ChangedRevocation {
			t.Errorf("told of %v, want the revocation", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("the watcher did not come back")
	}
	done()
}
