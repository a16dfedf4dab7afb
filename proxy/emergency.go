package proxy

import (
	"strings"

	"github.com/emiago/sipgo/sip"
)

// isEmergency reports whether a request calls for help: urn:service:sos and its
// sub-services (RFC 5031 §4.2).
func isEmergency(req *sip.Request) bool {
	if req.Recipient.Scheme != "urn" || req.Method != sip.INVITE && req.Method != sip.MESSAGE {
		return false
	}
	service, sub, _ := strings.Cut(req.Recipient.Raw(), ":")
	name := strings.ToLower(sub)
	return strings.EqualFold(service, "service") && (name == "sos" || strings.HasPrefix(name, "sos."))
}

// routesEmergency reports whether a request goes the emergency route (TS 24.229 5.2.10,
// known to us by digests). Without that route a registered user's call for help goes to
// the core like any other, which may know what to do; refusing it would help nobody. That
// of a stranger gets the 403 of every request without registration.
func (p *Proxy) routesEmergency(req *sip.Request) bool {
	return p.cfg.EmergencyRoute != nil && isEmergency(req) && toTag(req) == ""
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
