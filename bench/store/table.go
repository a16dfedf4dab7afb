package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"epcscf/turncred/push"
)

// median of the rounds.
func median(rounds []round, pick func(round) time.Duration) time.Duration {
	vs := make([]time.Duration, len(rounds))
	for i, r := range rounds {
		vs[i] = pick(r)
	}
	slices.Sort(vs)
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

func print(ctx context.Context, out io.Writer, s settings, all []*subject) error {
	_, _ = fmt.Fprintf(out, "\nIssue: %d live credentials, %d a second for %v, medians of %d rounds, ms\n\n", s.live, s.rate, s.length, s.rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "store\tp50\tp99\tmax\tp99/fdatasync p99\tfdatasync p50\tp99\ta second\tbytes a row\topen and read all, s\t")
	for _, c := range all {
		rows := s.live + s.rounds*int(float64(s.rate)*s.length.Seconds())
		size, err := c.bytes(ctx)
		if err != nil {
			return err
		}
		load, err := c.load(ctx, rows)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		var least float64
		for _, r := range c.rounds {
			if least == 0 || r.achieved < least {
				least = r.achieved
			}
		}
		p99 := median(c.rounds, func(r round) time.Duration { return r.put.P99 })
		sync99 := median(c.rounds, func(r round) time.Duration { return r.sync.P99 })
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.1f\t%s\t%s\t%.0f\t%d\t%.1f\t\n", c.name,
			ms(median(c.rounds, func(r round) time.Duration { return r.put.P50 })), ms(p99),
			ms(median(c.rounds, func(r round) time.Duration { return r.put.Max })),
			float64(p99)/float64(sync99), ms(median(c.rounds, func(r round) time.Duration { return r.sync.P50 })), ms(sync99),
			least, size/int64(max(rows, 1)), load.Seconds())
	}
	return t.Flush()
}

// load opens the store again and reads all that is live.
func (c *subject) load(ctx context.Context, want int) (time.Duration, error) {
	began := time.Now()
	l, err := c.reopen(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	err = l.EachCredential(ctx, func(push.Record) error { n++; return nil })
	if err == nil && n != want {
		err = fmt.Errorf("%d credentials were there, want %d", n, want)
	}
	return time.Since(began), err
}
