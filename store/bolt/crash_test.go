package bolt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"epcscf/store"
	"epcscf/store/storetest"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// childFile names the file that the test binary, run as a child, writes until it is killed.
const childFile = "EPCSCF_TEST_BOLT_FILE"

// killedAfter is how many promises the parent waits for.
const killedAfter = 300

// child writes credentials, several at once, and says of each when it is promised.
func child(file string) {
	keks, err := store.NewKEKs(storetest.KEK("kek1", 1))
	if err != nil {
		panic(err)
	}
	s, err := Open(context.Background(), Config{File: file, KEKs: keks})
	if err != nil {
		panic(err)
	}
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				r := storetest.Credential(turncred.Tid(fmt.Sprintf("k1-%d-%d", w, i)), storetest.Epoch)
				if err := s.PutCredentials(context.Background(), []push.Record{r}); err != nil {
					panic(err)
				}
				_, _ = os.Stdout.WriteString(string(r.Tid) + "\n") // one write, so lines do not mix
			}
		}()
	}
	select {}
}

// TestKill9: what was promised before a SIGKILL is there after it.
func TestKill9(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFile+"="+file)
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
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		promised = append(promised, turncred.Tid(lines.Text()))
		if len(promised) == killedAfter {
			if err := cmd.Process.Kill(); err != nil { // SIGKILL
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(promised) < killedAfter {
		t.Fatalf("the child ended with %v after %d promises", err, len(promised))
	}

	s := open(t, file)
	for _, tid := range promised {
		got, err := s.Credential(t.Context(), tid)
		if err != nil {
			t.Fatalf("promised before the kill, gone after it: %v", err)
		}
		if !store.SameRecord(got, storetest.Credential(tid, storetest.Epoch)) {
			t.Errorf("%s came back as %+v", tid, got)
		}
	}
	t.Logf("%d promises, all kept", len(promised))
}

// TestNoSecretInFile looks for known secrets in the file, as they are and encoded.
func TestNoSecretInFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	s := open(t, file)
	if err := storetest.PutCanaries(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	storetest.WantNoCanary(t, file, b)
}
