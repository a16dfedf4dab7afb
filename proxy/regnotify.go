package proxy

import (
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// What became of a SUBSCRIBE of ours.
const (
	subscribeAccepted = "accepted"
	subscribeRefused  = "refused" // not asked again for this registration
	subscribeFailed   = "failed"  // asked again later
	subscribeLost     = "lost"    // the dialog was gone: asked anew
)

// What became of a NOTIFY to us.
const (
	notifyApplied   = "applied"
	notifyStale     = "stale" // an older version than one that was applied
	notifyMalformed = "malformed"
	notifyUnknown   = "unknown-subscription"
)

// statusBadEvent is 489 (RFC 6665 §8.3.2).
const statusBadEvent = 489

// forUs answers what the core sends to the edge as a subscriber, and reports whether it did:
// NOTIFY, and a SUBSCRIBE of our own that the core, having no reg event package, has sent
// on to the user.
func (e *regEvents) forUs(t *serverTx) bool {
	req, p := t.req, t.p
	if req.Method != sip.NOTIFY && req.Method != sip.SUBSCRIBE {
		return false
	}
	e.mu.Lock()
	s := e.byCallID[req.CallID().Value()]
	var ours bool
	if s != nil {
		ours = req.Method == sip.NOTIFY && toTag(req) == s.localTag || req.Method == sip.SUBSCRIBE && partyTag(req, "From") == s.localTag
	}
	e.mu.Unlock()
	switch {
	case ours && req.Method == sip.SUBSCRIBE:
		t.answer(sip.StatusLoopDetected, "Loop Detected")
	case ours:
		e.notified(t, s)
	case req.Method == sip.NOTIFY && req.Recipient.User == regEventUser && p.isOurHost(&req.Recipient):
		p.metrics.regNotifies.WithLabelValues(notifyUnknown).Inc()
		t.answer(sip.StatusCallTransactionDoesNotExists, "Subscription does not exist") // RFC 6665 §4.1.3
	default:
		return false
	}
	return true
}

// notified answers a NOTIFY of the subscription and does what it says (RFC 6665 §4.1.3).
func (e *regEvents) notified(t *serverTx, s *regSubscription) {
	req, p := t.req, t.p
	refuse := func(status int, phrase string, extra ...sip.Header) {
		p.metrics.regNotifies.WithLabelValues(notifyMalformed).Inc()
		p.log.Warn("NOTIFY refused", "impu", string(s.aor), "status", status, "reason", phrase)
		t.answer(status, phrase, extra...)
	}
	if !isRegEvent(req) {
		refuse(statusBadEvent, "Bad Event", sip.NewHeader("Allow-Events", "reg"))
		return
	}
	state, after, ok := subscriptionState(req)
	if !ok {
		refuse(sip.StatusBadRequest, "Malformed Subscription-State")
		return
	}
	var doc *reginfo
	if len(req.Body()) > 0 {
		kind, _, _ := strings.Cut(first(req, "Content-Type"), ";")
		if !strings.EqualFold(strings.Trim(kind, " \t"), reginfoType) {
			refuse(sip.StatusUnsupportedMediaType, "Unsupported Media Type", sip.NewHeader("Accept", reginfoType))
			return
		}
		d, err := parseReginfo(req.Body())
		if err != nil {
			refuse(sip.StatusBadRequest, "Malformed reginfo")
			return
		}
		doc = &d
	}
	result, status := e.take(s, req, doc, state, after)
	if result == notifyApplied && doc != nil {
		p.applyReginfo(e.registrations(s), doc)
	}
	p.metrics.regNotifies.WithLabelValues(result).Inc()
	switch status {
	case sip.StatusOK:
		t.answer(status, "OK")
	case sip.StatusCallTransactionDoesNotExists:
		t.answer(status, "Subscription does not exist")
	default:
		t.answer(status, "Out of order")
	}
}

// subscriptionState reads Subscription-State: the state, or where it is terminated the
// reason; and the seconds of expires or retry-after, or -1 (RFC 6665 §8.2.3).
func subscriptionState(req *sip.Request) (state string, after int, ok bool) {
	a, err := sipext.ParseAddress("x:" + first(req, "Subscription-State"))
	if err != nil {
		return "", -1, false
	}
	state = strings.ToLower(strings.TrimPrefix(a.URI, "x:"))
	name := "expires"
	if state == "terminated" {
		name = "retry-after"
		if reason, there := a.Params.Get("reason"); there {
			state += " " + strings.ToLower(reason)
		}
	}
	after = -1
	if v, there := a.Params.Get(name); there {
		after = seconds(v)
	}
	return state, after, true
}

// take fits a NOTIFY into the dialog and the order of documents, and plans what follows
// from the state of the subscription. It returns what became of it and the status.
func (e *regEvents) take(s *regSubscription, req *sip.Request, doc *reginfo, state string, after int) (string, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	tag := partyTag(req, "From")
	switch {
	case s.remoteTag != "" && tag != s.remoteTag, s.state == regRefused:
		return notifyUnknown, sip.StatusCallTransactionDoesNotExists
	case req.CSeq().SeqNo <= s.remoteSeq: // RFC 3261 §12.2.2
		return notifyStale, sip.StatusInternalServerError
	}
	// The NOTIFY may come before the 2xx, and makes the dialog then (RFC 6665 §4.4.1).
	s.remoteSeq = req.CSeq().SeqNo
	if s.remoteTag == "" {
		s.remoteTag, s.routes = tag, elements(req, "Record-Route")
	}
	if uri := contactURI(req); uri != "" {
		s.target = uri
	}
	result, missed := notifyApplied, false
	if doc != nil {
		// RFC 3680 §5.2: "If the value in the document is less than the local version, the
		// document is discarded"; one that was skipped is made up for by a refresh. Of an equal
		// one it says nothing: Kamailio's pua_reginfo writes 0 into each, all of full state, and
		// CSeq has put them in order.
		switch v := int64(doc.version); {
		case v < s.version, v == s.version && !doc.full:
			result = notifyStale
		default:
			missed = s.version >= 0 && v > s.version+1 && !doc.full
			s.version = v
		}
	}
	s.plannedLocked(e, state, after)
	if missed && s.state == regActive {
		s.laterLocked(e, 0)
	}
	return result, sip.StatusOK
}

// plannedLocked does what Subscription-State asks for.
func (s *regSubscription) plannedLocked(e *regEvents, state string, after int) {
	switch {
	case s.state == regLeaving:
		if strings.HasPrefix(state, "terminated") {
			e.forgetLocked(s)
		}
	case !strings.HasPrefix(state, "terminated"):
		if s.setLocked(regActive); after >= 0 {
			s.refreshLocked(e, time.Duration(after)*time.Second)
		}
	case state == "terminated rejected", state == "terminated noresource", state == "terminated invariant":
		// RFC 6665 §4.1.3: "clients SHOULD NOT attempt to re-subscribe".
		s.p.metrics.regSubscribes.WithLabelValues(subscribeRefused).Inc()
		delete(e.byCallID, s.callID)
		s.stopLocked()
		s.setLocked(regRefused)
	default: // deactivated, timeout: at once; probation, giveup: when told
		s.p.metrics.regSubscribes.WithLabelValues(subscribeLost).Inc()
		s.restartLocked(e)
		s.laterLocked(e, time.Duration(min(max(after, 0), 3600))*time.Second)
	}
}

// applyReginfo does to our registrations what the document says of them (TS 24.229 5.2.5.2,
// known to us by digests). What it does not mention stays: registrars differ in what they
// call full state.
func (p *Proxy) applyReginfo(regs []*Registration, doc *reginfo) {
	for _, el := range doc.registrations {
		for _, r := range regs {
			if !r.speaksFor(el.aor) {
				continue
			}
			event, c := regEvent(""), contactElement{}
			if el.terminated {
				event = eventUnregistered
			}
			for _, c = range el.contacts {
				if c.is(r) && (c.terminated || c.event == eventShortened) {
					event = c.event
					break
				}
			}
			switch {
			case event == "":
			case event == eventShortened && !el.terminated:
				r.shorten(c.expires)
			case el.aor != r.aor && el.aor != r.resource():
				r.disown(el.aor) // one identity of the set; the binding stays
			default:
				p.endedByNetwork(r, event)
			}
		}
	}
}

// shorten ends a registration sooner than the 200 said. What was issued for it is taken
// back then.
func (r *Registration) shorten(left time.Duration) {
	if r.endBy(r.p.cfg.Now().Add(left)) {
		r.p.metrics.networkEnds.WithLabelValues(string(eventShortened)).Inc()
		r.p.log.Info("registration shortened by the core", "flow", r.flow.id, "impu", string(r.aor), "expires", left)
	}
}

// endBy lets a registration expire at until, and reports whether that is sooner.
func (r *Registration) endBy(until time.Time) bool {
	r.mu.Lock()
	sooner := !r.ended && until.Before(r.ident.expires)
	if sooner {
		r.ident.expires = until
	}
	r.mu.Unlock()
	if sooner {
		r.armExpiry()
	}
	return sooner
}

// expectLeave notes that the user is about to end the registration, or to replace it: the
// core's NOTIFY of it may be faster than its 200 to the REGISTER.
func (r *Registration) expectLeave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = r.p.cfg.Now().Add(64 * sip.T1)
}

