package subject

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("7 (a b) c) S 3 7 7 0 -1 0 0 0 0 0 11 5 2 1 20 0 1 0"))
	if want := (processStat{parent: 3, cpu: 190 * time.Millisecond}); err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
}

// TestTree starts a child and finds it.
func TestTree(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	procs, err := tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := procs[cmd.Process.Pid]; !ok {
		t.Errorf("tree of this process = %v, want %d among them", procs, cmd.Process.Pid)
	}
}

func TestMedianAndPercentile(t *testing.T) {
	if got := Median([]float64{9, 1, 4}); got != 4 {
		t.Errorf("median of three = %v, want 4", got)
	}
	if got := Median([]float64{8, 1, 4, 2}); got != 3 {
		t.Errorf("median of four = %v, want 3", got)
	}
	ms := make([]time.Duration, 100)
	for i := range ms {
		ms[i] = time.Duration(i + 1)
	}
	for _, p := range []int{50, 95, 99, 100} {
		if got := Percentile(ms, p); got != time.Duration(p) {
			t.Errorf("Percentile(1..100, %d) = %d", p, got)
		}
	}
}
