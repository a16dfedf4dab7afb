package proxy

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// The trust boundary. A UE is outside the trust domain, the core inside: what only the
// domain may say is removed from what comes from a UE, and what only the domain may read
// from what goes to it (RFC 3324, RFC 3325 §5; TS 24.229 4.4, known to us by digests).
// Header names are compared without case and in both forms, since every message was
// written anew by sipext.Scan.

// strippedFromUE is removed from every message of a WIC.
var strippedFromUE = nameSet(
	"P-Asserted-Identity",                                // RFC 3325 §5: set by us alone
	"P-Charging-Vector", "P-Charging-Function-Addresses", // RFC 7315 §4.5, §4.6
	"P-Visited-Network-ID",                  // RFC 7315 §4.3.2.2: not from a UA
	"P-Associated-URI", "P-Called-Party-ID", // RFC 7315 §4.1, §4.2: the home network's words
	"P-Served-User", "P-User-Database", "P-Profile-Key", // RFC 5502, RFC 4457, RFC 5002
	"P-Asserted-Service", "P-Early-Media", // RFC 6050, RFC 5009
	"P-Private-Network-Indication", "P-Refused-URI-List", // RFC 7316, RFC 5318
	"History-Info", "Resource-Priority", "Feature-Caps", // RFC 7044, RFC 4412, RFC 6809: not authorised here
	"Restoration-Info", "Relayed-Charge", "Service-Interact-Info", // TS 24.229 7.2
	"Cellular-Network-Info", "Response-Source", "Attestation-Info",
	"Origination-Id", "Additional-Identity", "Priority-Share", "Identity", "Identity-Info",
	"Path", "Service-Route", // RFC 3327 §5.1, RFC 3608 §5: of proxies and registrars, never of a UA
	"Security-Client", "Security-Verify", "Security-Server", // RFC 3329: not agreed over WebSocket
)

// strippedToUE is removed from every message to a WIC.
var strippedToUE = nameSet(
	"P-Charging-Vector", "P-Charging-Function-Addresses", // RFC 7315 §4.5, §4.6: not outside the domain
	"P-Visited-Network-ID", "P-Served-User", "P-User-Database", "P-Profile-Key",
	"P-Private-Network-Indication", "P-Asserted-Service",
	"Restoration-Info", "Relayed-Charge", "Service-Interact-Info", "Cellular-Network-Info",
	"Attestation-Info", "Origination-Id", "Priority-Share",
)

func nameSet(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[sip.ASCIIToLower(n)] = true
	}
	return m
}

// stripSet removes every row whose name is in the set, in one pass over the header.
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
	stripNetworkProvided(m)
}

// stripNetworkProvided removes from P-Access-Network-Info what only the network says of
// itself: elements with np or network-provided (RFC 7315 §5.4). The UE's own stay.
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

// toUE cleans a message to a WIC. The credential header goes in every message; the one on
// a 200 is added after.
func toUE(m sipext.HeaderFields) {
	stripSet(m, strippedToUE)
	sipext.StripTurnCred(m)
	hideIdentity(m)
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

// dropAuthParams removes parameters from the rows of an authentication header: what
// integrity-protected says is the edge's word (TS 33.203 P.3), ck and ik are for the edge
// alone (TS 33.203 X.2).
func dropAuthParams(m sipext.HeaderFields, header string, names ...string) {
	rows := sipext.Rows(m, header)
	values := make([]string, len(rows))
	for i, h := range rows {
		values[i] = withoutAuthParams(h.Value(), names)
	}
	if len(rows) > 0 {
		setRows(m, header, values...)
	}
}

func withoutAuthParams(value string, names []string) string {
	scheme, params, ok := strings.Cut(strings.TrimLeft(value, " \t"), " ")
	if !ok {
		return value
	}
	var kept []string
	for _, e := range sipext.SplitList(params) {
		name, _, _ := strings.Cut(e, "=")
		if name = strings.Trim(name, " \t"); !containsFold(names, name) {
			kept = append(kept, e)
		}
	}
	return scheme + " " + strings.Join(kept, ", ")
}

func containsFold(names []string, s string) bool {
	for _, n := range names {
		if strings.EqualFold(n, s) {
			return true
		}
	}
	return false
}

// digestUsername returns the username of a Digest Authorization, if there is one.
func digestUsername(req *sip.Request) (name string, authorized bool) {
	for _, h := range sipext.Rows(req, "Authorization") {
		authorized = true
		scheme, params, _ := strings.Cut(h.Value(), " ")
		if !strings.EqualFold(scheme, "Digest") {
			continue
		}
		for _, e := range sipext.SplitList(params) {
			// Written as a parameter, so that one parser knows quoted-string.
			a, err := sipext.ParseAddress("x:y;" + e)
			if err != nil {
				continue
			}
			if v, ok := a.Params.Get("username"); ok && v != "" {
				return v, true
			}
		}
	}
	return "", authorized
}
