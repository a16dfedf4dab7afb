package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"time"

	"epcscf/bench/internal/program"
	"epcscf/bench/internal/subject"
)

// settings are the command line.
type settings struct {
	points   []point
	rounds   int
	each     time.Duration // of one measurement
	most     bool          // find the highest rate
	idle     int
	profile  string
	only     []string
	timeout  time.Duration
	poll     time.Duration // between two looks at memory that settles
	parallel int           // allocations under way at a time
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case oursMode:
			os.Exit(subject.Main(func() error { return oursRun(os.Args[2:], os.Stdin, os.Stdout) }))
		case pionMode:
			os.Exit(subject.Main(func() error { return pionRun(os.Args[2:], os.Stdin, os.Stdout) }))
		}
	}
	program.Main("relay", run)
}

// grid is what is measured by default.
const grid = "20x172@20000,20x172@60000,20x1200@20000,20x1200@60000,500x172@20000,500x172@60000,500x1200@20000,500x1200@60000"

func parse(args []string) (settings, error) {
	s := settings{poll: 500 * time.Millisecond, parallel: 8}
	fs := flag.NewFlagSet("relay", flag.ContinueOnError)
	points := fs.String("points", grid, "what to measure: `ALLOCATIONSxBYTES@RATE,...`, the rate in packets of the clients a second")
	only := fs.String("only", "", "measure only the servers whose name contains one of these, separated by commas")
	fs.IntVar(&s.rounds, "rounds", 3, "rounds; in each, every server has its turn at every point")
	fs.DurationVar(&s.each, "each", 800*time.Millisecond, "how long to send at each point")
	fs.BoolVar(&s.most, "max", true, "find the most that loses under 1 %, too")
	fs.IntVar(&s.idle, "idle", 10000, "idle allocations whose memory is measured; 0: none")
	fs.StringVar(&s.profile, "profile", "", "write CPU profiles of ours to this `directory`")
	fs.DurationVar(&s.timeout, "timeout", 10*time.Minute, "give up after this time")
	if err := program.Parse(fs, args); err != nil {
		return s, err
	}
	if s.rounds < 1 || s.idle < 0 || s.each <= 0 {
		return s, errors.New("-rounds is at least 1, -idle at least 0, -each more than 0")
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	var err error
	s.points, err = parsePoints(*points)
	return s, err
}

// run measures and prints the tables to out, and what it is doing to progress.
func run(ctx context.Context, args []string, out, progress io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	ctx, cancel := program.Within(ctx, s.timeout)
	defer cancel()
	b, err := newBench(s, progress)
	if err != nil {
		return err
	}
	defer b.close()

	costs, err := b.measurePoints(ctx)
	if err != nil {
		return err
	}
	printPoints(out, s, costs)
	idle, err := b.measureIdle(ctx)
	if err != nil {
		return err
	}
	printIdle(out, idle)
	return nil
}
