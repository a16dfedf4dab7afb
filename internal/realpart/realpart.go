// Package realpart is for tests that run real peers: it finds them, or says by name what is
// missing, and records what they print.
package realpart

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// Program returns the path of a program that a test cannot do without. Where it is missing
// the test is skipped, with the Debian package to install; with CI=true that is a failure.
func Program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name+" is missing: apt-get install "+debian)
	}
	return path
}

// Missing skips a test that lacks a real part, and says which; with CI=true that is a failure.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Output records what is written, by many at once, and can be read meanwhile. The zero
// Output is empty.
type Output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
