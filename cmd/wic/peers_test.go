package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"epcscf/cmd/internal/node"
	"epcscf/cmd/wic/internal/turncheck"
	"epcscf/internal/realpart"
	"epcscf/proxy"
	"epcscf/sipext"
	"epcscf/turncred"
)

var uclientTotals = regexp.MustCompile(`tot_send_msgs=(\d+), tot_recv_msgs=(\d+)`)

// coturn's client and pion's exchange data through our relay with a credential out of the
// SIP header. TestEachApproach has pion's over every transport; this is coturn's.
func TestCoturnClientTakesTheHeadersCredential(t *testing.T) {
	uclient := realpart.Program(t, "turnutils_uclient", "coturn")
	for _, a := range approaches {
		t.Run(string(a), func(t *testing.T) {
			t.Parallel() // coturn's client takes seconds to begin
			d := startDemo(t, func(c *node.Demo) { c.Approach = a })
			alice := d.register(t, "alice")
			for _, uri := range alice.cred.URIs {
				t.Run(uri, func(t *testing.T) {
					t.Parallel()
					runUclient(t, uclient, d.CA, uri, alice.cred)
				})
			}
		})
	}
}

// runUclient lets two clients of coturn talk to each other through the relay.
func runUclient(t *testing.T, uclient, ca, uri string, cred sipext.TurnCred) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-y", "-c", "-n", "10", "-m", "2", "-z", "5", "-l", "171", "-u", cred.Username, "-w", cred.Tpwd}
	if u.Query().Get("transport") == "tcp" {
		args = append(args, "-t")
	}
	if u.Scheme == "turns" {
		args = append(args, "-S", "-E", ca)
	}
	host, port, _ := strings.Cut(u.Opaque, ":")
	out, err := exec.CommandContext(t.Context(), uclient, append(args, "-p", port, host)...).CombinedOutput()
	all := uclientTotals.FindAllSubmatch(out, -1)
	if err != nil || len(all) == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	if last := all[len(all)-1]; !bytes.Equal(last[1], last[2]) || string(last[1]) == "0" {
		t.Errorf("sent %s, received %s", last[1], last[2])
	}
}

// A credential of approach 1 out of the SIP header works at coturn with the same secret.
func TestCoturnServerTakesTheHeadersCredential(t *testing.T) {
	turnserver := realpart.Program(t, "turnserver", "coturn")
	d := startDemo(t, nil)
	var secrets struct{ Km string }
	raw, err := os.ReadFile(filepath.Join(d.DataDir, "secrets.json"))
	if err != nil || json.Unmarshal(raw, &secrets) != nil || secrets.Km == "" {
		t.Fatalf("no km in secrets.json: %v", err)
	}
	port := freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	startProgram(t, answersSTUN(addr), turnserver, "-n", "--listening-ip=127.0.0.1", fmt.Sprintf("--listening-port=%d", port),
		"--relay-ip=127.0.0.1", "--use-auth-secret", "--static-auth-secret="+secrets.Km, "--realm="+d.Domain,
		"--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--pidfile="+filepath.Join(t.TempDir(), "pid"))

	cred := d.register(t, "alice").cred
	check := func(password string) error {
		return turncheck.Check(t.Context(), "turn:"+addr+"?transport=udp", turncheck.Credential{
			Username: cred.Username, Password: secretOf(password), Realm: turncred.Realm(cred.Realm),
		}, nil).Err
	}
	if err := check(cred.Tpwd); err != nil {
		t.Errorf("coturn refuses the credential: %v", err)
	}
	if err := check("x" + cred.Tpwd); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("coturn with a wrong password: %v, want 401: is it checking at all?", err)
	}
}

// Kamailio as the core: digest, Path and Service-Route, over UDP and TCP, with the
// configuration that the documentation shows.
func TestKamailioAsTheCore(t *testing.T) {
	kamailio := realpart.Program(t, "kamailio", "kamailio")
	config, err := filepath.Abs("../../docs/kamailio/registrar.cfg")
	if err != nil {
		t.Fatal(err)
	}
	const alice, bob = "kamailio-alice", "kamailio-bob"
	core := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	startProgram(t, accepts(core), kamailio, "-f", config, "-DD", "-E", "-m", "64", "-M", "8", "-Y", t.TempDir(),
		"-A", "CORE_ADDR="+core, "-A", fmt.Sprintf("ALICE_PASSWORD=%q", alice), "-A", fmt.Sprintf("BOB_PASSWORD=%q", bob))
	for _, transport := range []string{"udp", "tcp"} {
		for _, a := range approaches {
			t.Run(transport+"/"+string(a), func(t *testing.T) {
				next, err := proxy.ParseNextHop(transport + ":" + core)
				if err != nil {
					t.Fatal(err)
				}
				d := startDemo(t, func(c *node.Demo) { c.Core, c.Approach = &next, a })
				d.write(t, "alice.pw", alice+"\n")
				testRegisterAtKamailio(t, d)
			})
		}
	}
}

func testRegisterAtKamailio(t *testing.T, d demo) {
	var r credentialReport
	if err := json.Unmarshal([]byte(succeed(t, d.args("register", "alice", "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if r.Registered != 600 || r.Approach != string(d.Approach) || len(r.Associated) != 1 {
		t.Errorf("registered for %d s, approach %s, associated %q; want 600, %s and one", r.Registered, r.Approach, r.Associated, d.Approach)
	}
	succeed(t, d.args("options", "alice")...)
	succeed(t, d.args("relay-check", "alice")...)
	d.write(t, "wrong.pw", "not the password\n")
	fail(t, exitFailed, []string{"401"}, d.args("register", "alice", "--password-file", filepath.Join(d.dir, "wrong.pw"))...)
}
