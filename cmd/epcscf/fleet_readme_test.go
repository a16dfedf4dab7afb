package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/cmd/internal/testpki"
	"epcscf/internal/realpart"
)

// TestREADMEFromOneMachineToMany runs the commands that the README has for two edges and two
// relays, each a process of its own, on addresses of loopback.
func TestREADMEFromOneMachineToMany(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "### From one machine to many\n")
	_, text, _ = strings.Cut(text, "```sh\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("the README has no such commands")
	}
	// The same hosts as the README's, in a part of 127.0.0.0/8 that no other run has.
	var n [1]byte
	if _, err := rand.Read(n[:]); err != nil {
		t.Fatal(err)
	}
	host := func(net, number int) string { return fmt.Sprintf("127.%d.%d.%d", 1+n[0]%250, net, number) }
	text = strings.NewReplacer(
		"10.0.0.10:5060", startCore(t), "10.0.0.", strings.TrimSuffix(host(1, 0), "0"), "203.0.113.", strings.TrimSuffix(host(2, 0), "0"),
		"127.0.0.1:", host(3, 1)+":", ":443/", ":8443/", ":443\n", ":8443\n", "ims.example", "ims.test",
	).Replace(text)

	dir := folderOfREADME(t, host(2, 4), host(2, 5))
	log := &realpart.Output{}
	var script []string
	waited := false
	for _, line := range strings.Split(text, "\n") {
		if command, background := strings.CutSuffix(line, " &"); background {
			shell(t, dir, script)
			script = nil
			startInBackground(t, dir, log, strings.Fields(command))
			continue
		}
		if strings.HasPrefix(line, "bin/wic") && !waited {
			waited = true
			untilBothUp(t, host(3, 1)+":9093", log)
			untilBothUp(t, host(3, 1)+":9094", log)
		}
		script = append(script, line)
	}
	out := shell(t, dir, script)
	if n := strings.Count(out, "ok "); n != 8 || strings.Contains(out, "FAIL") {
		t.Errorf("relay-check: %d URIs work, want 4 of each edge\n%s", n, out)
	}
}

// folderOfREADME has what the commands take for granted.
func folderOfREADME(t *testing.T, edges ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"bin", "secrets", "tls"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tls := filepath.Join(dir, "tls")
	testpki.NewCA(t, tls).Issue(t, tls, "proxy", time.Now().Add(90*24*time.Hour), edges...)
	s := &served{dir: dir}
	s.write(t, "secrets/deployment.key", strings.Repeat("d", 64))
	s.write(t, "alice", "password of alice")
	s.writeCommand(t)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bin/wic"), "epcscf/cmd/wic").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// writeCommand writes bin/epcscf.
func (s *served) writeCommand(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "bin/epcscf", fmt.Sprintf("#!/bin/sh\n%s=1 exec %q \"$@\"\n", asServer, self))
	if err := os.Chmod(filepath.Join(s.dir, "bin/epcscf"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func shell(t *testing.T, dir string, script []string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-e")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(strings.Join(script, "\n")+"\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, strings.Join(script, "\n"), out)
	}
	return string(out)
}

func startInBackground(t *testing.T, dir string, log *realpart.Output, args []string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, args[0]), args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func untilBothUp(t *testing.T, admin string, log *realpart.Output) {
	t.Helper()
	s := &served{log: log, exit: make(chan int), admin: admin}
	s.eventually(t, "both relays answer the edge of "+admin, func() bool {
		status, _ := s.get("/readyz")
		return status == http.StatusOK && fleet{edge: s}.bothUp()
	})
}
