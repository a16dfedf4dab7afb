package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// chaosSize is how much of it: rate registrations a second of so many WICs, and for how long
// each part is away.
type chaosSize struct {
	wics, rate              int
	between                 time.Duration // with all up
	relay, edge, db, cables time.Duration
	grace                   time.Duration // flow_grace
	verify                  int           // credentials of each kind after each failure
}

var (
	chaosShort = chaosSize{wics: 100, rate: 100, between: 2 * time.Second, relay: 2 * time.Second, edge: time.Second, db: 3 * time.Second, cables: 6 * time.Second, grace: 4 * time.Second, verify: 60}
	// chaosSoak is make soak's.
	chaosSoak = chaosSize{wics: 1000, rate: 500, between: 15 * time.Second, relay: 10 * time.Second, edge: 10 * time.Second, db: time.Minute, cables: 30 * time.Second, grace: 20 * time.Second, verify: 500}
)

// backWithin is how soon after the end of a failure credentials of approach push must be
// handed out as before it. Only make soak holds them to it: it has the machine for itself.
const backWithin = 5 * time.Second

// TestChaos lets WICs register at two edges, which give credentials to two relays, while one
// part after the other fails. Each REGISTER is answered with 200, each credential is good at
// once where it says, and whatever becomes of the parts, none is lost and none comes back that
// was revoked. EPCSCF_SOAK=1 is the long form.
func TestChaos(t *testing.T) {
	size, soak := chaosShort, os.Getenv("EPCSCF_SOAK") != ""
	if soak {
		size = chaosSoak
	}
	w := startChaosWorld(t, size.grace, "info")
	ctx, cancel := context.WithCancel(t.Context())
	wait := w.start(ctx, size.wics, size.rate)
	defer wait()
	defer cancel()

	table := &chaosTable{w: w}
	for _, f := range []struct {
		what string
		fail func() // returns when the failure has ended
		back func(since time.Time) bool
	}{
		{"nothing fails", func() {}, w.allIssue},
		{"kill -9 relay1", func() { w.relays[0].restart(t, "relay", size.relay) }, w.allIssue},
		{"freeze relay2", func() { w.relays[1].freeze(t, size.relay) }, w.allIssue},
		{"kill -9 edge1", func() { w.edges[0].restart(t, "serve", size.edge) }, w.allIssue},
		{"kill PostgreSQL", func() { w.killDatabase(t, size.db) }, func(since time.Time) bool { return w.allIssue(since) && w.allFollow() }},
		{"cut edge1 from relays", func() { w.cut(t, size.cables) }, w.allIssue},
	} {
		if soak {
			fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), f.what)
		}
		f.fail()
		ended := time.Now()
		w.edges[0].eventually(t, f.what+": credentials as before", func() bool { return f.back(ended) })
		back := time.Since(ended)
		if soak && back > backWithin {
			t.Errorf("%s: credentials as before after %v, want %v", f.what, back, backWithin)
		}
		for _, e := range w.edges {
			e.eventually(t, f.what+": no revocation waits", func() bool { return e.pending() == 0 })
		}
		sleep(t, size.between)
		w.verify(size.verify)
		table.row(f.what, back)
		if soak {
			fmt.Fprint(os.Stderr, table.String())
		}
	}
	cancel()
	wait()
	w.verify(size.verify)
	t.Log("\n" + table.String())
	for _, relay := range []string{"relay1", "relay2"} {
		t.Logf("edge1 had to send %s %s snapshots", relay, w.edges[0].metric(`epcscf_push_snapshots_total{relay="`+relay+`"}`))
	}
	// edge2 was never cut: where it had no credential, the machine was too busy.
	for i, line := range regexp.MustCompile(`(?m)^.*no credential.*$`).FindAllString(w.edges[1].log.String(), -1) {
		if i < 3 {
			t.Log("edge2: ", line)
		}
	}
	if w.failures.Load()+w.lost.Load()+w.back.Load() > 0 {
		t.Errorf("failures:\n%s", strings.Join(w.problems, "\n"))
	}
	if w.checked.Load() == 0 || w.gone.Load() == 0 {
		t.Error("nothing was checked")
	}
}

// allIssue reports whether each edge has handed out a credential for each relay since.
func (w *chaosWorld) allIssue(since time.Time) bool {
	for i := range w.last {
		for j := range w.last[i] {
			if w.last[i][j].Load() < since.UnixNano() {
				return false
			}
		}
	}
	return true
}

// allFollow reports whether each process follows the database.
func (w *chaosWorld) allFollow() bool {
	for _, n := range []*chaosNode{w.edges[0], w.edges[1], w.relays[0], w.relays[1]} {
		if n.metric("epcscf_store_up") != "1" {
			return false
		}
	}
	return true
}

// pending is how many revocations wait in an edge's journal.
func (n *chaosNode) pending() (sum int) {
	for _, relay := range []string{"relay1", "relay2"} {
		var k int
		if _, err := fmt.Sscan(n.metric(`epcscf_push_revocations_pending{relay="`+relay+`"}`), &k); err != nil {
			return -1
		}
		sum += k
	}
	return sum
}

func (w *chaosWorld) killDatabase(t *testing.T, down time.Duration) {
	t.Helper()
	if err := w.db.Kill(); err != nil {
		t.Fatal(err)
	}
	sleep(t, down)
	if err := w.db.Up(); err != nil {
		t.Fatal(err)
	}
}

// cut spoils the way between edge1 and the relays for a while: answers are lost, so that
// writes come twice; requests come late and in another order; then each connection is
// reset; then nothing comes through.
func (w *chaosWorld) cut(t *testing.T, d time.Duration) {
	t.Helper()
	for _, toxic := range []string{
		`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": 8000}}`,
		`{"type": "latency", "stream": "upstream", "attributes": {"latency": 400, "jitter": 400}}`,
		`{"type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 50}}`,
		`{"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
	} {
		cure := w.poison(t, toxic)
		sleep(t, d/4)
		cure()
	}
}

// chaosTable is what was counted, with a row for each failure.
type chaosTable struct {
	w    *chaosWorld
	was  [8]int64
	rows []string
}

const chaosHead = "failure\tREGISTERs\twithout credential\tno 200\tflows lost with edge\tallocations\tlost\trevoked tried\tcame back\tissuing back after"

func (c *chaosTable) row(what string, back time.Duration) {
	l := c.w.chaosLoad
	now := [8]int64{l.registered.Load(), l.bare.Load(), l.failures.Load(), l.cut.Load(), l.checked.Load(), l.lost.Load(), l.gone.Load(), l.back.Load()}
	row := what
	for i := range now {
		row += fmt.Sprintf("\t%d", now[i]-c.was[i])
	}
	c.was = now
	c.rows = append(c.rows, row+"\t"+back.Round(10*time.Millisecond).String())
}

func (c *chaosTable) String() string {
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range append([]string{chaosHead}, c.rows...) {
		_, _ = fmt.Fprintln(tab, row+"\t")
	}
	_ = tab.Flush()
	return b.String()
}
