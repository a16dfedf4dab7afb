package storetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// childPath is in the environment of a test binary that runs as a child: what it writes.
const childPath = "EPCSCF_TEST_CRASH_PATH"

// ChildPath returns what this process is to write until it is killed, or "" where it is no
// child of KilledWriter. A package's TestMain asks.
func ChildPath() string { return os.Getenv(childPath) }

// childWriters write at the same time, so that commits are shared.
const childWriters = 8

// WriteUntilKilled is the child: it writes credentials, and says of each on standard output
// when it is promised.
func WriteUntilKilled(put func(context.Context, []push.Record) error) {
	for w := range childWriters {
		go func() {
			for i := 0; ; i++ {
				r := Credential(turncred.Tid(fmt.Sprintf("k1-%d-%d", w, i)), Epoch)
				if err := put(context.Background(), []push.Record{r}); err != nil {
					panic(err)
				}
				_, _ = os.Stdout.WriteString(string(r.Tid) + "\n") // one write, so lines do not mix
			}
		}()
	}
	select {}
}

// killedAfter is how many promises are waited for.
const killedAfter = 300

// KilledWriter has a child of this test binary write path, kills it by SIGKILL in the
// middle, and returns what it had promised.
func KilledWriter(t *testing.T, path string) []turncred.Tid {
	t.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this test binary
	cmd.Env = append(os.Environ(), childPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var promised []turncred.Tid
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if promised = append(promised, turncred.Tid(lines.Text())); len(promised) == killedAfter {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(promised) < killedAfter {
		t.Fatalf("the child ended with %v after %d promises", err, len(promised))
	}
	return promised
}

// WantPromised fails where got is not what a child wrote as tid.
func WantPromised(t *testing.T, tid turncred.Tid, got push.Record) {
	t.Helper()
	if !store.SameRecord(got, Credential(tid, Epoch)) {
		t.Errorf("promised before the kill: %s, which came back as %+v", tid, got)
	}
}
