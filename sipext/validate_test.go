package sipext

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

func crlf(rows ...string) []byte { return []byte(strings.Join(rows, "\r\n") + "\r\n\r\n") }

// message returns a sound MESSAGE with rows added; a row replaces the one of its name.
func message(rows ...string) []byte {
	all := []string{
		"MESSAGE sip:bob@ims.test SIP/2.0", "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1", "Max-Forwards: 70",
		"From: <sip:alice@ims.test>;tag=1", "To: <sip:bob@ims.test>", "Call-ID: 1@a", "CSeq: 1 MESSAGE",
	}
	out := all[:1]
	for _, r := range all[1:] {
		name, _, _ := strings.Cut(r, ":")
		replaced := false
		for _, x := range rows {
			replaced = replaced || strings.HasPrefix(x, name+":")
		}
		if !replaced {
			out = append(out, r)
		}
	}
	return crlf(append(out, rows...)...)
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", 9<<10)
	for _, tt := range []struct {
		name string
		raw  []byte
		want Fault // "" accepts
	}{
		{"sound", message(), ""},
		{"no Content-Length (RFC 7118 §5)", message("Subject: x"), ""},
		{"folded", message("Subject: a\r\n\tb"), ""},
		{"tel Request-URI", []byte(strings.Replace(string(message()), "sip:bob@ims.test SIP", "tel:+1555 SIP", 1)), ""},
		{"CRLF only", []byte("\r\n"), FaultStart},
		{"nothing", nil, FaultStart},
		{"no empty line", []byte(strings.TrimSuffix(string(message()), "\r\n")), FaultFraming},
		{"bare LF", message("Subject: a\nP-Asserted-Identity: <sip:x@y>"), FaultControl},
		{"bare CR", message("Subject: a\rb"), FaultControl},
		{"NUL", message("Subject: \x00"), FaultControl},
		{"DEL", message("Subject: \x7f"), FaultControl},
		{"name with a space", message("Sub ject: x"), FaultName},
		{"name with VT", message("Subject\v: x"), FaultControl},
		{"no colon", message("Subject"), FaultName},
		{"first row folded", []byte(strings.Replace(string(message()), "Via", " Via", 1)), FaultName},
		{"long row", message("Subject: " + long), FaultLimit},
		{"long folded row", message("Subject: x" + strings.Repeat("\r\n "+strings.Repeat("y", 100), 100)), FaultLimit},
		{"many rows", message(strings.Split(strings.Repeat("X: y\n", 129), "\n")[:129]...), FaultLimit},
		{"two From", message("From: <sip:a@b>;tag=1", "f: <sip:a@b>;tag=1"), FaultRepeated},
		{"two Content-Length", message("Content-Length: 0", "l: 0"), FaultRepeated},
		{"no Via", message("Via:"), FaultVia},
		{"From without tag", message("From: <sip:a@b>"), FaultMissing},
		{"CSeq of another method", message("CSeq: 1 REGISTER"), FaultCSeq},
		{"CSeq 2**31", message("CSeq: 2147483648 MESSAGE"), FaultCSeq},
		{"Content-Length too long", message("Content-Length: 1"), FaultLength},
		{"Content-Length signed", message("Content-Length: +0"), FaultLength},
		{"Max-Forwards 256", message("Max-Forwards: 256"), FaultNumber},
		{"Max-Forwards signed", message("Max-Forwards: -1"), FaultNumber},
		{"Expires too long", message("Expires: 4294967296"), FaultNumber},
		{"bare cookie", message("Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK"), FaultVia},
		{"Via with an empty quoted value", message(`Via: SIP/2.0/WSS a.invalid;x="";branch=z9hG4bK1`), ""},
		{"Via with a parameter twice", message("Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1;X;x"), FaultVia},
		{"Via with 33 parameters", message("Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1" + manyParams(32)), FaultVia},
		{"Via port 0", message("Via: SIP/2.0/WSS a.invalid:0;branch=z9hG4bK1"), FaultVia},
		{"Via with a host of two", message("Via: SIP/2.0/WSS a b;branch=z9hG4bK1"), FaultVia},
		{"open quote", message(`To: "Bob <sip:bob@ims.test>`), FaultAddress},
		{"Route without brackets", message("Route: sip:a;lr"), FaultAddress},
		{"empty Request-URI", crlf("MESSAGE  SIP/2.0", "Via: SIP/2.0/WSS a;branch=z9hG4bK1"), FaultStart},
	} {
		err := Validate(tt.raw)
		var bad *MalformedError
		switch {
		case err == nil && tt.want == "":
		case !errors.As(err, &bad) || bad.Fault != tt.want:
			t.Errorf("%s: Validate = %v (%+v), want fault %q", tt.name, err, bad, tt.want)
		}
	}
}

func manyParams(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(";p" + strconv.Itoa(i))
	}
	return b.String()
}

