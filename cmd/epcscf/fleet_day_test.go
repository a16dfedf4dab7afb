package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"epcscf/internal/realpart"
	"epcscf/turncred/push"
)

// An operator's day, as docs/relays.md has it.

// TestRenewUnderLoad renews every certificate of the interface while WICs register: each gets
// its credential, and each credential is good.
func TestRenewUnderLoad(t *testing.T) {
	t.Parallel() // it waits, mostly
	w := startChaosWorld(t, time.Minute, "info")
	ctx, cancel := context.WithCancel(t.Context())
	wait := w.start(ctx, 40, 40)
	defer wait()
	defer cancel()
	w.edges[0].eventually(t, "credentials are handed out", func() bool { return w.allIssue(time.Time{}) })
	pki := filepath.Join(w.dir, "pki")
	before := w.bare.Load()
	for i, name := range []string{"1", "2"} {
		epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "edge", "--name", "edge"+name, "--renew")
		epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "relay", "--name", "relay"+name, "--ip", "127.0.0.1", "--renew")
		for _, n := range []*chaosNode{w.edges[i], w.relays[i]} {
			n.eventually(t, "the certificate is renewed", func() bool { return strings.Contains(n.log.String(), "certificate renewed") })
		}
	}
	renewed := time.Now()
	w.edges[0].eventually(t, "credentials as before", func() bool { return w.allIssue(renewed) })
	cancel()
	wait()
	w.verify(40)
	if w.bare.Load() != before || w.failures.Load()+w.lost.Load()+w.back.Load() > 0 {
		t.Errorf("%d 200s without a credential, and:\n%s", w.bare.Load()-before, strings.Join(w.problems, "\n"))
	}
}

// TestAddAndDrainARelay: relay2 is added by a restart of the edge, then relay1 drains by
// SIGHUP, keeps who it has, and is stopped when that is nobody.
func TestAddAndDrainARelay(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := prepareFleet(t, "push")
	both := f.edge.text(t)
	one, two, _ := strings.Cut(both, "    - {name: relay2")
	_, rest, _ := strings.Cut(two, "\n")
	f.edge.write(t, "epcscf.yaml", one+rest)
	uri1, uri2 := "turn:127.0.0.1:"+f.relay1.relayPort(t, "udp"), "turn:127.0.0.1:"+f.relay2.relayPort(t, "udp")
	relay1 := f.relay1.spawnProcess(t, "relay")
	edge := f.edge.spawnProcess(t, "serve")
	f.edge.eventually(t, "relay1 answers", func() bool { return f.edge.metric(`epcscf_push_relay_up{relay="relay1"}`) == "1" })
	alice := f.edge.staysRegistered(t)
	if !f.relay1.allocates(t, alice.Username, alice.Password) {
		t.Error("alice's credential is not good at relay1")
	}

	f.relay2.spawnAs(t, "relay")
	f.edge.write(t, "epcscf.yaml", both)
	edge.end(t)
	f.edge.spawnAs(t, "serve")
	f.edge.eventually(t, "both relays answer", f.bothUp)

	f.relay1.edit(t, "relay:\n", "relay:\n  draining: true\n")
	relay1.signal(t, syscall.SIGHUP)
	f.edge.eventually(t, "new users get relay2", func() bool {
		out := f.edge.wic(t, "relay-check")
		return strings.Contains(out, uri2) && !strings.Contains(out, uri1)
	})
	if !f.relay1.allocates(t, alice.Username, alice.Password) {
		t.Error("alice's credential is not good any more at the relay that drains")
	}
	f.relay1.eventually(t, "it has no allocations", func() bool { return f.relay1.metric("epcscf_relay_allocations") == "0" })
	relay1.end(t)
}

