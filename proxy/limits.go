package proxy

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// Why a request was refused, or left unanswered, for a limit.
const (
	limitRate         = "rate"
	limitTransactions = "transactions"
	limitDialogs      = "dialogs"
	limitBindings     = "registrations"
	limitFlood        = "flood"
)

var limitLabels = []string{limitRate, limitTransactions, limitDialogs, limitBindings, limitFlood}

// bucket is the token bucket of a flow. Only the flow's reader uses it.
type bucket struct {
	tokens float64
	at     int64 // Unix nanoseconds; 0: full
}

// take takes a token and reports whether there was one. It goes below zero, so that who
// sends on regardless runs up a debt.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	n := now.UnixNano()
	if b.at == 0 {
		b.tokens = burst
	} else if n > b.at {
		b.tokens = min(burst, b.tokens+rate*time.Duration(n-b.at).Seconds())
	}
	b.at = n
	b.tokens--
	return b.tokens >= 0
}

// withinRate takes a token for one message of the WIC. A flow whose debt is ten bursts does
// not heed 503, and is closed.
func (f *Flow) withinRate() bool {
	l := &f.p.cfg.Limits
	if l.Rate < 0 || f.bucket.take(f.p.cfg.Now(), float64(l.Rate), float64(l.Burst)) {
		return true
	}
	if f.bucket.tokens < -10*float64(l.Burst) {
		f.close(websocket.ClosePolicyViolation, "too many requests", closedFlood)
	}
	return false
}

// alwaysTaken reports whether a request is taken whatever the rate: what ends something,
// and what calls for help.
func alwaysTaken(m *sipext.Message) bool {
	switch sip.RequestMethod(m.Method) {
	case sip.ACK, sip.BYE, sip.CANCEL:
		return true
	case sip.REGISTER:
		return deregisters(m)
	}
	return isEmergency(m.Method, m.URI)
}

// deregisters reports whether a REGISTER ends every binding that it names (RFC 3261 §10.2.2).
func deregisters(m *sipext.Message) bool {
	all := contacts(m)
	for _, c := range all {
		if c.uri != "*" && c.expires != 0 && (c.expires > 0 || m.First(sipext.Expires) != "0") {
			return false
		}
	}
	return len(all) > 0
}

// addressTable counts the flows of each address.
type addressTable struct {
	mu    sync.Mutex // guards flows
	flows map[netip.Prefix]int
}

func (t *addressTable) init() { t.flows = map[netip.Prefix]int{} }

// enter counts one more flow of an address; false: it has as many as it may have.
func (t *addressTable) enter(a netip.Prefix, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit > 0 && t.flows[a] >= limit {
		return false
	}
	t.flows[a]++
	return true
}

func (t *addressTable) leave(a netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[a]--; t.flows[a] <= 0 {
		delete(t.flows, a)
	}
}

// addressOf is what one subscriber line has: an IPv4 address, or an IPv6 /64 (RFC 6177 §2:
// at least that much goes to every site, so its host part costs nothing to change).
func addressOf(remote string) netip.Prefix {
	host, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{} // not an IP socket: all of these count together
	}
	a := host.Addr().Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// longDialog bounds what a WIC makes the edge keep of one dialog in its own words.
const longDialog = 8 << 10

// tooLong reports whether a dialog-forming request names itself at excessive length.
func tooLong(req *sip.Request) bool {
	n := 0
	for _, name := range []string{"From", "To", "Call-ID", "Contact", "Event"} {
		for _, h := range sipext.Rows(req, name) {
			n += len(h.Value())
		}
	}
	return n > longDialog
}

// warning is a Warning of ours (RFC 3261 §20.43).
func (p *Proxy) warning(text string) sip.Header {
	return sip.NewHeader("Warning", `399 `+p.plain.host+` "`+strings.ReplaceAll(text, `"`, "'")+`"`)
}
