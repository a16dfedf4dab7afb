// Program push measures what it costs an edge to write a credential to a relay over the
// credential interface.
//
// A relay's side listens on loopback: TLS 1.3 with a certificate of both sides, HTTP/2, and
// the log that a relay keeps. An edge's side writes credentials at a steady rate, and the
// time from when each was due to when the relay had acknowledged it is measured. Beside it
// stand the same without a log, and what one fdatasync of 4 KiB takes in the same round.
//
// Nothing is asserted about time; the program fails where a write does.
//
//	go run ./bench/push -rate 2000 -length 5s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"epcscf/bench/internal/latency"
	"epcscf/bench/internal/program"
)

// settings are the command line.
type settings struct {
	rate, rounds int
	length       time.Duration
	dir          string
}

func main() {
	program.Main("push", run)
}

func parse(args []string) (s settings, err error) {
	fs := flag.NewFlagSet("push", flag.ContinueOnError)
	fs.IntVar(&s.rate, "rate", 2000, "credentials a second")
	fs.IntVar(&s.rounds, "rounds", 3, "rounds; in each, both kinds of relay have their turn")
	fs.DurationVar(&s.length, "length", 3*time.Second, "how long a relay is measured in a round")
	fs.StringVar(&s.dir, "dir", "", "`directory` of the log, on the disk that is meant (default: a temporary one)")
	if err := program.Parse(fs, args); err != nil {
		return s, err
	}
	if s.rate < 1 || s.rounds < 1 || s.length < time.Second {
		return s, errors.New("-rate and -rounds are at least 1, -length is at least 1s")
	}
	return s, nil
}

// result is what one round measured of one kind.
type result struct {
	put, sync latency.Spread
	achieved  float64
	cpu       time.Duration // of both sides, a credential
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	// Twice what it should take, and what it takes to start.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(2*s.rounds)*s.length+30*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp(s.dir, "epcscf-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kinds := []string{"without a log", "log on disk"}
	results := make([][]result, len(kinds))
	for round := range s.rounds {
		for i, kind := range kinds {
			_, _ = fmt.Fprintf(progress, "round %d: %s\n", round+1, kind)
			r, err := measure(ctx, s, fmt.Sprintf("%s/%d", dir, round), kind == kinds[1])
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			results[i] = append(results[i], r)
		}
	}
	return print(out, s, kinds, results)
}

// connected is how many credentials are written before, so that the handshake is over.
const connected = 20

// measure has one kind of relay written to.
func measure(ctx context.Context, s settings, dir string, durable bool) (r result, err error) {
	w, err := newWorld(ctx, dir, durable)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if r.sync, err = latency.Sync(dir); err != nil {
		return r, err
	}
	n := int(float64(s.rate) * s.length.Seconds())
	rs, err := w.credentials(ctx, n+connected)
	if err != nil {
		return r, err
	}
	for _, first := range rs[n:] {
		if err := w.fleet.Put(ctx, first); err != nil {
			return r, err
		}
	}
	before := cpuTime()
	defer func() { r.cpu = (cpuTime() - before) / time.Duration(n) }()
	r.put, r.achieved, err = latency.Pace(ctx, s.rate, n, func(ctx context.Context, i int) error { return w.fleet.Put(ctx, rs[i]) })
	return r, err
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func print(out io.Writer, s settings, kinds []string, results [][]result) error {
	_, _ = fmt.Fprintf(out, "\nA credential over the interface: %d a second for %v, medians of %d rounds, ms\n\n", s.rate, s.length, s.rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "relay\tp50\tp99\tmax\tfdatasync p50\tp99\tp99/fdatasync p99\ta second\tCPU us, both sides\t")
	for i, kind := range kinds {
		m := func(pick func(result) time.Duration) float64 {
			var ds []time.Duration
			for _, r := range results[i] {
				ds = append(ds, pick(r))
			}
			slices.Sort(ds)
			return float64(ds[len(ds)/2]) / float64(time.Millisecond)
		}
		p99, sync99 := m(func(r result) time.Duration { return r.put.P99 }), m(func(r result) time.Duration { return r.sync.P99 })
		_, _ = fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.0f\t%.0f\t\n", kind,
			m(func(r result) time.Duration { return r.put.P50 }), p99, m(func(r result) time.Duration { return r.put.Max }),
			m(func(r result) time.Duration { return r.sync.P50 }), sync99, p99/sync99, results[i][0].achieved, 1000*m(func(r result) time.Duration { return r.cpu }))
	}
	return t.Flush()
}
