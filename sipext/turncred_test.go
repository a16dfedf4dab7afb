package sipext

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"pgregory.net/rapid"
)

func TestParseTurnCred(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     TurnCred
		ok       bool
	}{
		{"request", "request", TurnCred{Kind: KindRequest}, true},
		{"request in capitals, with a parameter of someone else", "Request ; foo=bar;baz", TurnCred{Kind: KindRequest}, true},
		{"literal value of TS 33.203", "k1-abc:1735689600:dGVzdA==", TurnCred{Kind: KindCredential, Tid: "k1-abc", Texp: 1735689600, Tpwd: "dGVzdA=="}, true},
		{"spaces round the colons", "k1-abc : 1735689600 : dGVzdA==", TurnCred{Kind: KindCredential, Tid: "k1-abc", Texp: 1735689600, Tpwd: "dGVzdA=="}, true},
		{
			"everything", `k1-abc:1735689600:dGVzdA==;username="k1-abc:1735689600";realm="ims.test";uris="turns:a:5349?transport=tcp turn:a";ttl=600;approach=push`,
			TurnCred{
				Kind: KindCredential, Tid: "k1-abc", Texp: 1735689600, Tpwd: "dGVzdA==", Username: "k1-abc:1735689600", Realm: "ims.test",
				URIs: []string{"turns:a:5349?transport=tcp", "turn:a"}, TTL: 600 * time.Second, Approach: "push",
			}, true,
		},
		{"quoted separators", `a:1:bb;realm="x;y,z=\"\\"`, TurnCred{Kind: KindCredential, Tid: "a", Texp: 1, Tpwd: "bb", Realm: `x;y,z="\`}, true},
		{"unavailable", "unavailable;reason=relay-unreachable;retry-after=30", TurnCred{Kind: KindUnavailable, Reason: "relay-unreachable", RetryAfter: 30 * time.Second}, true},

		{"empty", "", TurnCred{}, false},
		{"list", "request, request", TurnCred{}, false},
		{"repeated parameter", "request;ttl=1;TTL=2", TurnCred{}, false},
		{"repeated generic parameter", "request;x;x=1", TurnCred{}, false},
		{"semicolons for colons", "k1-abc;1735689600;dGVzdA==", TurnCred{}, false},
		{"Tid with a dot", "a.b:1:bb", TurnCred{}, false},
		{"Texp with a sign", "a:+1:bb", TurnCred{}, false},
		{"Texp too long", "a:99999999999999999999:bb", TurnCred{}, false},
		{"Tpwd with three paddings", "a:1:bb===", TurnCred{}, false},
		{"open quote", `request;realm="x`, TurnCred{}, false},
		{"quote after a value", `request;realm="x"y`, TurnCred{}, false},
		{"unquoted realm", "request;realm=x", TurnCred{}, false},
		{"ttl of letters", "request;ttl=ten", TurnCred{}, false},
		{"ttl beyond 32 bits", "request;ttl=4294967296", TurnCred{}, false},
		{"unknown approach", "request;approach=token", TurnCred{}, false},
		{"line end", "request;realm=\"x\r\nX-Evil: 1\"", TurnCred{}, false},
		{"empty parameter", "request;;ttl=1", TurnCred{}, false},
	} {
		got, err := ParseTurnCred(tt.in)
		if (err == nil) != tt.ok || (err != nil && !errors.Is(err, ErrTurnCred)) {
			t.Errorf("%s: ParseTurnCred(%q) error = %v, want ok=%v", tt.name, tt.in, err, tt.ok)
			continue
		}
		if tt.ok && fieldsOf(got) != fieldsOf(tt.want) {
			t.Errorf("%s: ParseTurnCred(%q) = %s, want %s", tt.name, tt.in, fieldsOf(got), fieldsOf(tt.want))
		}
	}
}

// fieldsOf prints every field, the password too.
func fieldsOf(c TurnCred) string {
	return fmt.Sprintf("%s|%s|%d|%s|%s|%s|%q|%v|%v|%s|%s",
		c.Kind, c.Tid, c.Texp, c.Tpwd, c.Username, c.Realm, c.URIs, c.TTL, c.RetryAfter, c.Approach, c.Reason)
}

func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := TurnCred{
			Kind: KindCredential,
			Tid:  rapid.StringMatching(`[A-Za-z0-9_-]{1,40}`).Draw(t, "tid"),
			Texp: rapid.Int64Range(1, 1<<40).Draw(t, "texp"),
			Tpwd: rapid.StringMatching(`[A-Za-z0-9+/]{1,50}={0,2}`).Draw(t, "tpwd"),
			// Anything: identities come from users.
			Username: rapid.String().Draw(t, "username"),
			Realm:    rapid.String().Draw(t, "realm"),
			URIs:     rapid.SliceOfN(rapid.StringMatching(`turns?:[a-z0-9.]{1,20}(:[0-9]{1,5})?(\?transport=(udp|tcp))?`), 0, 4).Draw(t, "uris"),
			TTL:      time.Duration(rapid.Uint32().Draw(t, "ttl")) * time.Second,
			Approach: rapid.SampledFrom([]string{"", "push", "shared-key"}).Draw(t, "approach"),
		}
		v, err := c.Value()
		if err != nil {
			return // refused, so nothing was printed
		}
		if strings.ContainsAny(v, "\r\n\x00") {
			t.Fatalf("Value() = %q: has a line end", v)
		}
		got, err := ParseTurnCred(v)
		if err != nil || fieldsOf(got) != fieldsOf(c) {
			t.Fatalf("ParseTurnCred(%q) = %s, %v; want %s", v, fieldsOf(got), err, fieldsOf(c))
		}
	})
}

