package proxy

import (
	"iter"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// The trust boundary. A UE is outside the trust domain, the core inside: what only the
// domain may say is removed from what comes from a UE, and what only the domain may read
// from what goes to it. The procedures of TS 24.229 4.4 are known to us by digests: their
// lines are informed by it, no claim of conformance.

// crossing says at which side of the boundary a header field is removed.
type crossing uint8

const (
	asked    crossing = 1 << iota // in a UE's request, toward the core
	answered                      // in a UE's response, toward the core
	outward                       // from the core toward a UE
	inward   = asked | answered
	both     = inward | outward
)

// boundaryLine is one header field that does not cross as it is.
type boundaryLine struct {
	name   sipext.Name
	at     crossing
	source string
	// left is what a value becomes, "" where nothing is left of it; nil: the field is removed.
	left func(value string) string
}

// boundary is the whole table, but for Privacy, which removes another field: hidesIdentity.
var boundary = []boundaryLine{
	// Identity.
	{sipext.PAssertedIdentity, inward, "RFC 3325 §5: set by us alone; outward see hidesIdentity", nil},
	{sipext.PPreferredIdentity, inward, "RFC 3325 §9.2: a hint for us, which goes no further", nil},
	{sipext.PAssociatedURI, inward, "RFC 7315 §4.1: the registrar's word", nil},
	{sipext.PCalledPartyID, inward, "RFC 7315 §4.2: the home network's word", nil},
	{sipext.PAssertedService, both, "RFC 6050 §4.2: asserted within a trust domain", nil},
	{sipext.PServedUser, both, "RFC 5502 §4: between S-CSCF and application servers", nil},
	{sipext.PUserDatabase, both, "RFC 4457 §4: between I-CSCF and S-CSCF", nil},
	{sipext.PProfileKey, both, "RFC 5002 §4: between I-CSCF and S-CSCF", nil},
	{sipext.Identity, inward, "RFC 8224 §4: no authentication service of ours", nil},
	{sipext.IdentityInfo, inward, "RFC 4474 §9, obsolete: as Identity", nil},
	{sipext.AdditionalIdentity, inward, "TS 24.229 4.4", nil},
	{sipext.AttestationInfo, both, "TS 24.229 4.4", nil},
	{sipext.OriginationID, both, "TS 24.229 4.4", nil},

	// Charging.
	{sipext.PChargingVector, both, "RFC 7315 §4.6.2: set by us, and not for a UA", nil},
	{sipext.PChargingFunctionAddresses, both, "RFC 7315 §4.5.2.2: not outside the own domain", nil},
	{sipext.RelayedCharge, both, "TS 24.229 4.4", nil},

	// Network and service.
	{sipext.PVisitedNetworkID, both, "RFC 7315 §4.3.2: not from a UA; of no use to one", nil},
	{sipext.PEarlyMedia, inward, "RFC 5009 §6: authorised by the network", nil},
	{sipext.PPrivateNetworkIndication, both, "RFC 7316 §7: within a trust domain", nil},
	{sipext.PRefusedURIList, inward, "RFC 5318 §5: from application servers", nil},
	{sipext.HistoryInfo, inward, "TS 24.229 4.4; RFC 7044 §10: not verified here", nil},
	{sipext.ResourcePriority, inward, "RFC 4412 §4.7: not authorised here", nil},
	{sipext.PriorityShare, both, "TS 24.229 4.4", nil},
	{sipext.FeatureCaps, inward, "RFC 6809 §4: by intermediaries; TS 24.229 4.4", nil},
	{sipext.RestorationInfo, both, "TS 24.229 4.4", nil},
	{sipext.ServiceInteractInfo, both, "TS 24.229 4.4", nil},
	{sipext.CellularNetworkInfo, both, "TS 24.229 4.4", nil},
	{sipext.ResponseSource, inward, "TS 24.229 4.4", nil},

	// Between UA, edge and registrar.
	{sipext.Path, inward, "RFC 3327 §5.1: of proxies, never of a UA", nil},
	{sipext.ServiceRoute, inward, "RFC 3608 §5: of registrars, never of a UA", nil},
	{sipext.FlowTimer, both, "RFC 5626 §5.4: of the last proxy before the UA, so ours", nil},
	{sipext.SecurityClient, both, "RFC 3329 §2: nothing to agree on over a secure WebSocket", nil},
	{sipext.SecurityVerify, both, "RFC 3329 §2", nil},
	{sipext.SecurityServer, both, "RFC 3329 §2", nil},
	{sipext.TurnCredField, both, "TS 33.203 X.5.2.2: between UE and edge; ours is added after", nil},

	// What is decided by value.
	{sipext.Supported, both, "TS 33.203 X.5.2.2; RFC 3329 §2: tags between UE and edge", ownTags},
	{sipext.Require, both, "as Supported", ownTags},
	{sipext.ProxyRequire, both, "as Supported", ownTags},
	{sipext.Authorization, inward, "TS 33.203 P.3; RFC 8898 §5", ownCredentials},
	{sipext.ProxyAuthorization, inward, "TS 33.203 P.3", ownCredentials},
	{sipext.WWWAuthenticate, outward, "TS 33.203 X.2: session keys are for the edge", withoutKeys},
	{sipext.PAccessNetworkInfo, both, "RFC 7315 §4.4.2.2, §5.4: the network's own word", ownAccess},
	{sipext.Reason, answered, "TS 24.229 4.4: the network's word in a response", nil},
}

// rules are the lines of the table by name.
var rules = func() (r [256]*boundaryLine) {
	for i, l := range boundary {
		r[l.name] = &boundary[i]
	}
	return r
}()

// crosses reports whether a row goes on at that side, and edits what goes on.
func (c crossing) crosses(f *sipext.Field) bool {
	l := rules[f.ID]
	if l == nil || l.at&c == 0 {
		return true
	}
	if l.left == nil {
		return false
	}
	was := f.Value
	f.Value = l.left(was)
	return f.Value != "" || was == ""
}

// clean takes a message across, all rows in one pass.
func (c crossing) clean(m *sipext.Message) {
	hidden := c == outward && hidesIdentity(m.Rows(sipext.Privacy))
	m.Rewrite(func(f *sipext.Field) bool {
		return c.crosses(f) && !(hidden && f.ID == sipext.PAssertedIdentity)
	})
}

// cleanHeader does the same to a message of sipgo. A field of which a row has changed is
// written anew.
func (c crossing) cleanHeader(m sipext.HeaderFields) {
	var kept []sipext.Field
	var changed []sipext.Name
	for _, h := range m.Headers() {
		id := sipext.NameOf(h.Name())
		if rules[id] == nil {
			continue
		}
		f := sipext.Field{ID: id, Name: h.Name(), Value: h.Value()}
		crosses := c.crosses(&f)
		if crosses {
			kept = append(kept, f)
		}
		if !crosses || f.Value != h.Value() {
			changed = append(changed, id)
		}
	}
	for _, id := range changed {
		sipext.Strip(m, id.String())
	}
	for _, f := range kept {
		if slices.Contains(changed, f.ID) {
			m.AppendHeader(sip.NewHeader(f.Name, f.Value))
		}
	}
}

// fromUE cleans a message of a WIC.
func fromUE(m sipext.HeaderFields) {
	if _, response := m.(*sip.Response); response {
		answered.cleanHeader(m)
	} else {
		asked.cleanHeader(m)
	}
}

// toUE cleans a message to a WIC. The credential header goes in every message; the one on
// a 200 is added after.
func toUE(m sipext.HeaderFields) {
	outward.cleanHeader(m)
	if hidesIdentity(values(m, "Privacy")) {
		sipext.Strip(m, "P-Asserted-Identity")
	}
}

// values yields the values of the rows of a header field.
func values(m sipext.HeaderFields, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, h := range sipext.Rows(m, name) {
			if !yield(h.Value()) {
				return
			}
		}
	}
}

// ownTags takes the option tags off a list that are for the edge alone.
func ownTags(value string) string {
	return sipext.WithoutOptionTags(value, sipext.OptionTag, tagSecAgree)
}

// ownAccess leaves of P-Access-Network-Info what a UE says of itself. Elements with np or
// network-provided are the network's word: from a UE they would be a lie, and "a proxy sending
// towards an untrusted entity MUST remove" them (RFC 7315 §4.4.2.2, §5.4).
func ownAccess(value string) string {
	var kept []string
	for e := range sipext.ListElements(value) {
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
	return strings.Join(kept, ", ")
}

// hidesIdentity reports whether Privacy asks to hide the identity from the UE (RFC 3325 §7,
// RFC 3323 §4.2).
func hidesIdentity(privacy iter.Seq[string]) bool {
	for v := range privacy {
		for p := range strings.SplitSeq(v, ";") {
			if strings.EqualFold(strings.Trim(p, " \t"), "id") {
				return true
			}
		}
	}
	return false
}

func containsFold(names []string, s string) bool {
	for _, n := range names {
		if strings.EqualFold(n, s) {
			return true
		}
	}
	return false
}
