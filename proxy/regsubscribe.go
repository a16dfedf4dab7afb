package proxy

import (
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	// subscribeMargin is by how much a subscription outlasts the registration, and how long
	// before its end it is refreshed: as a UA does with a registration.
	subscribeMargin = 600 * time.Second
	// firstResubscribe doubles up to lastResubscribe while the core does not answer.
	firstResubscribe = 30 * time.Second
	lastResubscribe  = 15 * time.Minute
	// regEventUser is the user part of the URI at which the core's NOTIFY finds us.
	regEventUser = "reg-event"
)

// edgeURI is who we are on the core's side.
func (p *Proxy) edgeURI() string { return p.coreURI("", p.coreTransport()) }

// subscribe sends one SUBSCRIBE, the first or a refresh, and acts on its answer.
func (e *regEvents) subscribe(s *regSubscription) {
	expires := e.life(s) + subscribeMargin
	e.mu.Lock()
	if s.state == regRefused || s.state == regLeaving && s.target == "" {
		e.mu.Unlock()
		return
	}
	if s.state == regLeaving {
		expires = 0
	} else {
		expires = max(expires, s.minimum)
	}
	req, err := s.requestLocked(expires)
	refresh, callID := s.target != "", s.callID
	e.mu.Unlock()
	var res *sip.Response
	if err == nil {
		res, err = s.p.ask(s.p.ctx, req, s.p.core.hops, 0)
	}
	if s.p.ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.callID != callID || s.state == regLeaving || s.state == regRefused {
		return // a NOTIFY, or the end of the registration, was faster
	}
	s.answeredLocked(e, refresh, expires, res, err)
}

// requestLocked builds a SUBSCRIBE (RFC 3680 §4, RFC 6665 §4.1.2).
func (s *regSubscription) requestLocked(expires time.Duration) (*sip.Request, error) {
	p := s.p
	uri, to := string(s.aor), "<"+string(s.aor)+">"
	if s.target != "" {
		uri = s.target
	}
	if s.remoteTag != "" {
		to += ";tag=" + s.remoteTag
	}
	var recipient sip.Uri
	if err := sip.ParseUri(uri, &recipient); err != nil {
		return nil, err
	}
	s.localSeq++
	req := sip.NewRequest(sip.SUBSCRIBE, recipient)
	hops := sip.MaxForwardsHeader(70)
	callID := sip.CallIDHeader(s.callID)
	for _, h := range []sip.Header{
		&hops, sip.NewHeader("From", "<"+p.edgeURI()+">;tag="+s.localTag), sip.NewHeader("To", to), &callID,
		&sip.CSeqHeader{SeqNo: s.localSeq, MethodName: sip.SUBSCRIBE},
		sip.NewHeader("Contact", "<"+p.coreURI(regEventUser, p.coreTransport())+">"),
		sip.NewHeader("Event", "reg"),
		sip.NewHeader("Accept", reginfoType),
		sip.NewHeader("Expires", strconv.Itoa(int(expires/time.Second))),
		sip.NewHeader("P-Asserted-Identity", "<"+p.edgeURI()+">"),
		sip.NewHeader("P-Charging-Vector", p.chargingVector()),
	} {
		req.AppendHeader(h)
	}
	for _, r := range s.routes {
		req.AppendHeader(sip.NewHeader("Route", r))
	}
	req.SetBody(nil)
	return req, nil
}

// answeredLocked acts on the answer, or on its absence (RFC 6665 §4.1.2).
func (s *regSubscription) answeredLocked(e *regEvents, refresh bool, asked time.Duration, res *sip.Response, err error) {
	p, status := s.p, 0
	if err == nil {
		status = res.StatusCode
	}
	switch {
	case status >= 200 && status < 300:
		s.acceptedLocked(e, asked, res)
	case status == sip.StatusIntervalToBrief && s.minimum == 0:
		s.minimum = max(time.Duration(seconds(first(res, "Min-Expires")))*time.Second, asked)
		s.laterLocked(e, 0)
	case refresh && (status == sip.StatusCallTransactionDoesNotExists || status == sip.StatusRequestTimeout || status == 0):
		// RFC 6665 §4.1.2.2, RFC 5057 §5: the dialog is gone, at the other side at least.
		p.metrics.regSubscribes.WithLabelValues(subscribeLost).Inc()
		s.restartLocked(e)
		s.laterLocked(e, 0)
	case isTransient(status):
		p.metrics.regSubscribes.WithLabelValues(subscribeFailed).Inc()
		s.failedLocked(e, res)
	default:
		p.metrics.regSubscribes.WithLabelValues(subscribeRefused).Inc()
		p.log.Info("the core has no reg event for this registration, which stands", "impu", string(s.aor), "status", status)
		delete(e.byCallID, s.callID)
		s.stopLocked()
		s.setLocked(regRefused)
	}
}

// isTransient reports whether asking again later may help. 0: nobody answered.
func isTransient(status int) bool {
	switch status {
	case 0, sip.StatusRequestTimeout, sip.StatusIntervalToBrief, statusFlowFailed, sip.StatusRequestPending:
		return true
	}
	return status >= 500 && status < 600 && status != sip.StatusNotImplemented && status != sip.StatusVersionNotSupported
}

// acceptedLocked takes the dialog and its length from a 2xx.
func (s *regSubscription) acceptedLocked(e *regEvents, asked time.Duration, res *sip.Response) {
	tag := partyTag(res, "To")
	if s.remoteTag != "" && tag != s.remoteTag {
		return // of another fork: one is enough (RFC 6665 §4.4.1)
	}
	s.remoteTag = tag
	if uri := contactURI(res); uri != "" {
		s.target = uri
	}
	if s.routes == nil {
		s.routes = reversed(elements(res, "Record-Route"))
	}
	granted := asked
	if n := seconds(first(res, "Expires")); n >= 0 {
		granted = min(granted, time.Duration(n)*time.Second)
	}
	s.p.metrics.regSubscribes.WithLabelValues(subscribeAccepted).Inc()
	s.backoff = 0
	s.setLocked(regActive)
	s.refreshLocked(e, granted)
}

// refreshLocked plans the next SUBSCRIBE: 600 s before the end, or at half time.
func (s *regSubscription) refreshLocked(e *regEvents, granted time.Duration) {
	if granted > 2*subscribeMargin {
		s.laterLocked(e, granted-subscribeMargin)
	} else {
		s.laterLocked(e, granted/2)
	}
}

// failedLocked tries again later: when Retry-After says, or after twice the last pause.
func (s *regSubscription) failedLocked(e *regEvents, res *sip.Response) {
	s.backoff = min(max(2*s.backoff, firstResubscribe), lastResubscribe)
	wait := s.backoff
	if res != nil {
		after, _, _ := strings.Cut(first(res, "Retry-After"), ";")
		after, _, _ = strings.Cut(after, "(")
		if n := seconds(after); n >= 0 {
			wait = min(max(wait, time.Duration(n)*time.Second), time.Hour)
		}
	}
	s.laterLocked(e, wait)
}
