package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"epcscf/bench/internal/subject"
)

func cpuOf(c cost) float64 { return c.cpu }

func printCost(out io.Writer, s settings, all []series) {
	_, _ = fmt.Fprintf(out, "\nRegistration: %d flows, %d registrations each, medians of %d interleaved rounds\n\n", s.flows, s.each, s.rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "edge\tCPU-us/reg\tmin..max\treg/s\tp50 ms\tp95 ms\tp99 ms\tfailed\tno credential\tallocs/reg\tKiB/reg\t")
	for _, c := range all {
		cpu := subject.Over(c.rounds, cpuOf)
		var failed, bare int64
		for _, r := range c.rounds {
			failed, bare = failed+r.failed, bare+r.bare
		}
		allocs, kib := "", ""
		if c.ours {
			allocs = fmt.Sprintf("%.0f", subject.Median(subject.Over(c.rounds, func(r cost) float64 { return r.allocs })))
			kib = fmt.Sprintf("%.1f", subject.Median(subject.Over(c.rounds, func(r cost) float64 { return r.allocated }))/1024)
		}
		_, _ = fmt.Fprintf(t, "%s\t%.1f\t%.1f..%.1f\t%.0f\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t\n", c.name, subject.Median(cpu), slices.Min(cpu), slices.Max(cpu),
			subject.Median(subject.Over(c.rounds, func(r cost) float64 { return r.rate })), milliseconds(c, func(r cost) time.Duration { return r.p50 }),
			milliseconds(c, func(r cost) time.Duration { return r.p95 }), milliseconds(c, func(r cost) time.Duration { return r.p99 }),
			failed, bare, allocs, kib)
	}
	_ = t.Flush()
	printRatios(out, all)
}

func milliseconds(s series, pick func(cost) time.Duration) string {
	return fmt.Sprintf("%.1f", float64(subject.Median(subject.Over(s.rounds, pick)).Microseconds())/1000)
}

// printRatios compares the CPU time of ours with Kamailio's of the same round.
func printRatios(out io.Writer, all []series) {
	for _, theirs := range all {
		if theirs.ours {
			continue
		}
		for _, c := range all {
			if !c.ours {
				continue
			}
			var ratios []float64
			for i := range c.rounds {
				ratios = append(ratios, c.rounds[i].cpu/theirs.rounds[i].cpu)
			}
			_, _ = fmt.Fprintf(out, "CPU of %s / %s: %.2f (%.2f..%.2f)\n", c.name, theirs.name, subject.Median(ratios), slices.Min(ratios), slices.Max(ratios))
		}
	}
}

func printIdle(out io.Writer, all []idleMemory) {
	if len(all) == 0 {
		return
	}
	_, _ = fmt.Fprintf(out, "\nIdle registered flows: Pss of the process tree in KiB a flow, as it comes to rest, and ours\n"+
		"after a garbage collection and by what it is then\n\n")
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "edge\tflows\tKiB/flow\tcollected\tlive heap\tfragments\tstack\truntime\tgoroutines/flow\tempty MiB\tfull MiB\topened in s\tfailed\t")
	for _, m := range all {
		ours := "\t\t\t\t\t\t"
		if m.ours {
			ours = fmt.Sprintf("%.1f\t%s\t%.2f\t", m.perFlow(m.collected)/1024, m.parts(), float64(m.after.Goroutines-m.before.Goroutines)/float64(m.flows))
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%.1f\t%s%.1f\t%.1f\t%.1f\t%d\t\n", m.name, m.flows, m.perFlow(m.full)/1024, ours,
			float64(m.empty)/(1<<20), float64(m.full)/(1<<20), m.opening.took.Seconds(), m.opening.failed)
	}
	_ = t.Flush()
}

// parts says what the memory of a flow is, in KiB.
func (m idleMemory) parts() string {
	grown := func(of func(subject.Status) uint64) float64 {
		return (float64(of(m.after)) - float64(of(m.before))) / float64(m.flows) / 1024
	}
	live := grown(func(s subject.Status) uint64 { return s.HeapAlloc })
	spans := grown(func(s subject.Status) uint64 { return s.Spans + s.Unreturned })
	stack := grown(func(s subject.Status) uint64 { return s.StackInuse })
	tables := grown(func(s subject.Status) uint64 { return s.Runtime })
	return fmt.Sprintf("%.1f\t%.1f\t%.1f\t%.1f", live, spans-live, stack, tables)
}

func printStorm(out io.Writer, s *storm) {
	if s == nil {
		return
	}
	o := s.opening
	_, _ = fmt.Fprintf(out, "\nStorm, %s: %d of %d flows connected and registered in %.1f s; %d needed a second attempt, %d a third; %.0f CPU-us of the edge each; %.0f MiB\n",
		s.name, len(o.flows), s.flows, o.took.Seconds(), o.again, o.thrice, float64(s.cpu.Microseconds())/float64(s.flows), float64(s.peak)/(1<<20))
	if o.firstErr != nil {
		_, _ = fmt.Fprintln(out, "  the first error was:", o.firstErr)
	}
}

// failures says what did not register.
func failures(costs []series, idle []idleMemory, s *storm) error {
	var errs []error
	for _, c := range costs {
		for _, r := range c.rounds {
			if r.failed+r.bare > 0 {
				errs = append(errs, fmt.Errorf("%s: %d registrations failed, %d had no credential: %w", c.name, r.failed, r.bare, r.firstErr))
			}
		}
	}
	for _, m := range idle {
		if m.opening.failed > 0 {
			errs = append(errs, fmt.Errorf("%s: %d idle flows did not register: %w", m.name, m.opening.failed, m.opening.firstErr))
		}
	}
	if s != nil && s.opening.failed > 0 {
		errs = append(errs, fmt.Errorf("%s: %d flows of the storm did not register: %w", s.name, s.opening.failed, s.opening.firstErr))
	}
	return errors.Join(errs...)
}
