package main

import (
	"context"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tick = 250 * time.Microsecond
	// mostBehind is how much a sender that was held up makes up for: a longer burst would
	// measure the buffers of sockets.
	mostBehind = 2 * time.Millisecond
	// drain is how long the last echoes may take.
	drain = 150 * time.Millisecond
	// stampLen is the least that a packet carries: when it was sent.
	stampLen = 8
)

// outcome is what became of the packets of one measurement.
type outcome struct {
	sent, atPeers, back int
	took                time.Duration
	trips               []time.Duration // sorted
}

// relayed is how many packets the server has passed on.
func (o *outcome) relayed() int { return o.atPeers + o.back }

func (o *outcome) loss() float64 { return 1 - float64(o.back)/float64(max(o.sent, 1)) }

// load sends over flows and hears their echoes.
type load struct {
	flows   []*flow
	clients *poller
	echoes  *echoes
}

func newLoad(flows []*flow) (*load, error) {
	l := &load{flows: flows}
	var clients, peers []int
	for _, f := range flows {
		clients, peers = append(clients, f.client), append(peers, f.peer)
	}
	var err error
	if l.clients, err = newPoller(clients, true); err != nil {
		return nil, err
	}
	if l.echoes, err = startEchoes(peers); err != nil {
		l.clients.close()
		return nil, err
	}
	return l, nil
}

func (l *load) close() {
	l.echoes.stop()
	l.clients.close()
}

// run sends packets with size bytes of data, rate a second, for a time.
func (l *load) run(ctx context.Context, size, rate int, d time.Duration) (*outcome, error) {
	o := &outcome{trips: make([]time.Duration, 0, int(float64(rate)*(d+time.Second).Seconds()))}
	atPeers := l.echoes.count.Load()
	packet := make([]byte, 4+size)
	binary.BigEndian.PutUint16(packet, channel)
	binary.BigEndian.PutUint16(packet[2:], uint16(size))
	begin := time.Now()
	hear := func(b []byte, at time.Duration) {
		if len(b) < 4+stampLen {
			return
		}
		if sent := time.Duration(binary.BigEndian.Uint64(b[4:])); sent >= time.Duration(begin.UnixNano()) { // else of the last run
			o.back++
			o.trips = append(o.trips, at-sent)
		}
	}
	start, turn, step := begin, 0, 0
	for time.Since(begin) < d && ctx.Err() == nil {
		behind := int(time.Since(start).Seconds()*float64(rate)) - step
		if most := max(1, int(mostBehind.Seconds()*float64(rate))); behind > most {
			start, step, behind = time.Now(), 0, most
		}
		stamp(packet)
		for range behind {
			f := l.flows[turn%len(l.flows)]
			if _, err := unix.Write(f.client, packet); err == nil {
				o.sent++
			}
			turn++
			step++
		}
		if err := l.clients.poll(0, hear); err != nil {
			return nil, err
		}
		pause(tick)
	}
	o.took = time.Since(begin)
	for end := time.Now().Add(drain); time.Now().Before(end) && o.back < o.sent; pause(time.Millisecond) {
		if err := l.clients.poll(0, hear); err != nil {
			return nil, err
		}
	}
	o.atPeers = int(l.echoes.count.Load() - atPeers)
	slices.Sort(o.trips)
	return o, context.Cause(ctx)
}

func stamp(packet []byte) { binary.BigEndian.PutUint64(packet[4:], uint64(time.Now().UnixNano())) }

// pause sleeps without Go's timers, which would wake a second thread.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil)
}

// echoes answers at all peers, in a thread of its own.
type echoes struct {
	peers *poller
	count atomic.Int64
	quit  int // an eventfd
	done  chan struct{}
}

func startEchoes(peers []int) (e *echoes, err error) {
	e = &echoes{done: make(chan struct{})}
	if e.quit, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if e.peers, err = newPoller(append(slices.Clone(peers), e.quit), false); err != nil {
		_ = unix.Close(e.quit)
		return nil, err
	}
	e.peers.answer = true
	go e.run()
	return e, nil
}

func (e *echoes) run() {
	defer close(e.done)
	var quit bool
	for !quit {
		n := 0
		err := e.peers.poll(-1, func([]byte, time.Duration) { n++ })
		e.count.Add(int64(n))
		var b [8]byte
		_, eventErr := unix.Read(e.quit, b[:])
		quit = err != nil || eventErr == nil
	}
}

func (e *echoes) stop() {
	_, _ = unix.Write(e.quit, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-e.done
	e.peers.close()
	_ = unix.Close(e.quit)
}
