package proxy

import (
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// loopMark sums up all that a request is routed by, as it came (RFC 5393 §4.2.2). It ends
// the branch of our Via: a request that comes again with the same mark would go the same
// way again, one with another mark is a spiral, such as the second leg of a call between
// two WICs of this edge.
func (p *Proxy) loopMark(req *sip.Request) string {
	var h maphash.Hash
	h.SetSeed(p.loopSeed)
	write := func(s string) {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0)
	}
	write(req.Recipient.String())
	write(partyTag(req, "From"))
	write(toTag(req))
	write(req.CallID().Value())
	write(req.CSeq().Value())
	for _, name := range []string{"Route", "Proxy-Require", "Proxy-Authorization"} {
		for _, r := range sipext.Rows(req, name) {
			write(r.Value())
		}
	}
	return "." + strconv.FormatUint(h.Sum64(), 36)
}

// loops reports whether a request with that mark has been here (RFC 3261 §16.3 step 4).
func (p *Proxy) loops(req *sip.Request, mark string) bool {
	host, port := p.sentBy("")
	for _, row := range sipext.Rows(req, "Via") {
		via, ok := row.(*sip.ViaHeader)
		if !ok || via.Port != port && via.Port != int(p.cfg.Core.TLSPort) || !strings.EqualFold(strings.Trim(via.Host, "[]"), strings.Trim(host, "[]")) {
			continue
		}
		if branch, _ := via.Params.Get("branch"); strings.HasSuffix(branch, mark) {
			return true
		}
	}
	return false
}
