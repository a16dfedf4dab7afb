package proxy

import (
	"strconv"
	"strings"
	"time"

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
func (p *Proxy) offerKeepAlive(res *sipext.Message) {
	for tag := range res.Elements(sipext.Require) {
		if strings.EqualFold(tag, "outbound") {
			res.Add(sipext.FlowTimer, p.keepAlive())
			break
		}
	}
	for i := range res.Fields {
		if f := &res.Fields[i]; f.ID == sipext.Via { // the WIC's own: ours has gone
			f.Value = fillViaParam(f.Value, "keep", p.keepAlive)
			return
		}
	}
}

// fillViaParam gives a parameter of a Via that has none a value.
func fillViaParam(via, name string, value func() string) string {
	params := strings.Split(via, ";")
	for i, p := range params {
		if i > 0 && strings.EqualFold(p, name) {
			params[i] = p + "=" + value()
			return strings.Join(params, ";")
		}
	}
	return via
}
