package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"
)

// chaosNode is what the load knows of a process: whether it should answer, and which life
// of it. life changes before it is killed.
type chaosNode struct {
	*served
	turnAddr string // of a relay
	login    string // of an edge's WAF
	up       atomic.Bool
	life     atomic.Int64
	proc     *server
}

// chaosLoad are WICs that register, and what is counted of them.
type chaosLoad struct {
	edges, relays [2]*chaosNode
	roots         *x509.CertPool

	registered, bare, cut, failures atomic.Int64 // 200s; those without a credential; flows that a killed edge took along; REGISTERs without 200
	checked, lost, silent           atomic.Int64 // allocations; those refused; those at a relay that was away
	gone, back                      atomic.Int64 // revoked credentials tried; those taken

	last   [2][2]atomic.Int64 // when edge i handed out a credential for relay j, Unix ns
	sample chan *handedOut

	mu       sync.Mutex // guards the fields below
	good     []*handedOut
	revoked  []*handedOut
	problems []string
}

// keptForChecks bounds how many credentials are remembered, the newest.
const keptForChecks = 4000

func (l *chaosLoad) fail(format string, args ...any) {
	l.failures.Add(1)
	l.note(format, args...)
}

func (l *chaosLoad) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < 20 {
		l.problems = append(l.problems, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// handed takes note of a new credential. Whoever has time checks it.
func (l *chaosLoad) handed(edge int, h *handedOut) {
	for i := range l.relays {
		if strings.Contains(strings.Join(h.uris, " "), l.relays[i].turnAddr) {
			l.last[edge][i].Store(time.Now().UnixNano())
		}
	}
	l.mu.Lock()
	l.good = newest(append(l.good, h))
	l.mu.Unlock()
	select {
	case l.sample <- h:
	default:
	}
}

func (l *chaosLoad) took(hs []*handedOut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revoked = newest(append(l.revoked, hs...))
}

func newest(hs []*handedOut) []*handedOut {
	if len(hs) > 2*keptForChecks {
		return append(hs[:0], hs[len(hs)-keptForChecks:]...)
	}
	return hs
}

// start lets n WICs register rate times a second together until ctx ends, and checks what
// they get. It returns what waits for their end.
func (l *chaosLoad) start(ctx context.Context, n, rate int) (wait func()) {
	var wg sync.WaitGroup
	period := time.Second * time.Duration(n) / time.Duration(rate)
	for i := range n {
		c := &chaosWIC{l: l, id: i, home: i % 2}
		wg.Go(func() { c.run(ctx, period, period*time.Duration(i)/time.Duration(n)) })
	}
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case h := <-l.sample:
					l.check(h)
				}
			}
		})
	}
	return wg.Wait
}

// check allocates with a credential at each URI that came with it.
func (l *chaosLoad) check(h *handedOut) {
	for _, uri := range h.uris {
		relay := l.relayOf(uri)
		life, up := relay.life.Load(), relay.up.Load()
		if !up {
			l.silent.Add(1)
			continue
		}
		err := allocateAt(uri, h)
		switch {
		case h.state.Load() != good: // it ended meanwhile
		case err == nil:
			l.checked.Add(1)
		case relay.life.Load() != life:
			l.silent.Add(1)
		default:
			l.checked.Add(1)
			l.lost.Add(1)
			l.note("%s at %s: %v", h.username, uri, err)
		}
	}
}

func (l *chaosLoad) relayOf(uri string) *chaosNode {
	for _, r := range l.relays {
		if strings.Contains(uri, r.turnAddr) {
			return r
		}
	}
	panic("chaos: " + uri + " is no relay's")
}

// verify tries n of the credentials that must be good, and n of the revoked ones at both
// relays, while the load goes on.
func (l *chaosLoad) verify(n int) {
	l.mu.Lock()
	hs, gone := picked(l.good, n, good), picked(l.revoked, n, revoked)
	l.mu.Unlock()
	parallel(hs, l.check)
	parallel(gone, func(h *handedOut) {
		for _, r := range l.relays {
			uri := "turn:" + r.turnAddr + "?transport=udp"
			l.gone.Add(1)
			if err := allocateAt(uri, h); err == nil {
				l.back.Add(1)
				l.note("%s at %s: revoked, and good again", h.username, uri)
			} else if !strings.Contains(err.Error(), "401") {
				l.lost.Add(1)
				l.note("%s at %s: %v, want 401", h.username, uri, err)
			}
		}
	})
}

// picked returns n at random of those in a state.
func picked(from []*handedOut, n int, state int32) (hs []*handedOut) {
	for _, i := range rand.Perm(len(from)) {
		if from[i].state.Load() == state {
			hs = append(hs, from[i])
		}
		if len(hs) == n {
			break
		}
	}
	return hs
}

func parallel(hs []*handedOut, do func(*handedOut)) {
	work := make(chan *handedOut)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for h := range work {
				do(h)
			}
		})
	}
	for _, h := range hs {
		work <- h
	}
	close(work)
	wg.Wait()
}

var turnURI = regexp.MustCompile(`^turn:(.+)\?transport=(udp|tcp)$`)

// allocateAt makes an allocation and ends it.
func allocateAt(uri string, h *handedOut) error {
	m := turnURI.FindStringSubmatch(uri)
	if m == nil {
		return fmt.Errorf("the URI is %q", uri)
	}
	var conn net.PacketConn
	if m[2] == "tcp" {
		c, err := net.DialTimeout("tcp4", m[1], answerWithin)
		if err != nil {
			return err
		}
		conn = turn.NewSTUNConn(c)
	} else {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		conn = c
	}
	defer func() { _ = conn.Close() }()
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	c, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: m[1], TURNServerAddr: m[1], Conn: conn, LoggerFactory: logs, Username: h.username, Password: h.password, Realm: "ims.test",
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Listen(); err != nil {
		return err
	}
	relayed, err := c.Allocate()
	if err != nil {
		return err
	}
	return relayed.Close()
}

// restart kills a process as kill -9 does, and starts it again after a while.
func (n *chaosNode) restart(t *testing.T, command string, down time.Duration) {
	t.Helper()
	n.up.Store(false)
	n.life.Add(1)
	n.proc.kill()
	sleep(t, down)
	n.start(t, command)
}

// freeze stops a process for a while, as a host does that has no time for it: connections
// stand, and nothing answers.
func (n *chaosNode) freeze(t *testing.T, d time.Duration) {
	t.Helper()
	n.up.Store(false)
	n.life.Add(1)
	n.proc.signal(t, syscall.SIGSTOP)
	sleep(t, d)
	n.proc.signal(t, syscall.SIGCONT)
	n.up.Store(true)
}

// sleep lets the load go on for a while.
func sleep(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
