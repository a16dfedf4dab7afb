package proxy

import (
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// keepAlive is how often a WIC is asked to send something, in seconds. "The server MUST
// wait for an amount of time larger than the Flow-Timer" (RFC 5626 §5.4): Flow.extend waits
// for two and a half pings.
func (p *Proxy) keepAlive() string {
	return strconv.Itoa(max(1, int(2*p.cfg.Limits.Ping/time.Second)))
}

// offerKeepAlive asks the WIC on a 200 to REGISTER to keep its flow alive: by Flow-Timer
// where the registrar applied outbound (RFC 5626 §5.4), and by a value for the "keep" that
// the WIC put into its Via (RFC 6223 §4.4). Where both are there "the header field value and
// the keep parameter value MUST be identical" (RFC 6223 §5).
func (p *Proxy) offerKeepAlive(res *sip.Response) {
	if containsFold(sipext.List(res, "Require"), "outbound") {
		res.AppendHeader(sip.NewHeader("Flow-Timer", p.keepAlive()))
	}
	via := res.Via() // the WIC's own: ours has gone
	if via == nil {
		return
	}
	if v, there := via.Params.Get("keep"); there && v == "" {
		via.Params.Add("keep", p.keepAlive())
	}
}
