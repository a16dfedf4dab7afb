package proxy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// reginfoExample is the document of RFC 3680 §5.3.
const reginfoExample = `<?xml version="1.0"?>
    <reginfo xmlns="urn:ietf:params:xml:ns:reginfo"
        xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
                 version="0" state="full">
      <registration aor="sip:user@example.com" id="as9"
                    state="active">
        <contact id="76" state="active" event="registered"
                 duration-registered="7322"
                 q="0.8">
                 <uri>sip:user@pc887.example.com</uri>
        </contact>
        <contact id="77" state="terminated" event="expired"
                 duration-registered="3600"
                 q="0.5">
                 <uri>sip:user@university.edu</uri>
        </contact>
      </registration>
    </reginfo>
`

// document writes a reginfo of one registration.
func document(version int, aor IMPU, state, contacts string) string {
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+
		`<reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="%d" state="full"><registration aor="%s" id="r1" state="%s">%s</registration></reginfo>`,
		version, aor, state, contacts)
}

func contactXML(uri, state, attributes string) string {
	return `<contact id="c1" state="` + state + `" ` + attributes + `><uri>` + uri + `</uri></contact>`
}

func TestReginfo(t *testing.T) {
	doc, err := parseReginfo([]byte(reginfoExample))
	if err != nil || doc.version != 0 || !doc.full || len(doc.registrations) != 1 {
		t.Fatalf("RFC 3680 §5.3 reads as %+v, %v", doc, err)
	}
	r := doc.registrations[0]
	if r.aor != "sip:user@example.com" || r.terminated || len(r.contacts) != 2 || r.contacts[0].terminated ||
		r.contacts[1].event != eventExpired || r.contacts[1].contact.uri != "sip:user@university.edu" {
		t.Errorf("RFC 3680 §5.3 reads as %+v", r)
	}
	ext := document(7, "sip:a@b", "active", `<x:y xmlns:x="urn:x">z</x:y><contact xmlns:x="urn:x" x:state="junk" state="active" event="shortened" expires="30" id="1">
		<uri> sip:a@c </uri><unknown-param name="+sip.instance">"&lt;urn:uuid:1&gt;"</unknown-param><unknown-param name="reg-id">2</unknown-param></contact>`)
	doc, err = parseReginfo([]byte(ext))
	if err != nil {
		t.Fatalf("RFC 3680 §5.1, other namespaces: %v", err)
	}
	c := doc.registrations[0].contacts[0]
	if c.expires != 30*time.Second || c.contact != (contact{uri: "sip:a@c", instance: "<urn:uuid:1>", regID: "2"}) {
		t.Errorf("contact reads as %+v", c)
	}
}

func TestReginfoRefused(t *testing.T) {
	ok := contactXML("sip:a@b", "active", `event="registered"`)
	good := document(1, "sip:a@b", "active", ok)
	if _, err := parseReginfo([]byte(good)); err != nil {
		t.Fatalf("the sound one: %v", err)
	}
	replaced := func(from, to string) string {
		s := strings.Replace(good, from, to, 1)
		if s == good {
			t.Fatalf("%q is not in %s", from, good)
		}
		return s
	}
	for name, in := range map[string]string{
		"empty":                    "",
		"not XML":                  "v=0",
		"not closed":               strings.TrimSuffix(good, "</reginfo>"),
		"elements that cross":      replaced("</contact></registration>", "</registration></contact>"),
		"two roots":                good + `<reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="2" state="full"/>`,
		"text after the root":      good + "x",
		"document type":            replaced("?>\n", `?><!DOCTYPE reginfo [<!ENTITY a "b">]>`),
		"an entity":                replaced("sip:a@b</uri>", "&a;</uri>"),
		"another charset":          replaced("UTF-8", "EBCDIC"),
		"no UTF-8":                 replaced("<uri>", "<uri>\xff"),
		"another root":             strings.ReplaceAll(good, "reginfo ", "presence "),
		"another namespace":        replaced("ns:reginfo", "ns:pidf"),
		"no version":               replaced(`version="1" state`, "state"),
		"negative version":         replaced(`version="1" state`, `version="-1" state`),
		"a version beyond 32 bits": replaced(`version="1" state`, `version="4294967296" state`),
		"two versions":             replaced(`version="1" state`, `version="1" version="2" state`),
		"a state of no kind":       replaced(`state="full"`, `state="whole"`),
		"no aor":                   replaced(`aor="sip:a@b"`, ""),
		"an aor that is no URI":    replaced(`aor="sip:a@b"`, `aor="a"`),
		"no id":                    replaced(`id="r1"`, ""),
		"registration state":       replaced(`id="r1" state="active"`, `id="r1" state="gone"`),
		"contact without uri":      replaced("<uri>sip:a@b</uri>", ""),
		"contact with two":         replaced("<uri>sip:a@b</uri>", "<uri>sip:a@b</uri><uri>sip:c@d</uri>"),
		"contact without event":    replaced(`event="registered"`, ""),
		"unknown event":            replaced(`event="registered"`, `event="bored"`),
		"active but expired":       replaced(`event="registered"`, `event="expired"`),
		"shortened without end":    replaced(`event="registered"`, `event="shortened"`),
		"negative end":             replaced(`event="registered"`, `event="shortened" expires="-1"`),
		"probation without end":    document(1, "sip:a@b", "active", contactXML("sip:a@b", "terminated", `event="probation"`)),
		"deep":                     document(1, "sip:a@b", "active", strings.Repeat("<a>", 20_000)),
		"long":                     document(1, "sip:a@b", "active", strings.Repeat(ok, 1000)),
	} {
		if _, err := parseReginfo([]byte(in)); !errors.Is(err, errReginfo) {
			t.Errorf("%s: %v, want errReginfo\n%.300s", name, err, in)
		}
	}
}

// FuzzReginfo: nothing panics, and what is read keeps the rules that the edge relies on.
func FuzzReginfo(f *testing.F) {
	f.Add([]byte(reginfoExample))
	f.Add([]byte(document(1, "sip:a@b", "terminated", contactXML("sip:a@b", "active", `event="shortened" expires="5"`))))
	f.Add([]byte(document(1, "tel:+1", "init", contactXML("sip:a@b", "terminated", `event="probation" retry-after="5"`))))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := parseReginfo(body)
		if err != nil {
			if !errors.Is(err, errReginfo) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		for _, r := range doc.registrations {
			for _, c := range r.contacts {
				if livesOn[c.event] == c.terminated || c.expires < 0 || c.retryAfter < 0 {
					t.Fatalf("contact %+v", c)
				}
			}
		}
	})
}
