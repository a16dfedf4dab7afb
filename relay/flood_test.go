package relay

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// mutate changes a few bytes of a copy of b, and perhaps its length.
func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(4) {
		b[r.IntN(len(b))] = byte(r.Uint32())
	}
	switch r.IntN(4) {
	case 0:
		b = b[:r.IntN(len(b)+1)]
	case 1: // with the right length again, so that it is looked at
		binary.BigEndian.PutUint16(b[2:], uint16(max(len(b)-stunHeaderLen, 0)))
	}
	return b
}

// footprint is what a process holds.
type footprint struct {
	heap                    uint64
	goroutines, descriptors int
}

func measure(t *testing.T) footprint {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{m.HeapAlloc, runtime.NumGoroutine(), descriptors(t)}
}

// wantBack waits until the process holds no more than before, but for slack.
func (f footprint) wantBack(t *testing.T) {
	t.Helper()
	const slack = 4 << 20
	eventually(t, "memory, goroutines and descriptors are back where they were", func() bool {
		now := measure(t)
		return now.heap <= f.heap+slack && now.goroutines <= f.goroutines && now.descriptors <= f.descriptors
	})
}

// lineCounter is a log that counts its lines.
type lineCounter struct{ lines atomic.Int64 }

func (c *lineCounter) Write(b []byte) (int, error) {
	c.lines.Add(1)
	return len(b), nil
}

// floodWorld is a relay with one live allocation, whose messages are there to be mutated.
func floodWorld(t *testing.T) (*world, *rawClient, [][]byte, *lineCounter) {
	t.Helper()
	log := &lineCounter{}
	w := newTokenWorld(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.ChallengeRate = 1 << 20 // or most would be dropped before they are looked at
	})
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	return w, c, seeds(t, c), log
}

// wantSound checks what must hold after a flood that began at start.
func wantSound(t *testing.T, w *world, c *rawClient, log *lineCounter, start time.Time) {
	t.Helper()
	if n := len(w.Allocations()); n != 1 {
		t.Errorf("%d allocations, want the one from before", n)
	}
	if most := int64(logLines * (int(time.Since(start)/time.Second) + 2)); log.lines.Load() > most {
		t.Errorf("%d log lines, want %d at most", log.lines.Load(), most)
	}
	wantCode(t, w.client(t, UDP, c.cred).do(build(stun.MethodBinding, stun.ClassRequest)), 0)
	wantCode(t, w.client(t, TCP, c.cred).do(build(stun.MethodBinding, stun.ClassRequest)), 0)
}

// A hundred thousand mutated datagrams, from the allocation's own address and from another:
// no panic, nothing is left behind, and a fresh Binding is answered.
func mutatedDatagrams(t *testing.T) {
	t.Helper()
	start := time.Now()
	w, c, all, log := floodWorld(t)
	other := w.client(t, UDP, c.cred)
	before := measure(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100_000 {
		from := c
		if i%2 == 1 {
			from = other
		}
		if _, err := from.conn.Write(mutate(r, all[r.IntN(len(all))])); err != nil {
			t.Fatal(err)
		}
		if i%200 >= 198 { // no faster than they are read
			from.do(build(stun.MethodBinding, stun.ClassRequest))
		}
	}
	// It may have been mutated into a Refresh that fits, but for its signature.
	wantCode(t, c.do(c.sign(c.request(stun.MethodRefresh))), 0)
	before.wantBack(t)
	wantSound(t, w, c, log, start)
}

// Ten thousand streams of mutated messages, each with a whole one in front.
func mutatedStreams(t *testing.T) {
	t.Helper()
	start := time.Now()
	w, c, all, log := floodWorld(t)
	before := measure(t)
	const workers = 8
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			for range 10_000 / workers {
				if err := mutatedStream(w.tcp.String(), r, all); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all streams are gone", func() bool { return w.pending.Load() == 0 })
	before.wantBack(t)
	wantSound(t, w, c, log, start)
}

// mutatedStream sends a Binding and mutated messages in one, so that the relay has them all
// when it answers the first.
func mutatedStream(addr string, r *rand.Rand, all [][]byte) error {
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.(*net.TCPConn).SetLinger(0) // or ten thousand ports would wait for a minute
		_ = conn.Close()
	}()
	stream := build(stun.MethodBinding, stun.ClassRequest).Raw
	for range 2 {
		stream = append(stream, mutate(r, all[r.IntN(len(all))])...)
	}
	if _, err := conn.Write(stream); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err = conn.Read(make([]byte, stunHeaderLen))
	return err
}
