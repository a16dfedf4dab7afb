package proxy

import (
	"hash/maphash"
	"strconv"
	"strings"

	"epcscf/sipext"
)

// loopMark sums up all that a request is routed by, as it came (RFC 5393 §4.2.2). It ends
// the branch of our Via: a request that comes again with the same mark would go the same
// way again, one with another mark is a spiral, such as the second leg of a call between
// two WICs of this edge.
func (p *Proxy) loopMark(m *sipext.Message) string {
	var h maphash.Hash
	h.SetSeed(p.seed)
	write := func(s string) {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0)
	}
	write(m.URI)
	write(tagOf(m.First(sipext.From)))
	write(tagOf(m.First(sipext.To)))
	for i := range m.Fields {
		switch f := &m.Fields[i]; f.ID {
		case sipext.CallID, sipext.CSeq, sipext.Route, sipext.ProxyRequire, sipext.ProxyAuthorization:
			write(f.Value)
		}
	}
	return string(strconv.AppendUint(append(make([]byte, 0, 16), '.'), h.Sum64(), 36))
}

// loops reports whether a request with that mark has been here (RFC 3261 §16.3 step 4).
func (p *Proxy) loops(m *sipext.Message, mark string) bool {
	for via := range m.Rows(sipext.Via) {
		if !strings.HasSuffix(viaParam(via, "branch"), mark) {
			continue
		}
		if by := viaSentBy(via); strings.EqualFold(by, p.plain.text) || strings.EqualFold(by, p.secure.text) {
			return true
		}
	}
	return false
}

// viaSentBy returns host and port of a Via that sipext.Scan has written: neither white space
// nor quotes stand in it but one space.
func viaSentBy(via string) string {
	_, via, _ = strings.Cut(via, " ")
	via, _, _ = strings.Cut(via, ";")
	return via
}

// viaParam returns a parameter of such a Via, or "".
func viaParam(via, name string) string {
	_, params, _ := strings.Cut(via, ";")
	for params != "" {
		var param string
		param, params, _ = strings.Cut(params, ";")
		if n, v, _ := strings.Cut(param, "="); len(n) == len(name) && strings.EqualFold(n, name) {
			return v
		}
	}
	return ""
}
