package proxy

import (
	"errors"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// newParser returns sipgo's parser with typed headers only where transactions need them.
// Everything else stays the text that sipext.Scan checked and is forwarded octet by octet;
// sipgo would rewrite quoted parameters and drop those of Record-Route.
func newParser() *sip.Parser {
	typed := sip.HeadersParser{}
	for name, f := range sip.DefaultHeadersParser() {
		switch name {
		case "via", "v", "cseq", "call-id", "i", "max-forwards", "content-length", "l":
			typed[name] = f
		}
	}
	return sip.NewParser(sip.WithHeadersParsers(typed))
}

// fullParse gives sipgo's parser what sipext.Scan has written anew. The error is a
// *sipext.MalformedError.
func (p *Proxy) fullParse(scanned *sipext.Message) (sip.Message, error) {
	m, err := p.parser.ParseSIP(scanned.Bytes())
	if err != nil || m.Via() == nil || m.From() == nil || m.To() == nil || m.CallID() == nil || m.CSeq() == nil {
		return nil, malformedHeader(scanned)
	}
	bracketMapped(m)
	if req, ok := m.(*sip.Request); ok {
		// sipgo reads methods in upper case, but they are case-sensitive (RFC 3261 §7.1).
		req.Method = sip.RequestMethod(scanned.Method)
	}
	return m, nil
}

// malformedHeader says that a header field, which Scan has let pass, cannot be read.
func malformedHeader(m *sipext.Message) error {
	return &sipext.MalformedError{
		Fault: sipext.FaultAddress, Status: sip.StatusBadRequest, Phrase: "Malformed header",
		Answerable: m.Method != "" && m.Method != "ACK",
	}
}

// bracketMapped gives back to IPv4-mapped addresses in Via the brackets that sipgo takes off
// and forgets, since it holds them for IPv4 (RFC 5118 §4.9).
func bracketMapped(m sip.Message) {
	for _, h := range m.GetHeaders("Via") {
		if via, ok := h.(*sip.ViaHeader); ok && strings.HasPrefix(strings.ToLower(via.Host), "::ffff:") && strings.Contains(via.Host, ".") {
			via.Host = "[" + via.Host + "]"
		}
	}
}

// receive takes a SIP message from a WIC.
func (p *Proxy) receive(f *Flow, data []byte) {
	m, err := sipext.Scan(data, p.cfg.Limits.scan())
	if err == nil {
		err = p.dispatch(m, peer{flow: f, conn: f, transport: "WSS"})
	}
	var bad *sipext.MalformedError
	if errors.As(err, &bad) {
		if !f.withinRate() {
			p.metrics.limited.WithLabelValues(limitFlood).Inc()
			return
		}
		p.refuseMalformed(f, m, bad)
	}
}

// refuseMalformed answers a request that can be answered, drops a response, and ends a
// flow that does not speak SIP or whose messages cannot be told apart.
func (p *Proxy) refuseMalformed(f *Flow, m *sipext.Message, bad *sipext.MalformedError) {
	p.metrics.malformed.WithLabelValues(string(bad.Fault)).Inc()
	p.log.Debug("malformed message", "flow", f.id, "reason", string(bad.Fault), "err", bad)
	switch {
	case bad.Answerable:
		p.metrics.answered.WithLabelValues(strconv.Itoa(bad.Status)).Inc()
		_ = f.send(answerTo(m, bad.Status, bad.Phrase))
		if bad.Close {
			f.close(websocket.CloseProtocolError, bad.Phrase, closedMalformed)
		}
	case m.Status != 0 || m.Method == "ACK":
		p.metrics.dropped.WithLabelValues(dropMalformed).Inc()
	default:
		f.close(websocket.CloseProtocolError, "not a SIP message", closedMalformed)
	}
}

// answerTo builds a response of ours. It copies what RFC 3261 §8.2.6.2 asks for, as far as
// that is there.
func answerTo(req *sipext.Message, status int, phrase string, extra ...sip.Header) *sipext.Message {
	res := &sipext.Message{Status: status, Phrase: phrase, Fields: make([]sipext.Field, 0, 6+len(extra))}
	for _, f := range req.Fields {
		switch f.ID {
		case sipext.From, sipext.To, sipext.CallID, sipext.CSeq:
			if _, twice := res.Get(f.ID); twice {
				continue
			}
		case sipext.Via:
		default:
			continue
		}
		if f.ID == sipext.From || f.ID == sipext.To {
			// A party that does not parse is not passed on, not even back (RFC 4475 §3.1.2.15).
			a, err := sipext.ParseAddress(f.Value)
			if err != nil {
				continue
			}
			if _, tagged := a.Params.Get("tag"); !tagged && f.ID == sipext.To {
				f.Value += ";tag=" + newTag()
			}
		}
		res.Fields = append(res.Fields, f)
	}
	for _, h := range extra {
		res.Fields = append(res.Fields, sipext.Field{ID: sipext.NameOf(h.Name()), Name: h.Name(), Value: h.Value()})
	}
	return res
}
