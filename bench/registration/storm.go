package main

import (
	"context"
	"fmt"
	"time"

	"epcscf/bench/internal/subject"
)

// storm is how our edge fared when every WIC connected and registered at once, as after a
// restart.
type storm struct {
	name    string
	flows   int
	opening *opening
	cpu     time.Duration
	peak    int64 // bytes of the process when all were registered
}

// measureStorm measures the first of our edges; the approaches differ by nothing that a
// handshake would show.
func (b *bench) measureStorm(ctx context.Context) (*storm, error) {
	for _, c := range b.edges {
		if c.ours && b.storm > 0 {
			s, err := b.measureOneStorm(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			return s, nil
		}
	}
	return nil, nil
}

func (b *bench) measureOneStorm(ctx context.Context, c contender) (*storm, error) {
	e, err := c.start(ctx)
	if err != nil {
		return nil, err
	}
	defer e.stop()
	b.say("storm: %d flows at once, %s", b.storm, c.name)
	before, err := subject.CPUTime(e.pid)
	if err != nil {
		return nil, err
	}
	s := &storm{name: c.name, flows: b.storm, opening: b.openFlows(ctx, c, e, 0, b.storm, b.storm)}
	defer s.opening.close()
	after, err := subject.CPUTime(e.pid)
	if err != nil {
		return nil, err
	}
	s.cpu = after - before
	if s.peak, err = subject.Memory(e.pid); err != nil {
		return nil, err
	}
	return s, context.Cause(ctx)
}
