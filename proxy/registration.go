package proxy

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"epcscf/turncred"
)

// Registration is what the edge keeps of one binding that the core has accepted over a
// flow (TS 24.229 5.2.2.1).
type Registration struct {
	p    *Proxy
	flow *Flow
	aor  IMPU // To of the REGISTER

	contact      string
	instance     string
	regID        string
	serviceRoute []string // in order, as written
	charging     []string // P-Charging-Function-Addresses, as written

	mu         sync.Mutex // guards what follows
	associated []IMPU     // the implicit set; the first is the default
	grant      uint64     // grantSum of the 200 that all this is of; 0: something has changed since
	ident      bindingIdentity
	timer      *time.Timer // expiry, or the grace of a lost flow
	ended      bool
	issued     turncred.IssueTime // of the last credential that we issued for the binding; 0: none
	// leaving is until when a REGISTER of the user's own is expected to end it.
	leaving time.Time
}

// bindingIdentity is what credentials of a binding depend on.
type bindingIdentity struct {
	aor        IMPU
	impi       turncred.IMPI
	binding    turncred.Binding
	authorized bool // the core accepted an Authorization for it
	expires    time.Time
	token      *heldToken // that it stands on, and which it does not outlive; nil: none
}

func (r *Registration) identity() bindingIdentity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ident
}

func (i bindingIdentity) key() bindingKey { return bindingKey{i.impi, i.binding} }

// speaksFor reports whether the registration made id one of the user's identities.
func (r *Registration) speaksFor(id IMPU) bool {
	return r.aor == id || slices.Contains(r.identities(), id)
}

// identities returns the implicit set, which nobody changes in place.
func (r *Registration) identities() []IMPU {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.associated
}

// disown takes an identity out of the implicit set.
func (r *Registration) disown(id IMPU) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grant = 0
	r.associated = slices.DeleteFunc(slices.Clone(r.associated), func(o IMPU) bool { return o == id })
}

// defaultIdentity is the first of the implicit set, or without one what was registered.
func (r *Registration) defaultIdentity() IMPU {
	if ids := r.identities(); len(ids) > 0 {
		return ids[0]
	}
	return r.aor
}

func (r *Registration) scope(keepLive bool) turncred.Scope {
	id := r.identity()
	return turncred.Scope{IMPI: id.impi, Binding: id.binding, KeepLive: keepLive}
}

// revokeIssued takes back what this edge has issued for a binding that fell silent here. The
// device may have moved to another edge, and what that one issued since is not ours to take.
func (r *Registration) revokeIssued(cause string, keepLive bool) {
	s := r.scope(keepLive)
	if s.IssuedUntil = r.lastIssued(); s.IssuedUntil != 0 {
		r.p.revoke(cause, s)
	}
}

// bindingKey finds a device of a user on whatever flow it is.
type bindingKey struct {
	impi    turncred.IMPI
	binding turncred.Binding
}

// bindingTable knows which registration speaks for a binding now. A client that reconnects
// registers the same instance on a new flow, and what then happens to the old flow is no
// reason to take its credentials.
type bindingTable struct {
	mu      sync.Mutex // guards current and stopped
	current map[bindingKey]*Registration
	stopped bool
}

func (t *bindingTable) init() { t.current = map[bindingKey]*Registration{} }

// own makes r the one that speaks for its binding and returns the one that did before.
func (t *bindingTable) own(r *Registration) *Registration {
	k := r.identity().key()
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.current[k]
	if before != nil {
		r.issuedAt(before.lastIssued())
	}
	t.current[k] = r
	return before
}

// issued takes note that r was given a credential. Another registration may speak for the
// binding by now, and then it ends with that one.
func (t *bindingTable) issued(r *Registration, at turncred.IssueTime) {
	r.issuedAt(at)
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.current[r.identity().key()]; now != nil {
		now.issuedAt(at)
	}
}

func (r *Registration) issuedAt(at turncred.IssueTime) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.issued = max(r.issued, at)
}

func (r *Registration) lastIssued() turncred.IssueTime {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.issued
}

// speaker returns the registration that speaks for a binding now, or nil.
func (t *bindingTable) speaker(k bindingKey) *Registration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current[k]
}

// release removes r and reports whether it spoke for its binding.
func (t *bindingTable) release(r *Registration) bool {
	if !t.remove(r) {
		return false
	}
	r.p.tokenLeft(r)
	return true
}

func (t *bindingTable) remove(r *Registration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := r.identity().key()
	if t.stopped || t.current[k] != r {
		return false
	}
	delete(t.current, k)
	return true
}

// stop ends all timers: at shutdown nothing is revoked, the users will be elsewhere.
func (t *bindingTable) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	for _, r := range t.current {
		r.stopTimer()
	}
}

func (r *Registration) stopTimer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// refresh takes the expiry of a 200 that says nothing else that is new. It reports false
// where it does.
func (r *Registration) refresh(id bindingIdentity, grant uint64) bool {
	r.mu.Lock()
	same := r.ident
	same.expires = id.expires
	if r.ended || r.grant == 0 || r.grant != grant || same != id {
		r.mu.Unlock()
		return false
	}
	sooner := id.expires.Before(r.ident.expires)
	r.ident, r.leaving = id, time.Time{}
	r.mu.Unlock()
	if sooner { // else expired will see that there is time left
		r.armExpiry()
	}
	return true
}

