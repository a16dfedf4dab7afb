package proxy

import (
	"strings"

	"github.com/emiago/sipgo/sip"
)

// isEmergency reports whether a request calls for help: urn:service:sos and its
// sub-services (RFC 5031 §4.2).
func isEmergency(method, uri string) bool {
	if method != string(sip.INVITE) && method != string(sip.MESSAGE) {
		return false
	}
	name, ok := strings.CutPrefix(strings.ToLower(uri), "urn:service:sos")
	return ok && (name == "" || name[0] == '.')
}

// routesEmergency reports whether a request goes the emergency route (TS 24.229 5.2.10,
// known to us by digests). Without that route a registered user's call for help goes to
// the core like any other, which may know what to do; refusing it would help nobody. That
// of a stranger gets the 403 of every request without registration.
func (p *Proxy) routesEmergency(req *sip.Request) bool {
	return p.cfg.EmergencyRoute != nil && isEmergency(string(req.Method), req.Recipient.String()) && toTag(req) == ""
}

// emergencyRoute is the Route that leads to the emergency service's proxy (the E-CSCF).
func (p *Proxy) emergencyRoute() string {
	n := p.cfg.EmergencyRoute
	switch n.Transport {
	case "sip", "sips":
		return "<" + n.Transport + ":" + n.Addr + ";lr>"
	}
	return "<sip:" + n.Addr + ";transport=" + n.Transport + ";lr>"
}
