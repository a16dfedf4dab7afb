package push

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// EventType says what an Event is about.
type EventType string

// The types of events. Gap says that events were lost between the cursor that was asked
// for and the next event; Alive that there is nothing to say.
const (
	EventAllocated EventType = "allocated"
	EventEnded     EventType = "ended"
	EventBytes     EventType = "bytes"
	// EventLeft is an edge's word to a WAF: nothing stands on the grant any more that tid names.
	EventLeft  EventType = "left"
	EventGap   EventType = "gap"
	EventAlive EventType = "alive"
)

// Event is what a relay tells the edges of its allocations, a line of NDJSON each.
type Event struct {
	Cursor  string    `json:"cursor"` // where to go on after this event
	Time    time.Time `json:"time"`
	Type    EventType `json:"type"`
	Tid     string    `json:"tid,omitempty"`
	Subject string    `json:"subject,omitempty"` // 16 hexadecimal digits
	Relayed string    `json:"relayed,omitempty"` // the allocation's address
	Reason  string    `json:"reason,omitempty"`  // why it ended
	ToPeers uint64    `json:"to_peers,omitempty"`
	// FromPeers and ToPeers are bytes since the allocation was made.
	FromPeers uint64 `json:"from_peers,omitempty"`
}

// EventLog keeps a relay's latest events for those who follow. Safe for concurrent use.
type EventLog struct {
	life string // of this log, in each cursor
	now  func() time.Time

	mu    sync.Mutex // guards the fields below
	ring  []Event    // the event n stands at n modulo its length
	next  uint64     // number of the next event
	added chan struct{}
}

// eventsKept bounds what a reader that is away can catch up with: about 10 MB.
const eventsKept = 1 << 16

// NewEventLog returns an empty log; now may be nil for time.Now.
func NewEventLog(now func() time.Time) (*EventLog, error) {
	var life [4]byte
	if _, err := rand.Read(life[:]); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	return &EventLog{life: hex.EncodeToString(life[:]), now: now, added: make(chan struct{})}, nil
}

// Add appends an event, whose Cursor it sets, and whose Time where it is zero.
func (l *EventLog) Add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	e.Time = e.Time.UTC()
	e.Cursor = l.cursor(l.next)
	if len(l.ring) < eventsKept {
		l.ring = append(l.ring, e)
	} else {
		l.ring[l.next%eventsKept] = e
	}
	l.next++
	close(l.added)
	l.added = make(chan struct{})
}

func (l *EventLog) cursor(n uint64) string { return l.life + "-" + strconv.FormatUint(n, 10) }

// position returns the number of the event after a cursor. "" is now; a cursor of another
// life, or that is no cursor, is the oldest event that is left, behind a gap.
func (l *EventLog) position(cursor string) (n uint64, gap bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cursor == "" {
		return l.next, false
	}
	oldest := l.next - uint64(len(l.ring))
	life, number, _ := strings.Cut(cursor, "-")
	n, err := strconv.ParseUint(number, 10, 63)
	if life != l.life || err != nil || n >= l.next {
		return oldest, true
	}
	return max(n+1, oldest), n+1 < oldest
}

// wait returns the events from number n on, at most 256, and the number after them. It
// waits for one until ctx ends; gap says that some were overwritten meanwhile.
func (l *EventLog) wait(ctx context.Context, n uint64) (es []Event, next uint64, gap bool) {
	for {
		l.mu.Lock()
		added := l.added
		oldest := l.next - uint64(len(l.ring))
		gap, n = n < oldest, max(n, oldest)
		for ; n < l.next && len(es) < 256; n++ {
			es = append(es, l.ring[n%eventsKept])
		}
		l.mu.Unlock()
		if len(es) > 0 {
			return es, n, gap
		}
		select {
		case <-added:
		case <-ctx.Done():
			return nil, n, gap
		}
	}
}

// alive is an event that keeps a silent stream open, before the event n.
func (l *EventLog) alive(n uint64, t EventType) Event {
	e := Event{Time: l.now().UTC(), Type: t, Cursor: l.life + "-0"}
	if n > 0 {
		e.Cursor = l.cursor(n - 1)
	}
	return e
}
