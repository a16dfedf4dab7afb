package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"epcscf/bench/internal/subject"
)

func cpuOf(c cost) float64 { return c.cpu }

func milliseconds(s series, pick func(cost) time.Duration) float64 {
	return float64(subject.Median(subject.Over(s.rounds, pick)).Microseconds()) / 1000
}

func printPoints(out io.Writer, s settings, rows []row) {
	_, _ = fmt.Fprintf(out, "\nRelayed packets: medians of %d interleaved rounds of %v; each echo is two packets\n\n", s.rounds, s.each)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "allocations\tbytes\tclients send/s\tserver\tCPU-us/packet\tmin..max\tlost %\tp50 ms\tp99 ms\tours/its CPU\tmin..max\t")
	for _, r := range rows {
		for _, c := range r.servers {
			cpu := subject.Over(c.rounds, cpuOf)
			_, _ = fmt.Fprintf(t, "%d\t%d\t%s%.0f\t%s\t%.2f\t%.2f..%.2f\t%.2f\t%.2f\t%.2f\t%s\n", r.allocations, r.size, r.most(),
				subject.Median(subject.Over(c.rounds, func(c cost) float64 { return c.rate })), c.name, subject.Median(cpu), slices.Min(cpu), slices.Max(cpu),
				100*subject.Median(subject.Over(c.rounds, func(c cost) float64 { return c.loss })),
				milliseconds(c, func(c cost) time.Duration { return c.p50 }), milliseconds(c, func(c cost) time.Duration { return c.p99 }),
				r.ratio(c))
		}
	}
	_ = t.Flush()
}

func (r row) most() string {
	if r.rate == 0 {
		return "most: "
	}
	return ""
}

// ratio compares the CPU time of ours with another's of the same round.
func (r row) ratio(c series) string {
	i := slices.IndexFunc(r.servers, func(s series) bool { return s.ours })
	if i < 0 || c.ours {
		return "\t\t"
	}
	var all []float64
	for k, theirs := range c.rounds {
		if theirs.cpu > 0 {
			all = append(all, r.servers[i].rounds[k].cpu/theirs.cpu)
		}
	}
	if len(all) == 0 {
		return "\t\t"
	}
	return fmt.Sprintf("%.2f\t%.2f..%.2f\t", subject.Median(all), slices.Min(all), slices.Max(all))
}

func printIdle(out io.Writer, all []idleCost) {
	if len(all) == 0 {
		return
	}
	_, _ = fmt.Fprintf(out, "\nAllocations: CPU time of an Allocate with the 401 before it, and Pss of the process by idle\n"+
		"allocation, as it comes to rest, and ours after a garbage collection\n\n")
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, strings.Join([]string{"server", "allocations", "a second", "CPU-us each", "KiB each", "collected", "goroutines", "empty MiB"}, "\t")+"\t")
	for _, c := range all {
		ours := "\t\t"
		if c.ours {
			ours = fmt.Sprintf("%.1f\t%d\t", c.kib(c.collected), c.goroutines)
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.1f\t%s%.1f\t\n", c.name, c.allocations, c.rate, c.cpu, c.kib(c.full), ours, float64(c.empty)/(1<<20))
	}
	_ = t.Flush()
}
