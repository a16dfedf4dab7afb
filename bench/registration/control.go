package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// op is what the bench asks an edge process to do.
type op string

const (
	opStats      op = "stats"
	opCollect    op = "collect"     // garbage collection; free memory goes back to the system
	opProfile    op = "profile"     // starts a CPU profile
	opProfileEnd op = "profile-end" // ends it
	opAllocs     op = "allocs"      // writes what was allocated since the start
	opHeap       op = "heap"        // writes what is alive
	opGoroutines op = "goroutines"  // writes what waits where
)

// command is a line to an edge process on its standard input. The end of the input ends it.
type command struct {
	Op   op
	File string
}

// status is a line from an edge process: the answer to a command, or, before any, that it
// serves.
type status struct {
	Addr       string // of the WSS listener
	Err        string
	Goroutines int
	Mallocs    uint64 // objects allocated so far
	TotalAlloc uint64 // bytes allocated so far
	HeapAlloc  uint64 // bytes alive, or garbage not collected
	Spans      uint64 // bytes of the spans that these are in: what is over is fragmentation
	Unreturned uint64 // bytes free, but not given back to the system
	StackInuse uint64
	Runtime    uint64 // bytes of the runtime's own tables
}

// control is the bench's end of the pipes to an edge process.
type control struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func (c *control) read() (s status, err error) {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("edge process: %w", err)
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("edge process: %w", err)
	}
	if s.Err != "" {
		return s, errors.New("edge process: " + s.Err)
	}
	return s, nil
}

func (c *control) do(o op, file string) (status, error) {
	line, err := json.Marshal(command{o, file})
	if err != nil {
		return status{}, err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return status{}, fmt.Errorf("edge process: %w", err)
	}
	return c.read()
}