// TestRelayRestoredFromBackup: a relay gets back a state of before a revocation. The edge
// tells it again, without a restart of its own.
func TestRelayRestoredFromBackup(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := prepareFleet(t, "push")
	f.edge.edit(t, "name: relay2, ", "name: relay2, weight: 0, ")
	kill := f.relay1.spawnAs(t, "relay")
	f.relay2.spawnAs(t, "relay")
	f.edge.spawn(t)
	f.edge.eventually(t, "both relays answer", f.bothUp)
	alice := f.edge.staysRegistered(t)
	kill()
	backup := t.TempDir()
	state := []string{"state-relay1", "revocations-relay1.db"}
	copyAll(t, f.edge.dir, backup, state)
	kill = f.relay1.spawnAs(t, "relay")
	f.edge.eventually(t, "relay1 answers again", f.bothUp)
	if !f.relay1.allocates(t, alice.Username, alice.Password) {
		t.Fatal("alice's credential is not good")
	}
	alice.leave()
	if f.relay1.allocates(t, alice.Username, alice.Password) {
		t.Fatal("alice's credential is good after she has left")
	}
	kill()
	for _, name := range state {
		if err := os.RemoveAll(filepath.Join(f.edge.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyAll(t, backup, f.edge.dir, state)
	f.relay1.spawnAs(t, "relay")
	f.edge.eventually(t, "the edge tells it of the revocation again", func() bool { return !f.relay1.allocates(t, alice.Username, alice.Password) })
}

// copyAll copies files and folders with their modes, as a backup does.
func copyAll(t *testing.T, from, to string, names []string) {
	t.Helper()
	for _, name := range names {
		if out, err := exec.Command("cp", "-a", filepath.Join(from, name), to).CombinedOutput(); err != nil {
			t.Fatalf("cp %s: %v\n%s", name, err, out)
		}
	}
}

// TestEventsByCommand: the stream of events is followed by curl with a certificate, and goes
// on behind a cursor, as docs/relays.md has it.
func TestEventsByCommand(t *testing.T) {
	t.Parallel() // it waits, mostly
	realpart.Program(t, "curl", "curl")
	f := prepareFleet(t, "push")
	f.edge.edit(t, "name: relay2, ", "name: relay2, weight: 0, ")
	f.relay1.spawnAs(t, "relay")
	f.relay2.spawnAs(t, "relay")
	f.edge.spawn(t)
	f.edge.eventually(t, "both relays answer", f.bothUp)
	epcscf(t, 0, "pki", "issue", "--dir", filepath.Join(f.edge.dir, "pki"), "--role", "waf", "--name", "ops")
	doc, err := os.ReadFile("../../docs/relays.md")
	if err != nil {
		t.Fatal(err)
	}
	_, command, ok := strings.Cut(string(doc), "```sh\ncurl ")
	command, _, end := strings.Cut(command, "\n```")
	if !ok || !end {
		t.Fatal("docs/relays.md has no command for events")
	}
	_, at, _ := strings.Cut(f.relay1.text(t), `listen: "`)
	at, _, _ = strings.Cut(at, `"`)

	follow := func(cursor string, n int) (es []push.Event) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", "exec curl "+strings.NewReplacer("10.0.0.6:8443", at, "CURSOR", cursor).Replace(command))
		cmd.Dir = f.edge.dir
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); len(es) < n && lines.Scan(); {
			var e push.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatalf("%v in %q", err, lines.Text())
			}
			if e.Type != push.EventAlive {
				es = append(es, e)
			}
		}
		cancel()
		_ = cmd.Wait() // it was ended
		return es
	}
	alice := f.edge.staysRegistered(t)
	if !f.relay1.allocates(t, alice.Username, alice.Password) {
		t.Fatal("alice's credential is not good")
	}
	es := follow("0", 3) // a cursor of no life of this relay: what it has kept, behind a gap
	if len(es) != 3 || es[0].Type != push.EventGap || es[1].Type != push.EventAllocated || es[1].Subject == "" {
		t.Fatalf("events %+v, want a gap and an allocation", es)
	}
	if again := follow(es[1].Cursor, 1); len(again) != 1 || again[0] != es[2] {
		t.Errorf("behind %s: %+v, want %+v", es[1].Cursor, again, es[2])
	}
}
