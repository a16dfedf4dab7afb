package subject

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
)

// Op is what a benchmark asks its subject to do.
type Op string

// What a subject can do. Those that write take the file's name.
const (
	Stats      Op = "stats"
	Collect    Op = "collect"     // garbage collection; free memory goes back to the system
	Profile    Op = "profile"     // starts a CPU profile
	ProfileEnd Op = "profile-end" // ends it
	Allocs     Op = "allocs"      // writes what was allocated since the start
	Heap       Op = "heap"        // writes what is alive
	Goroutines Op = "goroutines"  // writes what waits where
)

// command is a line to a subject on its standard input. The end of the input ends it.
type command struct {
	Op   Op
	File string
}

// Status is a line from a subject: the answer to a command, or, before any, that it serves.
type Status struct {
	Addr       string // of its listener
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

// Control is the benchmark's end of the pipes to a subject of ours.
type Control struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func (c *Control) read() (s Status, err error) {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("subject: %w", err)
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("subject: %w", err)
	}
	if s.Err != "" {
		return s, errors.New("subject: " + s.Err)
	}
	return s, nil
}

// Do has the subject do o and returns its status after that.
func (c *Control) Do(o Op, file string) (Status, error) {
	line, err := json.Marshal(command{o, file})
	if err != nil {
		return Status{}, err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return Status{}, fmt.Errorf("subject: %w", err)
	}
	return c.read()
}

// Main runs a subject and returns its exit status. Where run fails, the benchmark hears it.
func Main(run func() error) int {
	if err := run(); err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(Status{Err: err.Error()})
		fmt.Fprintln(os.Stderr, "subject:", err)
		return 1
	}
	return 0
}

// Obey says that the subject serves at addr, then takes commands until in ends.
func Obey(in io.Reader, out io.Writer, addr string) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(Status{Addr: addr}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var c command
		err := json.Unmarshal(lines.Bytes(), &c)
		if err == nil {
			err = c.execute()
		}
		s := stats()
		if err != nil {
			s.Err = err.Error()
		}
		if err := enc.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

func (c command) execute() error {
	switch c.Op {
	case Stats:
		return nil
	case Collect:
		// Twice, since sync.Pool lets go of its contents at the second collection only, and
		// a stack shrinks by half at each.
		debug.FreeOSMemory()
		debug.FreeOSMemory()
		return nil
	case Profile:
		f, err := os.Create(c.File)
		if err != nil {
			return err
		}
		return pprof.StartCPUProfile(f) // the file is closed with the process
	case ProfileEnd:
		pprof.StopCPUProfile()
		return nil
	case Allocs:
		return writeProfile("allocs", c.File)
	case Heap:
		return writeProfile("heap", c.File)
	case Goroutines:
		return writeProfile("goroutine", c.File)
	}
	return fmt.Errorf("unknown command %q", c.Op)
}

func writeProfile(name, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
}

func stats() Status {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Status{
		Goroutines: runtime.NumGoroutine(), Mallocs: m.Mallocs, TotalAlloc: m.TotalAlloc,
		HeapAlloc: m.HeapAlloc, Spans: m.HeapInuse, Unreturned: m.HeapIdle - m.HeapReleased, StackInuse: m.StackInuse,
		Runtime: m.MSpanSys + m.MCacheSys + m.BuckHashSys + m.GCSys + m.OtherSys,
	}
}
