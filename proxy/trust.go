package proxy

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// The trust boundary. A UE is outside the trust domain, the core inside: what only the
// domain may say is removed from what comes from a UE, and what only the domain may read
// from what goes to it. The procedures of TS 24.229 4.4 are known to us by digests: their
// lines are informed by it, no claim of conformance.

// crossing says at which side of the boundary a header field is removed.
type crossing int

const (
	inward  crossing = 1 << iota // from a UE toward the core
	outward                      // from the core toward a UE
	both    = inward | outward
)

// boundaryLine is one header field that does not cross.
type boundaryLine struct {
	name   string
	at     crossing
	source string
}

// boundary is the whole table. What is decided by value is below it: the credential header
// and its option tag, sec-agree, integrity-protected and the session keys of a challenge,
// network-provided access information, Privacy, and Reason in a UE's responses.
var boundary = []boundaryLine{
	// Identity.
	{"P-Asserted-Identity", inward, "RFC 3325 §5: set by us alone; outward see hideIdentity"},
	{"P-Preferred-Identity", inward, "RFC 3325 §9.2: a hint for us, which goes no further"},
	{"P-Associated-URI", inward, "RFC 7315 §4.1: the registrar's word"},
	{"P-Called-Party-ID", inward, "RFC 7315 §4.2: the home network's word"},
	{"P-Asserted-Service", both, "RFC 6050 §4.2: asserted within a trust domain"},
	{"P-Served-User", both, "RFC 5502 §4: between S-CSCF and application servers"},
	{"P-User-Database", both, "RFC 4457 §4: between I-CSCF and S-CSCF"},
	{"P-Profile-Key", both, "RFC 5002 §4: between I-CSCF and S-CSCF"},
	{"Identity", inward, "RFC 8224 §4: no authentication service of ours"},
	{"Identity-Info", inward, "RFC 4474 §9, obsolete: as Identity"},
	{"Additional-Identity", inward, "TS 24.229 4.4"},
	{"Attestation-Info", both, "TS 24.229 4.4"},
	{"Origination-Id", both, "TS 24.229 4.4"},

	// Charging.
	{"P-Charging-Vector", both, "RFC 7315 §4.6.2: set by us, and not for a UA"},
	{"P-Charging-Function-Addresses", both, "RFC 7315 §4.5.2.2: not outside the own domain"},
	{"Relayed-Charge", both, "TS 24.229 4.4"},

	// Network and service.
	{"P-Visited-Network-ID", both, "RFC 7315 §4.3.2: not from a UA; of no use to one"},
	{"P-Early-Media", inward, "RFC 5009 §6: authorised by the network"},
	{"P-Private-Network-Indication", both, "RFC 7316 §7: within a trust domain"},
	{"P-Refused-URI-List", inward, "RFC 5318 §5: from application servers"},
	{"History-Info", inward, "TS 24.229 4.4; RFC 7044 §10: not verified here"},
	{"Resource-Priority", inward, "RFC 4412 §4.7: not authorised here"},
	{"Priority-Share", both, "TS 24.229 4.4"},
	{"Feature-Caps", inward, "RFC 6809 §4: by intermediaries; TS 24.229 4.4"},
	{"Restoration-Info", both, "TS 24.229 4.4"},
	{"Service-Interact-Info", both, "TS 24.229 4.4"},
	{"Cellular-Network-Info", both, "TS 24.229 4.4"},
	{"Response-Source", inward, "TS 24.229 4.4"},

	// Between UA, edge and registrar.
	{"Path", inward, "RFC 3327 §5.1: of proxies, never of a UA"},
	{"Service-Route", inward, "RFC 3608 §5: of registrars, never of a UA"},
	{"Flow-Timer", both, "RFC 5626 §5.4: of the last proxy before the UA, so ours"},
	{"Security-Client", both, "RFC 3329 §2: nothing to agree on over a secure WebSocket"},
	{"Security-Verify", both, "RFC 3329 §2"},
	{"Security-Server", both, "RFC 3329 §2"},
}

var (
	strippedFromUE = boundaryNames(inward)
	strippedToUE   = boundaryNames(outward)
)

// boundaryNames returns what is removed at one side, in lower case.
func boundaryNames(at crossing) map[string]bool {
	m := map[string]bool{}
	for _, l := range boundary {
		if l.at&at != 0 {
			m[sip.ASCIIToLower(l.name)] = true
		}
	}
	return m
}

// stripSet removes every row whose name is in the set, in one pass over the header. Names
// are compared without case; sipext.Scan has written compact forms out.
func stripSet(m sipext.HeaderFields, set map[string]bool) {
	var names []string
	for _, h := range m.Headers() {
		if set[sip.HeaderToLower(h.Name())] {
			names = append(names, h.Name())
		}
	}
	for _, n := range names {
		m.RemoveHeader(n) // one row each, spelled as it is
	}
}

// fromUE cleans a message of a WIC.
func fromUE(m sipext.HeaderFields) {
	stripSet(m, strippedFromUE)
	sipext.StripTurnCred(m)
	sipext.StripOptionTag(m, tagSecAgree)
	cleanCredentials(m)
	stripNetworkProvided(m)
	if _, response := m.(*sip.Response); response {
		sipext.Strip(m, "Reason") // TS 24.229 4.4: the network's word in a response
	}
}

// toUE cleans a message to a WIC. The credential header goes in every message; the one on
// a 200 is added after.
func toUE(m sipext.HeaderFields) {
	stripSet(m, strippedToUE)
	sipext.StripTurnCred(m)
	sipext.StripOptionTag(m, tagSecAgree)
	dropKeys(m)
	stripNetworkProvided(m)
	hideIdentity(m)
}

// stripNetworkProvided removes from P-Access-Network-Info what only the network says of
// itself: elements with np or network-provided. From a UE it would be a lie, and "a proxy
// sending towards an untrusted entity MUST remove" it (RFC 7315 §4.4.2.2, §5.4). A UE's own
// words stay.
func stripNetworkProvided(m sipext.HeaderFields) {
	const name = "P-Access-Network-Info"
	if len(sipext.Rows(m, name)) == 0 {
		return
	}
	var kept []string
	for _, e := range elements(m, name) {
		provided := false
		for _, param := range strings.Split(e, ";")[1:] {
			switch strings.ToLower(strings.Trim(param, " \t")) {
			case "np", "network-provided":
				provided = true
			}
		}
		if !provided {
			kept = append(kept, e)
		}
	}
	setRows(m, name, kept...)
}

// hideIdentity honours Privacy: id toward the UE (RFC 3325 §7, RFC 3323 §4.2).
func hideIdentity(m sipext.HeaderFields) {
	for _, v := range sipext.Rows(m, "Privacy") {
		for _, p := range strings.Split(v.Value(), ";") {
			if strings.EqualFold(strings.Trim(p, " \t"), "id") {
				sipext.Strip(m, "P-Asserted-Identity")
				return
			}
		}
	}
}

func containsFold(names []string, s string) bool {
	for _, n := range names {
		if strings.EqualFold(n, s) {
			return true
		}
	}
	return false
}
