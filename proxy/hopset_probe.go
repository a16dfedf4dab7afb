package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"
)

// watch asks the hops by OPTIONS (RFC 3261 §11) until ctx ends: those that have been
// silent for a time, and those that are down.
func (s *hopSet) watch(ctx context.Context) {
	s.order(0) // DNS is asked before the first WIC comes
	if s.cfg.Probe < 0 {
		return
	}
	tick := time.NewTicker(max(min(s.cfg.Probe, s.cfg.Aside)/4, time.Millisecond))
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-s.p.ctx.Done():
			return
		case h := <-s.kicks:
			s.probe(h)
		case now := <-tick.C:
			for _, h := range s.due(now, began) {
				s.probe(h)
			}
		}
	}
}

// due lists the hops to ask now; began is when the first could have been heard.
func (s *hopSet) due(now, began time.Time) (due []*hop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hops {
		h.mu.Lock()
		next := latest(began, h.asked, time.Unix(0, h.heard.Load())).Add(s.cfg.Probe)
		if h.isDown.Load() {
			next = latest(h.until, h.asked.Add(s.cfg.Aside))
		}
		if now.After(next) {
			due = append(due, h)
		}
		h.mu.Unlock()
	}
	return due
}

func latest(t time.Time, more ...time.Time) time.Time {
	for _, m := range more {
		if m.After(t) {
			t = m
		}
	}
	return t
}

// probe asks one hop in a goroutine of its own, unless it is being asked.
func (s *hopSet) probe(h *hop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.probing {
		return
	}
	h.asked = time.Now()
	h.probing = s.p.start(func() {
		s.ask(h)
		h.mu.Lock()
		h.probing = false
		h.mu.Unlock()
	})
}

var errNoAnswer = errors.New("no answer to OPTIONS")

// ask sends an OPTIONS and judges the hop by what comes.
func (s *hopSet) ask(h *hop) {
	began := time.Now()
	res, err := s.options(h)
	heard := h.heard.Load() > began.UnixNano()
	switch {
	case s.p.ctx.Err() != nil:
	case err == nil && res.StatusCode == sip.StatusServiceUnavailable:
		h.probed.Store(true)
		h.aside(retryAfterOf(res, s.cfg.Aside), hopRefused, nil)
	case err == nil:
		h.probed.Store(true)
	case heard:
	case errors.Is(err, errNoAnswer):
		if h.probed.Load() {
			h.aside(s.cfg.Aside, hopSilent, err)
		}
	default:
		h.aside(s.cfg.Aside, hopUnreachable, err)
	}
}

// maxRetryAfter bounds what one answer can do to a hop.
const maxRetryAfter = time.Minute

func retryAfterOf(res *sip.Response, otherwise time.Duration) time.Duration {
	if n := seconds(first(res, "Retry-After")); n > 0 {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	return otherwise
}

// options asks a hop what it can do, and waits for any answer.
func (s *hopSet) options(h *hop) (*sip.Response, error) {
	to, err := s.p.core.open(h)
	if err != nil {
		return nil, err
	}
	c, err := s.p.startClientTx(s.optionsRequest(h, to), to, nil, nil)
	if err != nil {
		return nil, err
	}
	defer c.Terminate()
	silence := time.NewTimer(s.cfg.Failover)
	defer silence.Stop()
	for {
		select {
		case res := <-c.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
		case <-silence.C:
			return nil, errNoAnswer
		case <-c.Done():
			return nil, c.Err()
		case <-s.p.ctx.Done():
			return nil, errClosed
		}
	}
}

// optionsRequest is addressed to the hop itself, and Max-Forwards keeps it there.
func (s *hopSet) optionsRequest(h *hop, to peer) *sip.Request {
	uri := sip.Uri{Scheme: "sip", Host: h.addr.Addr().String(), Port: int(h.addr.Port()), UriParams: sip.NewParams()}
	if h.addr.Addr().Is6() {
		uri.Host = "[" + uri.Host + "]"
	}
	if h.transport != "udp" {
		uri.UriParams.Add("transport", h.transport)
	}
	us := "<" + s.p.coreURI("", h.transport) + ">"
	req := sip.NewRequest(sip.OPTIONS, uri)
	req.AppendHeader(sip.NewHeader("From", us+";tag="+newTag()))
	req.AppendHeader(sip.NewHeader("To", "<"+uri.String()+">"))
	id := sip.CallIDHeader(newTag())
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.OPTIONS})
	hops := sip.MaxForwardsHeader(0)
	req.AppendHeader(&hops)
	req.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	req.SetBody(nil)
	s.p.pushVia(req, to, "")
	return req
}