// arm sets the timer to run f, in place of what it was to do.
func (r *Registration) arm(d time.Duration, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
	if !r.ended {
		r.timer = time.AfterFunc(d, func() { r.p.start(f) })
	}
}

// expirySlack lets a refresh that is on its way come before the end.
const expirySlack = time.Second

// armExpiry lets the binding expire when the core's grant ends.
func (r *Registration) armExpiry() {
	r.arm(r.identity().expires.Sub(r.p.cfg.Now())+expirySlack, r.expired)
}

// expired ends a binding that was not refreshed.
func (r *Registration) expired() {
	if left := r.identity().expires.Sub(r.p.cfg.Now()); left > 0 {
		r.armExpiry() // refreshed while the timer fired
		return
	}
	r.flow.dropRegistration(r)
	if r.p.regs.release(r) {
		r.p.events.leave(r)
		r.p.log.Info("registration expired", "flow", r.flow.id, "impu", string(r.aor))
		r.p.endWithToken(r)
		r.revokeIssued(causeExpired, false)
	}
}

// flowLost keeps a lost flow's credentials for FlowGrace, so that the client may come
// back, or until the binding would have expired.
func (p *Proxy) flowLost(f *Flow) {
	f.mu.Lock()
	regs := f.regs
	f.regs = nil
	f.mu.Unlock()
	for _, r := range regs {
		p.metrics.registrations.Dec()
		wait := min(p.cfg.FlowGrace, r.identity().expires.Sub(p.cfg.Now()))
		r.arm(wait, r.graceOver)
	}
}

// graceOver ends what a lost flow left, unless the binding lives on another flow. Live
// allocations stay: the user may be talking on through another edge.
func (r *Registration) graceOver() {
	if r.p.regs.release(r) {
		r.p.events.leave(r)
		r.p.log.Info("flow grace over", "flow", r.flow.id, "impu", string(r.aor))
		r.revokeIssued(causeFlowLost, true)
	}
}

// registrationFor returns the flow's registration of an identity, or its first one: From
// does not decide who asks (TS 24.229 5.2.6.3.1). nil: not registered on this flow.
func (f *Flow) registrationFor(id IMPU) *Registration {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.regs {
		if r.speaksFor(id) {
			return r
		}
	}
	if len(f.regs) > 0 {
		return f.regs[0]
	}
	return nil
}

// findRegistration returns the flow's registration of a contact.
func (f *Flow) findRegistration(id IMPU, c contact) *Registration {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.regs {
		if r.aor == id && c.matches(r.contact, r.instance, r.regID) {
			return r
		}
	}
	return nil
}

// keepRegistration puts r in place of old, which may be nil. It reports false where the
// flow has ended meanwhile.
func (f *Flow) keepRegistration(r, old *Registration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	if i := slices.Index(f.regs, old); i >= 0 {
		f.regs[i] = r
	} else {
		f.regs = append(f.regs, r)
		f.p.metrics.registrations.Inc()
	}
	return true
}

func (f *Flow) dropRegistration(r *Registration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.regs, r); i >= 0 {
		f.regs = slices.Delete(f.regs, i, i+1)
		f.p.metrics.registrations.Dec()
	}
}

func (f *Flow) registrationsOf(id IMPU) []*Registration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*Registration
	for _, r := range f.regs {
		if r.aor == id {
			all = append(all, r)
		}
	}
	return all
}

func (f *Flow) registrationCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.regs)
}

// addPending counts unanswered requests; it reports false where max is reached.
func (f *Flow) addPending(n, max int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 0 && f.pending >= max {
		return false
	}
	f.pending += n
	return true
}

// replayed is the last answer with a credential. RFC 3261 §17.2.2 sets Timer J to zero on
// a reliable transport, so its transaction is over at once; a client that asks again with the
// same branch must get the same answer and no second credential.
type replayed struct {
	key   txKey
	data  outgoing
	until time.Time
}

// replayFor is how long an answer is kept: longer than any client's retry, short enough
// to cost nothing on an idle flow.
const replayFor = 5 * time.Second

func (f *Flow) remember(key txKey, data outgoing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		time.AfterFunc(replayFor, f.forget)
	}
	f.last = &replayed{key, data, time.Now().Add(replayFor)}
}

// forget drops the remembered answer, or comes again where that is a younger one.
func (f *Flow) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if left := time.Until(f.last.until); left > 0 && !f.closed {
		time.AfterFunc(left, f.forget)
		return
	}
	f.last = nil
}

// repeat sends the remembered answer again, if it was to this request.
func (f *Flow) repeat(key txKey) bool {
	f.mu.Lock()
	r := f.last
	f.mu.Unlock()
	if r == nil || r.key != key {
		return false
	}
	_ = f.enqueue(r.data)
	return true
}

func (f *Flow) info() FlowInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := FlowInfo{ID: strconv.FormatUint(f.id, 10), Remote: f.remote, Origin: f.origin, Since: f.since}
	for _, r := range f.regs {
		id := r.identity()
		i.Registrations = append(i.Registrations, RegistrationInfo{
			IMPU: r.aor, IMPI: id.impi, Contact: r.contact, Instance: strings.Trim(r.instance, "<>"),
			RegID: r.regID, Associated: slices.Clone(r.identities()), Expires: id.expires,
		})
		if t := id.token; t != nil {
			last := &i.Registrations[len(i.Registrations)-1]
			last.TokenID, last.WWSF, last.WAF = t.id, t.wwsf, t.waf
		}
	}
	return i
}
