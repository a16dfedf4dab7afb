package main

import (
	"context"
	"path/filepath"
	"strings"

	"epcscf/bench/internal/subject"
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
	p, err := subject.Start(edgeMode, "-approach", string(a), "-cert", b.certFile, "-key", b.keyFile,
		"-core", b.core.addr(), "-log", b.logLevel, "-log-file", filepath.Join(b.dir, "edge.log"))
	if err != nil {
		return nil, err
	}
	return &edge{addr: p.Addr, pid: p.PID, control: p.Control, stop: p.Stop}, nil
}

// profileFile names a pprof file of a contender.
func (b *bench) profileFile(c contender, kind string) string {
	return filepath.Join(b.profile, strings.ReplaceAll(c.name, " ", "-")+"."+kind+".pprof")
}
