package subject

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Process is a subject of ours that serves.
type Process struct {
	Addr    string
	PID     int
	Control *Control
	Stop    func()
}

// Start starts this program again in one of its hidden modes, and waits until it serves.
func Start(mode string, args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{mode}, args...)...) //nolint:gosec // G204: this program
	var log bytes.Buffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{PID: cmd.Process.Pid, Control: &Control{in, bufio.NewReader(out)}, Stop: func() {
		_ = in.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
	}}
	ready, err := p.Control.read()
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("%w; it said: %s", err, LastLines(log.String()))
	}
	p.Addr = ready.Addr
	return p, nil
}
