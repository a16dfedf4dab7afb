package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"epcscf/internal/realpart"
	"epcscf/turncred"
)

// TestMain lets the test binary be the edge process, as the program itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == edgeMode {
		os.Exit(edgeMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// smoke is small enough for every test run.
func smoke(t *testing.T) *bench {
	t.Helper()
	b, err := newBench(settings{flows: 4, each: 3, rounds: 1, idle: 3, storm: 8, logLevel: "off", poll: time.Millisecond}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// registerSmoke runs one contender and counts.
func registerSmoke(t *testing.T, b *bench, c contender) {
	t.Helper()
	before := b.core.requests.Load()
	got, err := b.measureRound(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	want := int64(b.flows * b.each)
	if got.registrations != want || got.failed != 0 || got.bare != 0 {
		t.Errorf("%d registrations, %d failed, %d without credential (%v); want %d, 0, 0", got.registrations, got.failed, got.bare, got.firstErr, want)
	}
	// Each flow has registered once before. UDP may repeat a request.
	if n := b.core.requests.Load() - before; n < want+int64(b.flows) {
		t.Errorf("the core saw %d REGISTERs, want %d", n, want+int64(b.flows))
	}
}

func TestOursRegister(t *testing.T) {
	b := smoke(t)
	for _, a := range []turncred.Approach{turncred.ApproachSharedKey, turncred.ApproachPush} {
		t.Run(string(a), func(t *testing.T) { registerSmoke(t, b, b.ourEdge(a)) })
	}
}

func TestKamailioRegisters(t *testing.T) {
	b := smoke(t)
	c, err := b.kamailioEdge()
	if err != nil {
		realpart.Missing(t, "kamailio: "+err.Error())
	}
	registerSmoke(t, b, c)
}

func TestIdleFlowsAndStorm(t *testing.T) {
	b := smoke(t)
	b.edges = b.edges[:1]
	m, err := b.measureIdleFlows(t.Context(), b.edges[0], b.idle)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.opening.flows) != b.idle || m.empty <= 0 || m.full <= 0 || m.after.Goroutines < b.idle {
		t.Errorf("idle: %d flows, %d bytes, then %d, %d goroutines", len(m.opening.flows), m.empty, m.full, m.after.Goroutines)
	}
	s, err := b.measureStorm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.opening.flows) != b.storm || s.opening.failed != 0 {
		t.Errorf("storm: %d of %d flows, first error: %v", len(s.opening.flows), b.storm, s.opening.firstErr)
	}
}

func TestEdgeThatCannotStart(t *testing.T) {
	b := smoke(t)
	b.certFile = "/nonexistent"
	if _, err := b.startOurs(turncred.ApproachPush); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("startOurs without a certificate: %v, want an error that names the file", err)
	}
}

func TestCheck(t *testing.T) {
	const ok = "SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n3gpp-ext-turn-cred: unavailable;reason=disabled\r\n\r\n"
	w := newWIC(nil, 1, "3gpp-ext-turn-cred")
	for _, cseq := range []int{1, 2} {
		w.cseq = cseq
		if err := w.check("200", []byte(ok)); !errors.Is(err, errNoCredential) {
			t.Errorf("unavailable in answer %d: %v, want errNoCredential", cseq, err)
		}
	}
	if err := w.check("403", []byte("SIP/2.0 403 Forbidden\r\n\r\n")); err == nil || errors.Is(err, errNoCredential) {
		t.Errorf("403: %v, want another error", err)
	}
}

func TestParseSettings(t *testing.T) {
	for _, args := range [][]string{{"-flows", "0"}, {"-rounds", "0"}, {"-idle", "-1"}, {"extra"}, {"-unknown"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("parse(%q) took it", args)
		}
	}
}
