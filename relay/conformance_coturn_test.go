package relay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"epcscf/internal/realpart"
	"epcscf/turncred"
)

// startCoturn starts coturn's server on UDP and TCP of one port, with loopback as open as in
// our own world. It is nil where there is none.
func startCoturn(t *testing.T) *world {
	t.Helper()
	if _, err := exec.LookPath("turnserver"); err != nil && os.Getenv("CI") != "true" {
		t.Log("turnserver is missing: only our relay is asked")
		return nil
	}
	program := realpart.Program(t, "turnserver", "coturn")
	probe := listenTCP(t)
	at := addrPortOf(probe.Addr())
	_ = probe.Close()
	out := &realpart.Output{}
	cmd := exec.CommandContext(t.Context(), program, "-n", "--listening-ip=127.0.0.1", fmt.Sprintf("--listening-port=%d", at.Port()),
		"--relay-ip=127.0.0.1", "--use-auth-secret", "--static-auth-secret="+kmText, "--realm="+string(testRealm), "--stale-nonce=600",
		"--allow-loopback-peers", "--denied-peer-ip=10.0.0.0-10.255.255.255", "--denied-peer-ip=169.254.0.0-169.254.255.255",
		"--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log", "--pidfile="+filepath.Join(t.TempDir(), "pid"))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	w := &world{udp: at, tcp: at}
	w.credentials(t, &Config{})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		failure := attempt(t, func(t testing.TB) { w.client(t, TCP, turncred.Credential{}).challenge() })
		if failure == "" {
			return w
		}
		if time.Now().After(deadline) {
			t.Fatalf("coturn does not answer: %s\n%s", failure, out)
		}
	}
}