// isLeaving reports whether the event is what the user asked for. The 200 does the rest; if
// none comes, the registration ends when none can come any more.
func (r *Registration) isLeaving(event regEvent) bool {
	r.mu.Lock()
	until := r.leaving
	r.mu.Unlock()
	if event == eventRejected || event == eventProbation || !r.p.cfg.Now().Before(until) {
		return false
	}
	r.endBy(until)
	return true
}

// endedByNetwork drops a registration that the core has ended, releases its calls, takes back
// its credentials, and closes the socket where no other registration is on it.
func (p *Proxy) endedByNetwork(r *Registration, event regEvent) {
	if r.isLeaving(event) {
		return
	}
	r.stopTimer()
	r.flow.dropRegistration(r)
	if !p.regs.release(r) {
		return // it was replaced or ended meanwhile
	}
	p.metrics.networkEnds.WithLabelValues(string(event)).Inc()
	p.log.Info("registration ended by the core", "flow", r.flow.id, "impu", string(r.aor), "reason", string(event))
	p.events.leave(r)
	p.start(func() {
		key := r.identity().key()
		if p.regs.speaker(key) == nil { // not registered anew already
			p.revoke(causeNetwork, r.scope(false))
		}
		p.events.rest(r.flow) // for the core's NOTIFY to the WIC
		if p.regs.speaker(key) == nil {
			p.releaseDialogs(r.flow, &key, reasonDeregistered) // TS 24.229 5.2.5.2, 5.2.8
			p.events.rest(r.flow)                              // for the answer to BYE
		}
		if r.flow.registrationCount() > 0 {
			return // deactivated, and registered again
		}
		code := websocket.CloseNormalClosure
		if event == eventRejected {
			code = websocket.ClosePolicyViolation // to register again will not help
		}
		r.flow.close(code, "registration "+string(event)+" by the network", closedNetwork)
	})
}
