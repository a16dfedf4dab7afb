package subject

import (
	"bytes"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Foreign is a subject that is another's program.
type Foreign struct {
	PID   int
	Ended <-chan struct{}
	log   *syncBuffer
}

// StartForeign starts a program. That it serves, the caller must find out.
func StartForeign(bin string, args ...string) (*Foreign, error) {
	f := &Foreign{log: &syncBuffer{}}
	cmd := exec.Command(bin, args...) //nolint:gosec // G204: the caller found it by LookPath
	cmd.Stderr = f.log
	// A group of its own, so that its children can be ended with it, and the kernel's word
	// that it ends with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	f.PID, f.Ended = cmd.Process.Pid, ended
	return f, nil
}

// Stop ends the program gently, then its whole group.
func (f *Foreign) Stop() {
	_ = syscall.Kill(f.PID, syscall.SIGTERM)
	select {
	case <-f.Ended:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-f.PID, syscall.SIGKILL)
	<-f.Ended
}

// Said is the end of what the program wrote to its standard error.
func (f *Foreign) Said() string { return LastLines(f.log.String()) }

// LastLines is the end of a log that fits into an error.
func LastLines(s string) string { return s[max(0, len(s)-600):] }

// syncBuffer is written by a process that still runs.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
