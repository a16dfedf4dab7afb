package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"epcscf/sipext"
	"epcscf/turncred"
)

// ourEdge is this module's proxy in a process of its own: this program again, in its
// hidden mode.
func (b *bench) ourEdge(a turncred.Approach) contender {
	return contender{
		name: "epcscf " + string(a), credential: sipext.TurnCredHeader, ours: true,
		start: func(context.Context) (*edge, error) { return b.startOurs(a) },
	}
}

func (b *bench) startOurs(a turncred.Approach) (*edge, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, edgeMode, "-approach", string(a), "-cert", b.certFile, "-key", b.keyFile, //nolint:gosec // G204: this program
		"-core", b.core.addr(), "-log", b.logLevel, "-log-file", filepath.Join(b.dir, "edge.log"))
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
	e := &edge{pid: cmd.Process.Pid, control: &control{in, bufio.NewReader(out)}, stop: func() {
		_ = in.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
	}}
	ready, err := e.control.read()
	if err != nil {
		e.stop()
		return nil, fmt.Errorf("%w; it said: %s", err, lastLines(log.String()))
	}
	e.addr = ready.Addr
	return e, nil
}

// profileFile names a pprof file of a contender.
func (b *bench) profileFile(c contender, kind string) string {
	return filepath.Join(b.profile, strings.ReplaceAll(c.name, " ", "-")+"."+kind+".pprof")
}
