package proxy

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// The edge subscribes to the registration state of its users (RFC 3680; TS 24.229 5.2.3,
// known to us by digests), since the core may end or shorten a registration that the WIC
// knows nothing of:
//
//	first 200 to REGISTER   regEvents.join     one subscription for each address of record
//	SUBSCRIBE               regsubscribe.go    sent, refreshed, tried again
//	NOTIFY                  regnotify.go       200, then what the document says
//	last binding gone       regEvents.leave    Expires: 0
//
// A core that refuses the SUBSCRIBE is taken at its word for as long as the registration
// lives, which stands without.

// regEvents holds the subscriptions, of which there are no more than registrations.
type regEvents struct {
	mu       sync.Mutex // guards the maps and every field of every subscription
	byAOR    map[IMPU]*regSubscription
	byCallID map[string]*regSubscription
	// pause is between two SUBSCRIBEs of a subscription, at least, and how long a flow stays
	// as it is after the core has ended a registration: the WIC may have subscribed too, and
	// then the core's NOTIFY to it is on its way.
	pause time.Duration
}

func (e *regEvents) init() {
	e.pause = time.Second
	e.byAOR, e.byCallID = map[IMPU]*regSubscription{}, map[string]*regSubscription{}
}

// regMember is a binding that a subscription watches.
type regMember struct {
	key bindingKey
	aor IMPU
}

// regSubscription is one subscription and its dialog (RFC 6665 §4.4).
type regSubscription struct {
	p   *Proxy
	aor IMPU // the resource

	members map[regMember]struct{}
	state   regState
	timer   *time.Timer
	backoff time.Duration // before the next try after a failure
	minimum time.Duration // what a 423 asked for

	callID    string
	localTag  string
	remoteTag string // "" until the first NOTIFY or 2xx
	target    string // remote target; "" until then
	routes    []string
	localSeq  uint32
	remoteSeq uint32
	version   int64 // of the last document, or -1
}

// regState is what a subscription waits for.
type regState int

const (
	regTrying  regState = iota // an answer, or the next try
	regActive                  // the next NOTIFY or refresh
	regRefused                 // nothing: the core has no reg event package for us
	regLeaving                 // the last NOTIFY: no binding is left
)

// resource is the identity whose state is subscribed to: the default one, or where that is
// no SIP URI, the first that is.
func (r *Registration) resource() IMPU {
	ids := append([]IMPU{r.defaultIdentity()}, r.identities()...)
	for _, id := range ids {
		if strings.HasPrefix(string(id), "sip") {
			return id
		}
	}
	return r.aor
}

func (r *Registration) member() regMember { return regMember{r.identity().key(), r.aor} }

// join watches a registration; before is the one that it refreshes, or nil.
func (e *regEvents) join(r, before *Registration) {
	if !r.p.cfg.RegEvent {
		return
	}
	if before != nil && before.aor == r.aor && (before.resource() != r.resource() || before.member() != r.member()) {
		e.leave(before)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.byAOR[r.resource()]
	if s == nil {
		s = &regSubscription{p: r.p, aor: r.resource(), members: map[regMember]struct{}{}}
		e.byAOR[s.aor] = s
		s.restartLocked(e)
		r.p.start(func() { e.subscribe(s) })
	}
	s.members[r.member()] = struct{}{}
}

// leave forgets a registration that has ended. With the last one the subscription ends too.
func (e *regEvents) leave(r *Registration) {
	if !r.p.cfg.RegEvent {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.byAOR[r.resource()]
	if s == nil {
		return
	}
	delete(s.members, r.member())
	if len(s.members) > 0 {
		return
	}
	delete(e.byAOR, s.aor)
	s.stopLocked()
	active := s.state == regActive
	s.setLocked(regLeaving)
	if !active || !r.p.start(func() { e.subscribe(s) }) {
		e.forgetLocked(s)
		return
	}
	// RFC 6665 §4.1.2.3: the last NOTIFY is still answered.
	s.timer = time.AfterFunc(64*sip.T1, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.forgetLocked(s)
	})
}

// forgetLocked ends a subscription for good.
func (e *regEvents) forgetLocked(s *regSubscription) {
	s.stopLocked()
	s.setLocked(regLeaving)
	if e.byCallID[s.callID] == s {
		delete(e.byCallID, s.callID)
	}
	if e.byAOR[s.aor] == s {
		delete(e.byAOR, s.aor)
	}
}

// restartLocked begins a new dialog.
func (s *regSubscription) restartLocked(e *regEvents) {
	delete(e.byCallID, s.callID)
	s.setLocked(regTrying)
	s.callID, s.localTag = newTag()+newTag(), newTag()
	s.remoteTag, s.target, s.routes, s.remoteSeq, s.version = "", "", nil, 0, -1
	e.byCallID[s.callID] = s
}

// setLocked changes the state and keeps count of those that are active.
func (s *regSubscription) setLocked(state regState) {
	if s.state == state {
		return
	}
	if s.state == regActive {
		s.p.metrics.regSubscriptions.Dec()
	}
	if state == regActive {
		s.p.metrics.regSubscriptions.Inc()
	}
	s.state = state
}

func (s *regSubscription) stopLocked() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// laterLocked sends the next SUBSCRIBE after d.
func (s *regSubscription) laterLocked(e *regEvents, d time.Duration) {
	s.stopLocked()
	s.timer = time.AfterFunc(max(d, e.pause), func() { s.p.start(func() { e.subscribe(s) }) })
}

// stop ends all timers.
func (e *regEvents) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.byCallID {
		s.stopLocked()
	}
}

// registrations returns what the members of s are now.
func (e *regEvents) registrations(s *regSubscription) []*Registration {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*Registration
	for m := range s.members {
		if r := s.p.regs.speaker(m.key); r != nil && r.aor == m.aor {
			all = append(all, r)
		}
	}
	return all
}

// life is how long the longest of the members' registrations lasts.
func (e *regEvents) life(s *regSubscription) time.Duration {
	var longest time.Duration
	for _, r := range e.registrations(s) {
		longest = max(longest, r.identity().expires.Sub(s.p.cfg.Now()))
	}
	return longest
}

// isRegEvent reports whether Event names the reg package (RFC 3680 §4.1).
func isRegEvent(m sipext.HeaderFields) bool {
	name, _, _ := strings.Cut(first(m, "Event"), ";")
	return strings.EqualFold(strings.Trim(name, " \t"), "reg")
}

// reversed returns Record-Route as a UAC's route set (RFC 3261 §12.1.2).
func reversed(routes []string) []string {
	routes = slices.Clone(routes)
	slices.Reverse(routes)
	return routes
}

// rest waits for the pause, or for the end of the flow or the edge.
func (e *regEvents) rest(f *Flow) {
	e.mu.Lock()
	pause := e.pause
	e.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.done:
	case <-f.p.ctx.Done():
	}
}
