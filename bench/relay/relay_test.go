package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"epcscf/bench/internal/subject"
	"epcscf/internal/realpart"
)

// TestMain lets the test binary be the process under test, as the program itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case oursMode:
			os.Exit(subject.Main(func() error { return oursRun(os.Args[2:], os.Stdin, os.Stdout) }))
		case pionMode:
			os.Exit(subject.Main(func() error { return pionRun(os.Args[2:], os.Stdin, os.Stdout) }))
		}
	}
	os.Exit(m.Run())
}

// smoke is small enough for every test run.
func smoke(t *testing.T, c contender) {
	t.Helper()
	p := point{allocations: 3, size: 172, rate: 500}
	b := &bench{
		settings: settings{points: []point{p}, rounds: 1, each: 100 * time.Millisecond, idle: 4, poll: time.Millisecond, parallel: 2},
		progress: t.Output(), servers: []contender{c},
	}
	rows, err := b.measurePoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := rows[0].servers[0].rounds[0]; got.loss != 0 || got.rate <= 0 || got.p50 <= 0 {
		t.Errorf("%+v, want packets, none lost, that took time", got)
	}
	idle, err := b.measureIdle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := idle[0]; got.empty <= 0 || got.full <= 0 || got.rate <= 0 {
		t.Errorf("idle: %+v", got)
	}
}

func TestOursRelays(t *testing.T) { smoke(t, ours()) }

func TestPionRelays(t *testing.T) { smoke(t, pion()) }

func TestCoturnRelays(t *testing.T) {
	c, err := coturn()
	if err != nil {
		realpart.Missing(t, "coturn: "+err.Error())
	}
	smoke(t, c)
}

func TestParsePoints(t *testing.T) {
	all, err := parsePoints(grid)
	if err != nil || len(all) != 8 || all[0] != (point{20, 172, 20000}) {
		t.Errorf("parsePoints(grid) = %v, %v", all, err)
	}
	for _, s := range []string{"", "20x172", "20x172@0", "0x172@5", "20x4@5", "20x172@5,", "20x172@5x", "20x9000@5"} {
		if all, err := parsePoints(s); err == nil || !strings.Contains(err.Error(), "-points") {
			t.Errorf("parsePoints(%q) = %v, %v, want an error that names the flag", s, all, err)
		}
	}
}

func TestRowsHaveTheMostOnce(t *testing.T) {
	b := &bench{settings: settings{points: []point{{20, 172, 20000}, {20, 172, 60000}}, most: true}}
	if rows := b.rows(); len(rows) != 3 || rows[2].point != (point{20, 172, 0}) {
		t.Errorf("rows = %v, want both points and the most of both once", rows)
	}
}

func TestParseSettings(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-idle", "-1"}, {"-each", "0s"}, {"extra"}, {"-unknown"}, {"-points", "x"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("parse(%q) took it", args)
		}
	}
}
