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

// parse checks raw strictly and gives sipgo's parser what the check has written anew. The
// error is a *sipext.MalformedError.
func parse(p *sip.Parser, raw []byte, l sipext.Limits) (sip.Message, *sipext.Message, error) {
	scanned, err := sipext.Scan(raw, l)
	if err != nil {
		return nil, scanned, err
	}
	m, err := p.ParseSIP(scanned.Bytes())
	if err != nil || m.Via() == nil || m.From() == nil || m.To() == nil || m.CallID() == nil || m.CSeq() == nil {
		return nil, scanned, &sipext.MalformedError{
			Fault: sipext.FaultAddress, Status: sip.StatusBadRequest, Phrase: "Malformed header",
			Answerable: scanned.Method != "" && scanned.Method != "ACK",
		}
	}
	bracketMapped(m)
	if req, ok := m.(*sip.Request); ok {
		// sipgo reads methods in upper case, but they are case-sensitive (RFC 3261 §7.1).
		req.Method = sip.RequestMethod(scanned.Method)
	}
	return m, scanned, nil
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
	m, raw, err := parse(p.parser, data, p.cfg.Limits.scan())
	var bad *sipext.MalformedError
	if errors.As(err, &bad) {
		if !f.withinRate() {
			p.metrics.limited.WithLabelValues(limitFlood).Inc()
			return
		}
		p.refuseMalformed(f, raw, bad)
		return
	}
	p.dispatch(m, peer{flow: f, conn: f, transport: "WSS"})
}

// refuseMalformed answers a request that can be answered, drops a response, and ends a
// flow that does not speak SIP or whose messages cannot be told apart.
func (p *Proxy) refuseMalformed(f *Flow, raw *sipext.Message, bad *sipext.MalformedError) {
	p.metrics.malformed.WithLabelValues(string(bad.Fault)).Inc()
	p.log.Debug("malformed message", "flow", f.id, "reason", string(bad.Fault), "err", bad)
	switch {
	case bad.Answerable:
		p.metrics.answered.WithLabelValues(strconv.Itoa(bad.Status)).Inc()
		_ = f.WriteMsg(malformedAnswer(raw, bad))
		if bad.Close {
			f.close(websocket.CloseProtocolError, bad.Phrase, closedMalformed)
		}
	case raw.Status != 0 || raw.Method == "ACK":
		p.metrics.dropped.WithLabelValues(dropMalformed).Inc()
	default:
		f.close(websocket.CloseProtocolError, "not a SIP message", closedMalformed)
	}
}

// malformedAnswer copies what RFC 3261 §8.2.6.2 asks for, as far as it was there.
func malformedAnswer(raw *sipext.Message, bad *sipext.MalformedError) *sip.Response {
	res := sip.NewResponse(bad.Status, bad.Phrase)
	seen := map[string]bool{}
	for _, fld := range raw.Fields {
		switch fld.Name {
		case "From", "To", "Call-ID", "CSeq":
			if seen[fld.Name] {
				continue
			}
			seen[fld.Name] = true
			// A party that does not parse is not passed on, not even back (RFC 4475 §3.1.2.15).
			if _, err := sipext.ParseAddress(fld.Value); err != nil && (fld.Name == "From" || fld.Name == "To") {
				continue
			}
		case "Via":
		default:
			continue
		}
		if fld.Name == "To" && !strings.Contains(strings.ToLower(fld.Value), "tag=") {
			fld.Value += ";tag=" + newTag()
		}
		res.AppendHeader(sip.NewHeader(fld.Name, fld.Value))
	}
	res.SetBody(nil)
	return res
}