// TestScanNormalizes: what sipgo's parser reads wrongly never reaches it.
func TestScanNormalizes(t *testing.T) {
	raw, err := Scan(message("Via: SIP / 2.0 / WSS host1 , SIP/2.0/UDP [::1]:5060 ;branch = z9hG4bK2 ; rport",
		"k:outbound", "CSeq: 7 \t MESSAGE", "X-Odd: ;;,,;;,;"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got := string(raw.Bytes())
	for _, want := range []string{
		"Via: SIP/2.0/WSS host1\r\nVia: SIP/2.0/UDP [::1]:5060;branch=z9hG4bK2;rport\r\n",
		"Supported: outbound\r\n", "CSeq: 7 MESSAGE\r\n", "X-Odd: ;;,,;;,;\r\n", "Content-Length: 0\r\n\r\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("Bytes lacks %q:\n%s", want, got)
		}
	}
	again, err := Scan(raw.Bytes(), Limits{})
	if err != nil || string(again.Bytes()) != got {
		t.Errorf("Bytes is not stable: %v\n%s", err, again.Bytes())
	}
}

// tortureDir is where sipgo keeps the messages of RFC 4475.
func tortureDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatalf("where is sipgo? %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "sip", "testdata", "torture")
}

func torture(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(tortureDir(t), "*", "*.dat"))
	if err != nil || len(files) < 49 {
		t.Fatalf("torture messages: %d, %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".dat")] = b
	}
	delete(all, "test") // not of the RFC
	return all
}

// TestTorture holds the verdict on each message of RFC 4475; 0 accepts. What a proxy
// refuses after parsing (bext01, zeromf, bcast) is accepted here.
func TestTorture(t *testing.T) {
	want := map[string]int{
		// §3.1.1: valid. intmeth hides NUL and DEL in quoted-pairs, see Scan; dblreq has octets
		// after its body, which a WebSocket message cannot have.
		"wsinv": 0, "intmeth": 400, "esc01": 0, "escnull": 0, "esc02": 0, "lwsdisp": 0, "longreq": 0,
		"dblreq": 400, "semiuri": 0, "transports": 0, "mpart01": 0, "unreason": 0, "noreason": 0,
		// §3.1.2: invalid. baddate may be ignored.
		"badinv01": 400, "clerr": 400, "ncl": 400, "scalar02": 400, "scalarlg": 400, "quotbal": 400,
		"ltgtruri": 400, "lwsruri": 400, "lwsstart": 400, "trws": 400, "escruri": 400, "baddate": 0,
		"regbadct": 400, "badaspec": 400, "baddn": 400, "badvers": 505, "mismatch01": 400,
		"mismatch02": 400, "bigcode": 400,
		// §3.2 to §3.4. inv2543 has no From tag: RFC 7118 clients are of RFC 3261.
		"badbranch": 400, "insuf": 400, "unkscm": 416, "novelsc": 416, "unksm2": 0, "bext01": 0,
		"invut": 0, "regaut01": 0, "multi01": 400, "mcl01": 400, "bcast": 0, "zeromf": 0,
		"cparam01": 0, "cparam02": 0, "regescrt": 0, "sdp01": 0, "inv2543": 400,
	}
	msgs := torture(t)
	if len(want) != 49 || len(msgs) != 49 {
		t.Errorf("%d verdicts, %d messages, want 49", len(want), len(msgs))
	}
	for name, raw := range msgs {
		err := Validate(raw)
		got := 0
		var bad *MalformedError
		if errors.As(err, &bad) {
			got = bad.Status
			if request := !strings.HasPrefix(string(raw), "SIP/"); bad.Answerable && !request {
				t.Errorf("%s: a response would be answered", name)
			}
		}
		if got != want[name] {
			t.Errorf("%s: %d (%v), want %d", name, got, err, want[name])
		}
	}
}

// FuzzValidate: what is accepted is read by sipgo's parser as the same header list.
func FuzzValidate(f *testing.F) {
	for _, raw := range torture(f) {
		f.Add(raw)
	}
	f.Add(message())
	f.Fuzz(func(t *testing.T, raw []byte) {
		scanned, err := Scan(raw, Limits{})
		if err != nil {
			return
		}
		out := scanned.Bytes()
		again, err := Scan(out, Limits{Line: 16 << 10, Headers: 256})
		if err != nil {
			t.Fatalf("refused what was written: %v\n%q", err, out)
		}
		if string(again.Bytes()) != string(out) {
			t.Fatalf("not stable:\n%q\n%q", out, again.Bytes())
		}
		m, err := sip.ParseMessage(out)
		if err != nil {
			return // sipgo is stricter here and there; the proxy answers 400
		}
		if m.Via() == nil || m.CSeq() == nil {
			t.Fatalf("sipgo misses Via or CSeq in\n%q", out)
		}
	})
}
