package proxy

import (
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// spellings writes a header field in every way that RFC 3261 §7.3 lets one be written.
func spellings(name, value string) []string {
	names := []string{name, strings.ToUpper(name), strings.ToLower(name)}
	for c := 'a'; c <= 'z'; c++ {
		if sipext.Named(string(c), name) {
			names = append(names, string(c), strings.ToUpper(string(c)))
		}
	}
	var all []string
	for _, n := range names {
		all = append(all, n+": "+value, n+":"+value, n+" \t :\t"+value, n+":\r\n "+value, n+": "+value+"\r\n\t , "+value,
			n+": "+value+"\r\n"+n+": "+value) // two rows
	}
	return all
}

// boundaryValue is a value that each header may have.
func boundaryValue(name string) string {
	if name == "Path" || name == "Service-Route" {
		return "<sip:x@evil.example;lr>"
	}
	return "smuggled"
}

// crossed returns what a row with that name is on the other side, both in a message that
// goes by sipgo and in one that does not, which must be the same.
func crossed(t *testing.T, p *Proxy, start, row, name string, at crossing) []string {
	t.Helper()
	raw := lines(start, "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1", "From: <sip:a@c>;tag=1", "To: <sip:b@c>;tag=2",
		"Call-ID: 1", "CSeq: 1 MESSAGE", row)
	m, scanned, err := parse(p, []byte(raw), sipext.Limits{})
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	clean := map[crossing]func(sipext.HeaderFields){inward: fromUE, outward: toUE}[at]
	clean(m.(sipext.HeaderFields))
	if at == inward && scanned.Method != "" {
		at = asked
	} else if at == inward {
		at = answered
	}
	at.clean(scanned)
	one := elements(m.(sipext.HeaderFields), name)
	if two := slices.Collect(scanned.Elements(sipext.NameOf(name))); !slices.Equal(one, two) {
		t.Errorf("%q crosses as %q, or as %q", row, one, two)
	}
	return one
}

// TestTrustBoundary sends every header field of the table, in every spelling, across in
// both directions, in requests and in responses.
func TestTrustBoundary(t *testing.T) {
	p, _ := fuzzEdge(t)
	for _, l := range boundary {
		if l.source == "" || l.at == 0 || l.name == sipext.Other {
			t.Errorf("%s: a line without its source, side or name", l.name)
		}
		if l.left != nil {
			continue // TestTrustBoundaryByValue
		}
		name := l.name.String()
		for start, from := range map[string]crossing{"MESSAGE sip:b@c SIP/2.0": asked, "SIP/2.0 200 OK": answered} {
			for _, row := range spellings(name, boundaryValue(name)) {
				if got, want := len(crossed(t, p, start, row, name, inward)) > 0, l.at&from == 0; got != want {
					t.Errorf("%s from the UE: %q passes: %v, want %v (%s)", name, row, got, want, l.source)
				}
				if got, want := len(crossed(t, p, start, row, name, outward)) > 0, l.at&outward == 0; got != want {
					t.Errorf("%s toward the UE: %q passes: %v, want %v (%s)", name, row, got, want, l.source)
				}
			}
		}
	}
}

// TestTrustBoundaryByValue: what is removed, or kept, by what it says.
func TestTrustBoundaryByValue(t *testing.T) {
	p, _ := fuzzEdge(t)
	const request, response = "MESSAGE sip:b@c SIP/2.0", "SIP/2.0 200 OK"
	for _, tt := range []struct {
		clause, start, name, value string
		in, out                    string // what is left inward and outward
	}{
		{"33.203 X.5.2.2", request, sipext.TurnCredHeader, "request", "", ""},
		{"33.203 X.5.2.2", response, sipext.TurnCredHeader, "k1-x:1:eA==", "", ""},
		{"33.203 X.5.2.2", request, "Supported", "path, " + sipext.OptionTag, "path", "path"},
		{"RFC 3329 §2", request, "Require", "sec-agree", "", ""},
		{"RFC 3329 §2", request, "Supported", "SEC-agree, 100rel", "100rel", "100rel"},
		{"33.203 P.3", request, "Authorization", `Digest username="a", integrity-protected="yes"`, `Digest username="a"`, `Digest username="a", integrity-protected="yes"`},
		{"33.203 P.3", request, "Proxy-Authorization", `Digest username="a", Integrity-Protected = yes`, `Digest username="a"`, `Digest username="a", Integrity-Protected = yes`},
		{"RFC 8898 §5", request, "Authorization", "Bearer abc", "", "Bearer abc"},
		{"33.203 X.2", response, "WWW-Authenticate", `Digest nonce="n", ck="1", IK = "2"`, `Digest nonce="n", ck="1", IK = "2"`, `Digest nonce="n"`},
		{"33.203 X.2", response, "WWW-Authenticate", "Digest\tck=\"1\", realm=\"r\"", "Digest\tck=\"1\", realm=\"r\"", `Digest realm="r"`},
		{"RFC 7315 §5.4", request, "P-Access-Network-Info", "IEEE-802.11, X;np, Y ; Network-Provided", "IEEE-802.11", "IEEE-802.11"},
		{"TS 24.229 4.4", response, "Reason", "Q.850;cause=16", "", "Q.850;cause=16"},
		{"RFC 3326 §2", request, "Reason", "SIP;cause=200", "SIP;cause=200", "SIP;cause=200"},
		{"RFC 3323 §4.2", request, "Privacy", "id", "id", "id"},
	} {
		for _, row := range []string{tt.name + ": " + tt.value, strings.ToUpper(tt.name) + "\t:\r\n " + tt.value} {
			if got := strings.Join(crossed(t, p, tt.start, row, tt.name, inward), ", "); got != tt.in {
				t.Errorf("%s from the UE: %q is left as %q, want %q", tt.clause, row, got, tt.in)
			}
			if got := strings.Join(crossed(t, p, tt.start, row, tt.name, outward), ", "); got != tt.out {
				t.Errorf("%s toward the UE: %q is left as %q, want %q", tt.clause, row, got, tt.out)
			}
		}
	}
}

// TestPrivacy: RFC 3325 §7 toward the UE.
func TestPrivacy(t *testing.T) {
	for privacy, passes := range map[string]bool{"id": false, "header; ID": false, "critical;id;session": false, "none": true, "idx": true, "header": true} {
		m := sip.NewRequest(sip.INVITE, sip.Uri{Host: "x"})
		m.AppendHeader(sip.NewHeader("P-Asserted-Identity", "<sip:a@b>"))
		m.AppendHeader(sip.NewHeader("p-asserted-identity", "<tel:+1>"))
		m.AppendHeader(sip.NewHeader("Privacy", privacy))
		toUE(m)
		if got := len(elements(m, "P-Asserted-Identity")); (got == 2) != passes {
			t.Errorf("Privacy: %s leaves %d P-Asserted-Identity, passes: want %v", privacy, got, passes)
		}
	}
}
