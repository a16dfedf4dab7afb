package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"epcscf/bench/internal/subject"
)

// cost is what one server took at one point in one round.
type cost struct {
	cpu      float64 // microseconds a relayed packet
	loss     float64 // of echoes
	p50, p99 time.Duration
	rate     float64 // packets that the clients sent a second
}

// series is what one server took at one point in every round, and the most that it bore.
type series struct {
	contender
	rounds []cost
}

// row is a point with all servers. Its rate is 0 where it is the most that each bears.
type row struct {
	point
	servers []series
}

// running is a started server with its flows, which stay for the whole run.
type running struct {
	contender
	*server
	loads map[int]*load // by number of allocations
}

func (r *running) stop() {
	for _, l := range r.loads {
		l.close()
		closeFlows(l.flows)
	}
	r.server.stop()
}

// startAll starts the servers. All run at a time, and one works.
func (b *bench) startAll() (all []*running, err error) {
	defer func() {
		if err != nil {
			stopAll(all)
		}
	}()
	for _, c := range b.servers {
		s, err := c.start()
		if err != nil {
			return all, fmt.Errorf("%s: %w", c.name, err)
		}
		r := &running{contender: c, server: s, loads: map[int]*load{}}
		all = append(all, r)
		for _, p := range b.points {
			if r.loads[p.allocations] != nil {
				continue
			}
			flows, err := b.openFlows(c, s, p.allocations, true)
			if err != nil {
				return all, err
			}
			if r.loads[p.allocations], err = newLoad(flows); err != nil {
				closeFlows(flows)
				return all, err
			}
		}
	}
	return all, nil
}

func stopAll(all []*running) {
	for _, r := range all {
		r.stop()
	}
}

// measurePoints lets the servers take turns at each point (A B C A B C), so that what else
// the machine does falls on all of them.
func (b *bench) measurePoints(ctx context.Context) ([]row, error) {
	all, err := b.startAll()
	if err != nil {
		return nil, err
	}
	defer stopAll(all)
	rows := b.rows()
	for i := range rows {
		p := rows[i].point
		rows[i].servers = make([]series, len(all))
		for round := range b.rounds {
			for k, r := range all {
				got, err := b.measure(ctx, r, p)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", r.name, err)
				}
				b.say("%s, round %d, %s: %.2f CPU-us a packet, %.2f %% lost, p50 %v, p99 %v, %.0f a second", p, round+1, r.name,
					got.cpu, 100*got.loss, got.p50.Round(time.Microsecond), got.p99.Round(time.Microsecond), got.rate)
				rows[i].servers[k].contender = r.contender
				rows[i].servers[k].rounds = append(rows[i].servers[k].rounds, got)
			}
		}
	}
	return rows, nil
}

// rows are the points, and with -max each number of allocations and size once more.
func (b *bench) rows() (rows []row) {
	seen := map[point]bool{}
	for _, p := range b.points {
		rows = append(rows, row{point: p})
	}
	for _, p := range b.points {
		if p.rate = 0; b.most && !seen[p] {
			seen[p] = true
			rows = append(rows, row{point: p})
		}
	}
	return rows
}

func (b *bench) measure(ctx context.Context, r *running, p point) (cost, error) {
	if p.rate == 0 {
		return b.findMost(ctx, r, p)
	}
	stopProfile, err := b.startProfile(r, p)
	if err != nil {
		return cost{}, err
	}
	got, err := b.measureOnce(ctx, r, p, b.each)
	return got, errors.Join(err, stopProfile())
}

func (b *bench) measureOnce(ctx context.Context, r *running, p point, d time.Duration) (cost, error) {
	before, err := subject.CPUTime(r.pid)
	if err != nil {
		return cost{}, err
	}
	o, err := r.loads[p.allocations].run(ctx, p.size, p.rate, d)
	if err != nil {
		return cost{}, err
	}
	after, err := subject.CPUTime(r.pid)
	if err != nil {
		return cost{}, err
	}
	return cost{
		cpu: float64((after - before).Microseconds()) / float64(max(o.relayed(), 1)), loss: o.loss(),
		p50: subject.Percentile(o.trips, 50), p99: subject.Percentile(o.trips, 99),
		rate: float64(o.sent) / o.took.Seconds(),
	}, nil
}

const (
	tolerable = 0.01
	firstMost = 40000
	stepsMost = 5
)

// findMost looks for the highest rate that loses under 1 %: up by a half until it does not,
// then half way back.
func (b *bench) findMost(ctx context.Context, r *running, p point) (best cost, err error) {
	low, high := 0.0, 0.0
	p.rate = firstMost
	for range stepsMost {
		got, err := b.measureOnce(ctx, r, p, b.each/2)
		if err != nil {
			return cost{}, err
		}
		if got.loss < tolerable && got.rate > best.rate {
			best = got
		}
		switch {
		case got.loss < tolerable && got.rate > 0.9*float64(p.rate):
			low = float64(p.rate)
		default: // it loses, or the clients cannot send more
			high = float64(p.rate)
		}
		switch {
		case high == 0:
			p.rate += p.rate / 2
		case low == 0:
			p.rate /= 2
		default:
			p.rate = int((low + high) / 2)
		}
	}
	return best, nil
}

// startProfile profiles ours while it is measured, where that is wanted.
func (b *bench) startProfile(r *running, p point) (stop func() error, err error) {
	if b.profile == "" || r.control == nil {
		return func() error { return nil }, nil
	}
	if _, err := r.control.Do(subject.Profile, filepath.Join(b.profile, strings.ReplaceAll(p.String(), "@", "-")+".pprof")); err != nil {
		return nil, err
	}
	return func() error {
		_, err := r.control.Do(subject.ProfileEnd, "")
		return err
	}, nil
}
