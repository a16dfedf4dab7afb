package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"epcscf/internal/realpart"
	"epcscf/store/postgres/pgtest"
)

// coturnServer is Debian's coturn with a PostgreSQL database.
type coturnServer struct {
	addr, admin string
	url         string // of the database
}

const coturnPassword = "canary-coturn-admin"

// startCoturn runs turnserver; how is lt-cred-mech (push) or use-auth-secret (shared-key).
func startCoturn(t *testing.T, how string) coturnServer {
	t.Helper()
	turnserver := realpart.Program(t, "turnserver", "coturn")
	schema, err := os.ReadFile("/usr/share/coturn/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	cluster := pgtest.Start(t)
	name := cluster.Database(t)
	c := coturnServer{addr: freeAddr(t), admin: freeAddr(t), url: cluster.URL(name)}
	conn, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), string(schema))
	_ = conn.Close(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(c.addr)
	cli, cliPort, _ := net.SplitHostPort(c.admin)
	log := &realpart.Output{}
	cmd := exec.Command(turnserver, "-n", "--listening-ip="+host, "--listening-port="+port, "--relay-ip="+host, "--realm=ims.test", "--"+how,
		fmt.Sprintf("--psql-userdb=host=%s port=%d dbname=%s user=postgres", cluster.Dir, cluster.Port, name),
		"--cli-ip="+cli, "--cli-port="+cliPort, "--cli-password="+coturnPassword, "--cli-max-output-sessions=100000",
		"--allow-loopback-peers", "--no-tls", "--no-dtls", "--log-file=stdout", "--pidfile="+filepath.Join(t.TempDir(), "pid"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	(&served{log: log}).eventually(t, "coturn listens", func() bool {
		for _, addr := range []string{c.addr, c.admin} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			_ = conn.Close()
		}
		return true
	})
	return c
}

// edgeBefore is an edge with the coturn as its only relay.
func edgeBefore(t *testing.T, c coturnServer, approach string) *served {
	t.Helper()
	return operateIn(t, t.TempDir(), map[string]string{"coturn.url": c.url, "coturn.pw": coturnPassword}, func(yaml string) string {
		relay := yaml[strings.Index(yaml, "relay:"):strings.Index(yaml, "admin:")]
		return strings.NewReplacer(relay, "", "turn: {max_ttl: 10m, deployment_secret_file: deployment.key}", fmt.Sprintf(`turn:
  approach: %s
  deployment_secret_file: deployment.key
  relays:
    - {name: c1, kind: coturn, uris: "turn:%s", database_url_file: coturn.url, admin: %q, admin_password_file: coturn.pw}`,
			approach, c.addr, c.admin)).Replace(yaml)
	})
}

var uclientTotals = regexp.MustCompile(`tot_send_msgs=(\d+), tot_recv_msgs=(\d+)`)

// TestCoturnAsRelay: either approach with a coturn and its database as the only relay. The
// credential works for coturn's client and in a browser when the WIC has it, and no more when
// the WIC has left; its session ends.
func TestCoturnAsRelay(t *testing.T) {
	uclient := realpart.Program(t, "turnutils_uclient", "coturn")
	needChromium(t)
	for approach, how := range map[string]string{"push": "lt-cred-mech", "shared-key": "use-auth-secret"} {
		t.Run(approach, func(t *testing.T) {
			c := startCoturn(t, how)
			s := edgeBefore(t, c, approach)
			s.eventually(t, "the database answers", func() bool { return s.metric(`epcscf_push_relay_up{relay="c1"}`) == "1" })
			alice := s.staysRegistered(t)

			host, port, _ := net.SplitHostPort(c.addr)
			out, err := exec.CommandContext(t.Context(), uclient, "-y", "-c", "-n", "10", "-m", "2", "-z", "5", "-l", "171",
				"-u", alice.Username, "-w", alice.Password, "-p", port, host).CombinedOutput()
			all := uclientTotals.FindAllSubmatch(out, -1)
			if err != nil || len(all) == 0 || !bytes.Equal(all[len(all)-1][1], all[len(all)-1][2]) {
				t.Errorf("turnutils_uclient: %v\n%s", err, out)
			}

			b := s.browse(t)
			uri := "turn:" + c.addr + "?transport=udp"
			evaluate[any](t, b, callScript, iceServer{uri, alice.Username, alice.Password})
			tb := &tab{t: t, name: "call", ctx: b.ctx}
			tb.until("call.channel.readyState === 'open'")
			alice.leave()
			tb.until("call.a.connectionState !== 'connected'") // its session has ended; Chromium takes some seconds
			if approach == "push" {
				got := evaluate[gathered](t, b, gatherScript, iceServer{uri, alice.Username, alice.Password})
				if !slices.Contains(got.Errors, 401) {
					t.Errorf("the credential of who has left: %+v, want 401", got)
				}
			}
			for _, secret := range []string{coturnPassword, alice.Password, c.url} {
				if strings.Contains(s.log.String(), secret) {
					t.Errorf("the log holds a secret that begins with %.6s", secret)
				}
			}
		})
	}
}

// TestCoturnCommand: mistakes with a coturn in turn.relays end with 2 and say what to write.
func TestCoturnCommand(t *testing.T) {
	item := `{name: c1, kind: coturn, uris: "turn:127.0.0.1:3478", database_url_file: coturn.url, admin: "127.0.0.1:5766", admin_password_file: coturn.pw}`
	for _, tt := range []struct{ name, old, new, want string }{
		{"ok", "", "", "epcscf.yaml: ok"},
		{"another kind", "kind: coturn", "kind: turnserver", "relay or coturn"},
		{"an address", "kind: coturn", "kind: coturn, address: \"h:1\"", "leave address and server_name out"},
		{"no password", ", admin_password_file: coturn.pw", "", "stand together"},
		{"no kind", "kind: coturn, ", "", "write kind: coturn"},
		{"no database", "database_url_file: coturn.url, ", "", "turn.approach push writes credentials into coturn's database"},
		{"no such file", "coturn.pw", "none.pw", "none.pw"},
		{"unsafe database", "coturn.url", "far.url", "verify-full"},
		{"another hash", "approach: push", "approach: push\n  password_hash: hmac-sha256", "knows hmac-sha1 only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secrets := map[string]string{
				"coturn.url": "postgres://coturn@127.0.0.1/coturn", "coturn.pw": coturnPassword,
				"far.url": "postgres://coturn:hush@192.0.2.1/coturn?sslmode=require",
			}
			s := prepare(t, t.TempDir(), secrets, func(yaml string) string {
				relay := yaml[strings.Index(yaml, "relay:"):strings.Index(yaml, "admin:")]
				return strings.NewReplacer(relay, "", "turn: {max_ttl: 10m, deployment_secret_file: deployment.key}",
					"turn:\n  approach: push\n  deployment_secret_file: deployment.key\n  relays:\n    - "+item).Replace(yaml)
			})
			code := 2
			if tt.old != "" {
				s.edit(t, tt.old, tt.new)
			} else {
				code = 0
			}
			out := epcscf(t, code, "check", "-c", s.file)
			if !strings.Contains(out, tt.want) || strings.Contains(out, "hush") {
				t.Errorf("%s, want %q", out, tt.want)
			}
		})
	}
}
