package proxy

import (
	"github.com/emiago/sipgo/sip"
)

// chooseIdentities picks what to assert of a user: of what was preferred and is registered,
// the first SIP and the first tel URI, else the default (TS 24.229 5.2.6.3.1, known to us by
// digests). "If there are two values, one value MUST be a sip or sips URI and the other
// MUST be a tel URI" (RFC 3325 §9.1).
func (r *Registration) chooseIdentities(preferred []string) []IMPU {
	var chosen []IMPU
	var haveSIP, haveTel bool
	for _, e := range preferred {
		u, ok := parseURI(e)
		if !ok || !r.speaksFor(aor(&u)) {
			continue
		}
		have := &haveSIP
		if u.Scheme == "tel" {
			have = &haveTel
		}
		if !*have {
			*have = true
			chosen = append(chosen, aor(&u))
		}
	}
	if len(chosen) == 0 {
		chosen = append(chosen, r.defaultIdentity())
	}
	return chosen
}

// vouch says in an initial or standalone request who sent it, from the registration and
// never from From (RFC 3325 §5), and where it is charged (RFC 7315 §4.5.2.2).
func (r *Registration) vouch(req *sip.Request, preferred []string) {
	for _, id := range r.chooseIdentities(preferred) {
		req.AppendHeader(sip.NewHeader("P-Asserted-Identity", "<"+string(id)+">"))
	}
	for _, v := range r.charging {
		req.AppendHeader(sip.NewHeader("P-Charging-Function-Addresses", v))
	}
}

// calledParty is the identity of the WIC that a request was meant for before the core put
// the contact in its place (RFC 7315 §4.2), where the flow speaks for it.
func (f *Flow) calledParty(req *sip.Request) IMPU {
	u, ok := parseURI(first(req, "P-Called-Party-ID"))
	if !ok {
		return ""
	}
	id := aor(&u)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.regs {
		if r.speaksFor(id) {
			return id
		}
	}
	return ""
}

// assertCalled says in a WIC's response who answers (TS 24.229 5.2.6.4, known to us by
// digests).
func assertCalled(res *sip.Response, called IMPU) {
	if called != "" && res.StatusCode > sip.StatusTrying {
		res.AppendHeader(sip.NewHeader("P-Asserted-Identity", "<"+string(called)+">"))
	}
}
