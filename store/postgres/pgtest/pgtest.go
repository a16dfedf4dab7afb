// Package pgtest is for tests that need a PostgreSQL: it runs a cluster of their own out of
// Debian's package, and ends it with them, whatever becomes of them.
package pgtest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"epcscf/internal/realpart"
)

// Cluster is a PostgreSQL server with its data. It listens on a unix socket, where it
// trusts everybody who reaches the directory, and on a loopback port, where it wants TLS and
// the password.
type Cluster struct {
	Dir    string // the socket is in it
	Port   int
	CAFile string // of the server's certificate, which is good for 127.0.0.1

	bin    string
	owner  *syscall.Credential // nil: this process's user
	fsync  bool
	output realpart.Output

	mu     sync.Mutex // guards the fields below
	proc   *os.Process
	ended  chan struct{} // closed when proc has
	number int           // of databases
}

const (
	superuser = "postgres"
	// Password is the superuser's, on the loopback port.
	Password = "canary-database-password"
)

// ErrMissing says that PostgreSQL is not installed.
var ErrMissing = errors.New("initdb is missing: apt-get install postgresql")

// Option changes a cluster.
type Option func(*Cluster)

// Synced has the cluster sync what it commits, as in production; else it is faster.
func Synced(c *Cluster) { c.fsync = true }

// Start makes and starts a cluster. The test is skipped, or with CI=true fails, where
// PostgreSQL is missing. It ends with the test.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	c, err := newCluster(opts...)
	if c != nil {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Errorf("pgtest: %v", err)
			}
		})
	}
	if err != nil {
		if c == nil {
			realpart.Missing(t, err.Error())
		}
		t.Fatalf("pgtest: %v", err)
	}
	return c
}

// New is Start for programs that are no tests. The caller closes the cluster.
func New(opts ...Option) (*Cluster, error) {
	c, err := newCluster(opts...)
	if err != nil && c != nil {
		_ = c.Close()
	}
	return c, err
}

// newCluster returns no cluster where PostgreSQL is missing.
func newCluster(opts ...Option) (*Cluster, error) {
	bin, err := findBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "epcscf-pg-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: dir, CAFile: filepath.Join(dir, "ca.pem"), bin: bin}
	for _, o := range opts {
		o(c)
	}
	if os.Getuid() == 0 { // postgres refuses to run as root
		if c.owner, err = unprivileged(); err != nil {
			return c, err
		}
		if err := os.Chown(dir, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return c, err
		}
	}
	if err := c.init(); err != nil {
		return c, err
	}
	return c, c.Up()
}

// findBin returns the directory of the newest installed version's programs.
func findBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	if len(found) == 0 {
		return "", ErrMissing
	}
	return filepath.Dir(found[len(found)-1]), nil
}

func version(file string) int {
	n, _ := strconv.Atoi(strings.Split(file, "/")[4])
	return n
}

// unprivileged returns the user that postgres runs as in place of root.
func unprivileged() (*syscall.Credential, error) {
	var u *user.User
	var err error
	for _, name := range []string{superuser, "nobody"} {
		if u, err = user.Lookup(name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func (c *Cluster) data() string { return filepath.Join(c.Dir, "data") }

// init makes the data directory.
func (c *Cluster) init() error {
	if err := c.write("pw", Password); err != nil {
		return err
	}
	if _, err := c.run("initdb", "-D", c.data(), "-U", superuser, "--pwfile", filepath.Join(c.Dir, "pw"),
		"-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	cert, key, err := certificate()
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"ca.pem": cert, "data/server.crt": cert, "data/server.key": key,
		"data/pg_hba.conf": "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
	} {
		if err := c.write(name, content); err != nil {
			return err
		}
	}
	c.Port, err = freePort()
	return err
}

func (c *Cluster) write(name, content string) error {
	file := filepath.Join(c.Dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil || c.owner == nil {
		return err
	}
	return os.Chown(file, int(c.owner.Uid), int(c.owner.Gid))
}

// certificate returns one for 127.0.0.1, its own authority, and its key: net/http/httptest's.
func certificate() (cert, key string, err error) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return "", "", err
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Up starts the server, again after Kill, and waits until it answers.
func (c *Cluster) Up() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc != nil {
		return nil
	}
	sync := "off"
	if c.fsync {
		sync = "on"
	}
	cmd := c.command("postgres", "-D", c.data(), "-k", c.Dir, "-h", "127.0.0.1", "-p", strconv.Itoa(c.Port),
		"-c", "ssl=on", "-c", "fsync="+sync, "-c", "max_connections=60", "-c", "timezone=UTC", "-c", "log_min_messages=fatal")
	cmd.Stdout, cmd.Stderr = &c.output, &c.output
	// It ends with this process, however that ends. The kernel sends the signal when the
	// thread that started it does, so that thread waits for it.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was ended on purpose
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	c.proc, c.ended = cmd.Process, ended
	for deadline := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		conn, err := pgx.Connect(ctx, c.URL("postgres"))
		if err == nil {
			err = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			c.proc = nil
			return fmt.Errorf("postgres ended: %s", c.output.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres does not answer: %w: %s", err, c.output.String())
		}
	}
}

// Kill ends the server as a crash does.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return nil
	}
	if err := c.proc.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	select {
	case <-c.ended:
	case <-time.After(20 * time.Second):
		_ = c.proc.Kill()
		<-c.ended
	}
	c.proc = nil
	return nil
}

// Close ends the server and removes its data.
func (c *Cluster) Close() error {
	err := c.Kill()
	if rerr := os.RemoveAll(c.Dir); err == nil {
		err = rerr
	}
	return err
}

// URL names a database, over the unix socket.
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s&port=%d", superuser, database, url.QueryEscape(c.Dir), c.Port)
}

// TLSURL names a database, over the loopback port, with TLS and the password.
func (c *Cluster) TLSURL(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=verify-full&sslrootcert=%s", superuser, Password, c.Port, database, url.QueryEscape(c.CAFile))
}

// NewDatabase makes a database, empty or as another one is, and returns its name.
func (c *Cluster) NewDatabase(ctx context.Context, template string) (string, error) {
	c.mu.Lock()
	c.number++
	name := fmt.Sprintf("test%d", c.number)
	c.mu.Unlock()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return "", err
	}
	if template == "" {
		template = "template0"
	}
	_, err = conn.Exec(ctx, "create database "+name+" template "+template)
	if cerr := conn.Close(ctx); err == nil {
		err = cerr
	}
	return name, err
}

// Database makes an empty database for a test and returns its name.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name, err := c.NewDatabase(t.Context(), "")
	if err != nil {
		t.Fatalf("pgtest: make a database: %v", err)
	}
	return name
}

// Dump returns what pg_dump says of a database.
func (c *Cluster) Dump(t testing.TB, database string) []byte {
	t.Helper()
	out, err := c.run("pg_dump", c.URL(database))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return out
}

func (c *Cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...) //nolint:gosec // Debian's programs
	cmd.Dir = c.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	return cmd
}

func (c *Cluster) run(program string, args ...string) ([]byte, error) {
	cmd := c.command(program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, errOut.String())
	}
	return out.Bytes(), nil
}
