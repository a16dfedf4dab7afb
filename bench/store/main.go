package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"epcscf/bench/internal/latency"
	"epcscf/bench/internal/program"
)

// settings are the command line.
type settings struct {
	only    string
	live    int
	rate    int
	length  time.Duration
	rounds  int
	batch   int
	dir     string
	timeout time.Duration
}

func main() {
	program.Main("store", run)
}

func parse(args []string) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("store", flag.ContinueOnError)
	fs.StringVar(&s.only, "only", "", "measure only these stores, by commas: none, wal, bolt, postgres")
	fs.IntVar(&s.live, "live", 100_000, "live credentials that are there before; RESULTS.md has 1000000")
	fs.IntVar(&s.rate, "rate", 2000, "credentials issued a second")
	fs.DurationVar(&s.length, "length", 3*time.Second, "how long a store is measured in a round")
	fs.IntVar(&s.rounds, "rounds", 3, "rounds; in each, every store has its turn")
	fs.IntVar(&s.batch, "batch", 500, "credentials of one write while the store is filled")
	fs.StringVar(&s.dir, "dir", "", "`directory` of the files, on the disk that is meant (default: a temporary one)")
	fs.DurationVar(&s.timeout, "timeout", 5*time.Minute, "give up after this time")
	if err := program.Parse(fs, args); err != nil {
		return s, err
	}
	if s.live < 0 || s.rate < 1 || s.rounds < 1 || s.batch < 1 || s.length < time.Second {
		return s, errors.New("-rate, -rounds and -batch are at least 1, -length is at least 1s")
	}
	return s, nil
}

// run measures and prints the table to out, and what it is doing to progress.
func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	ctx, cancel := program.Within(ctx, s.timeout)
	defer cancel()
	dir, err := os.MkdirTemp(s.dir, "epcscf-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var all []*subject
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.close())
		}
	}()
	for _, k := range kinds {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), k.name) {
			continue
		}
		c, err := k.open(ctx, dir)
		if errors.Is(err, errNotHere) {
			_, _ = fmt.Fprintf(progress, "%s: %v\n", k.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		c.name = k.name
		all = append(all, c)
		began := time.Now()
		if err := c.fill(ctx, s); err != nil {
			return fmt.Errorf("%s: fill: %w", k.name, err)
		}
		_, _ = fmt.Fprintf(progress, "%s: %d credentials in %.1f s\n", k.name, s.live, time.Since(began).Seconds())
	}
	for round := range s.rounds {
		sync, err := latency.Sync(dir)
		if err != nil {
			return err
		}
		for _, c := range all {
			_, _ = fmt.Fprintf(progress, "round %d: %s\n", round+1, c.name)
			if err := c.issue(ctx, s, sync); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return print(ctx, out, s, all)
}
