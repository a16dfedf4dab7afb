package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"time"

	"epcscf/bench/internal/program"
)

// settings are the command line.
type settings struct {
	flows    int
	each     int
	rounds   int
	idle     int
	idleOurs int
	storm    int
	profile  string
	logLevel string
	only     string
	timeout  time.Duration
	poll     time.Duration // between two looks at memory that settles
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == edgeMode {
		os.Exit(edgeMain(os.Args[2:]))
	}
	program.Main("registration", run)
}

func parse(args []string) (settings, error) {
	s := settings{poll: time.Second}
	fs := flag.NewFlagSet("registration", flag.ContinueOnError)
	fs.IntVar(&s.flows, "flows", 200, "flows that register at the same time")
	fs.IntVar(&s.each, "each", 150, "registrations of each flow in the measured part")
	fs.IntVar(&s.rounds, "rounds", 3, "rounds; in each, every edge has its turn")
	fs.IntVar(&s.idle, "idle", 2000, "idle registered flows whose memory is measured; 0: none")
	fs.IntVar(&s.idleOurs, "idle-ours", 10000, "the same once more, for our edge only; 0: none")
	fs.IntVar(&s.storm, "storm", 10000, "flows that connect to our edge at once; 0: none")
	fs.StringVar(&s.profile, "profile", "", "write pprof files of our edge to this `directory`")
	fs.StringVar(&s.logLevel, "log", "off", "log level of our edge: off, info or debug, to a file")
	fs.StringVar(&s.only, "only", "", "measure only the edges whose name contains this")
	fs.DurationVar(&s.timeout, "timeout", 10*time.Minute, "give up after this time")
	if err := program.Parse(fs, args); err != nil {
		return s, err
	}
	if s.flows < 1 || s.each < 1 || s.rounds < 1 || s.idle < 0 || s.idleOurs < 0 || s.storm < 0 {
		return s, errors.New("-flows, -each and -rounds are at least 1, the others at least 0")
	}
	return s, nil
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

	costs, err := b.measureCost(ctx)
	if err != nil {
		return err
	}
	idle, err := b.measureIdle(ctx)
	if err != nil {
		return err
	}
	storm, err := b.measureStorm(ctx)
	if err != nil {
		return err
	}
	printCost(out, s, costs)
	printIdle(out, idle)
	printStorm(out, storm)
	return failures(costs, idle, storm)
}