func TestTurnCredDoesNotPrintItsPassword(t *testing.T) {
	c := TurnCred{Kind: KindCredential, Tid: "a", Texp: 1, Tpwd: "CANARY"}
	if s := fmt.Sprintf("%v %+v %#v %s %q", c, c, c, &c, c); strings.Contains(s, "CANARY") {
		t.Errorf("printed %q", s)
	}
}

func TestWithoutOptionTags(t *testing.T) {
	for list, want := range map[string]string{
		"": "", "path": "path", "path,  gruu ,": "path,  gruu ,", // as it is
		OptionTag: "", "3GPP-EXT-turn-cred , outbound": "outbound", "path, ," + OptionTag + ",gruu": "path, gruu",
		"x" + OptionTag: "x" + OptionTag,
	} {
		if got := WithoutOptionTags(list, "sec-agree", OptionTag); got != want {
			t.Errorf("WithoutOptionTags(%q) = %q, want %q", list, got, want)
		}
	}
}

func TestTurnCredWanted(t *testing.T) {
	const head = "REGISTER sip:ims.test SIP/2.0\r\nVia: SIP/2.0/WSS a.invalid;branch=z9hG4bK1\r\n" +
		"From: <sip:a@ims.test>;tag=1\r\nTo: <sip:a@ims.test>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n"
	for _, tt := range []struct {
		name, row string
		want, ok  bool
	}{
		{"neither", "", false, true},
		{"header", "3gpp-ext-turn-cred: request\r\n", true, true},
		{"special tag", "Supported: path, 3gpp-ext-turn-cred\r\n", true, true},
		{"special tag, compact", "k: 3gpp-ext-turn-cred\r\n", true, true},
		{"a credential of the WIC's own choice", "3gpp-ext-turn-cred: a:1:bb\r\n", true, true},
		{"unavailable", "3gpp-ext-turn-cred: unavailable\r\n", false, false},
		{"two rows", "3gpp-ext-turn-cred: request\r\n3GPP-Ext-Turn-Cred : a:1:bb\r\n", false, false},
		{"malformed", "3gpp-ext-turn-cred: request, request\r\n", false, false},
	} {
		raw := head + tt.row + "Content-Length: 0\r\n\r\n"
		got, err := TurnCredWanted(parseRequest(t, raw))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s: TurnCredWanted = %v, %v; want %v, ok=%v", tt.name, got, err, tt.want, tt.ok)
		}
		m, err := Scan([]byte(raw), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err = m.TurnCredWanted(); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s, scanned: TurnCredWanted = %v, %v; want %v, ok=%v", tt.name, got, err, tt.want, tt.ok)
		}
	}
}

func parseRequest(t *testing.T, raw string) *sip.Request {
	t.Helper()
	m, err := sip.ParseMessage([]byte(raw))
	if err != nil {
		t.Fatalf("ParseMessage: %v", err)
	}
	return m.(*sip.Request)
}

func FuzzParseTurnCred(f *testing.F) {
	for _, s := range []string{"request", "a:1:bb==;ttl=1", `a:1:bb;username="x\"";uris="turn:a"`, "unavailable;reason=limit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, err := ParseTurnCred(in)
		if err != nil {
			return
		}
		v, err := c.Value()
		if err != nil {
			return // for example Texp 0: read, but never printed
		}
		again, err := ParseTurnCred(v)
		if err != nil || fieldsOf(again) != fieldsOf(c) {
			t.Errorf("ParseTurnCred(%q) = %s; printed %q, which reads as %s, %v", in, fieldsOf(c), v, fieldsOf(again), err)
		}
	})
}
