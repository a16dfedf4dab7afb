package main

import (
	"strings"
	"testing"
)

// TestRun measures a little of everything that is here.
func TestRun(t *testing.T) {
	var out, progress strings.Builder
	if err := run(t.Context(), []string{"-live", "1500", "-rate", "200", "-length", "1s", "-rounds", "1", "-dir", t.TempDir()}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, name := range []string{"none", "wal", "bolt"} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("the table has no %s:\n%s", name, out.String())
		}
	}
	for _, args := range [][]string{{"-rate", "0"}, {"-length", "1ms"}, {"more"}} {
		if err := run(t.Context(), args, &out, &progress); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
