package proxy

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// reginfoType is the media type of registration information (RFC 3680 §5).
const reginfoType = "application/reginfo+xml"

// maxReginfo bounds a document; it is what a UDP datagram can hold.
const maxReginfo = 64 << 10

// reginfo is a registration information document (RFC 3680 §5.1), as far as it says when a
// binding ends.
type reginfo struct {
	version       uint32
	full          bool
	registrations []regElement
}

// regElement is the state of one address of record.
type regElement struct {
	aor        IMPU
	terminated bool
	contacts   []contactElement
}

// contactElement is the state of one contact.
type contactElement struct {
	contact    contact
	terminated bool
	event      regEvent
	expires    time.Duration // with shortened
	retryAfter time.Duration // with probation
}

// regEvent is what brought a contact into its state (RFC 3680 §3.2).
type regEvent string

const (
	eventShortened    regEvent = "shortened"
	eventExpired      regEvent = "expired"
	eventDeactivated  regEvent = "deactivated" // may register again at once
	eventProbation    regEvent = "probation"   // may register again later
	eventUnregistered regEvent = "unregistered"
	eventRejected     regEvent = "rejected" // registering again will not help
)

// livesOn says for each event whether the contact lives on after it.
var livesOn = map[regEvent]bool{
	"registered": true, "created": true, "refreshed": true, eventShortened: true,
	eventExpired: false, eventDeactivated: false, eventProbation: false, eventUnregistered: false, eventRejected: false,
}

// The document as encoding/xml fills it. Elements of other namespaces are left out, as
// RFC 3680 §5.1 wants; attributes are read by hand, since a plain field would also take one
// of another namespace.
type (
	xmlReginfo struct {
		XMLName       xml.Name          `xml:"urn:ietf:params:xml:ns:reginfo reginfo"`
		Attrs         []xml.Attr        `xml:",any,attr"`
		Registrations []xmlRegistration `xml:"urn:ietf:params:xml:ns:reginfo registration"`
	}
	xmlRegistration struct {
		Attrs    []xml.Attr   `xml:",any,attr"`
		Contacts []xmlContact `xml:"urn:ietf:params:xml:ns:reginfo contact"`
	}
	xmlContact struct {
		Attrs  []xml.Attr `xml:",any,attr"`
		URI    []string   `xml:"urn:ietf:params:xml:ns:reginfo uri"`
		Params []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:",chardata"`
		} `xml:"urn:ietf:params:xml:ns:reginfo unknown-param"`
	}
)

var errReginfo = errors.New("malformed reginfo")

// parseReginfo reads a document strictly: well-formed, one root, no document type, every
// attribute that RFC 3680 §5.1 demands. The error wraps errReginfo.
func parseReginfo(body []byte) (reginfo, error) {
	if len(body) > maxReginfo {
		return reginfo{}, fmt.Errorf("%w: %d bytes", errReginfo, len(body))
	}
	tokens := &plainTokens{xml.NewDecoder(bytes.NewReader(body))}
	dec := xml.NewTokenDecoder(tokens)
	var x xmlReginfo
	if err := dec.Decode(&x); err != nil {
		return reginfo{}, fmt.Errorf("%w: %w", errReginfo, err)
	}
	for {
		switch tok, err := dec.Token(); {
		case errors.Is(err, io.EOF):
			return x.read()
		case err != nil:
			return reginfo{}, fmt.Errorf("%w: %w", errReginfo, err)
		default:
			if text, ok := tok.(xml.CharData); !ok || len(bytes.TrimSpace(text)) > 0 {
				return reginfo{}, fmt.Errorf("%w: more than one root", errReginfo)
			}
		}
	}
}

// plainTokens refuses a document type, whose entities are of no use here and have hurt
// others; it drops comments.
type plainTokens struct{ *xml.Decoder }

// Token implements xml.TokenReader.
func (p *plainTokens) Token() (xml.Token, error) {
	for {
		// RawToken: the decoder above checks that elements match, and resolves namespaces.
		tok, err := p.RawToken()
		switch tok.(type) {
		case xml.Directive:
			return nil, errors.New("document type")
		case xml.Comment, xml.ProcInst:
			if err == nil {
				continue
			}
		}
		return tok, err
	}
}

// attribute returns an attribute without namespace; one that is there twice is an error.
func attribute(attrs []xml.Attr, name string) (value string, there bool, err error) {
	for _, a := range attrs {
		if a.Name.Space != "" || a.Name.Local != name {
			continue
		}
		if there {
			return "", true, fmt.Errorf("%w: two attributes %s", errReginfo, name)
		}
		value, there = a.Value, true
	}
	return value, there, nil
}

// oneOf reads an attribute that must be there with one of the values.
func oneOf(attrs []xml.Attr, name string, values ...string) (string, error) {
	v, there, err := attribute(attrs, name)
	if err != nil {
		return "", err
	}
	if there {
		for _, want := range values {
			if v == want {
				return v, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %s is %q", errReginfo, name, v)
}

// secondsOf reads an attribute of whole seconds that must be there.
func secondsOf(attrs []xml.Attr, name string) (time.Duration, error) {
	v, _, err := attribute(attrs, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is %q", errReginfo, name, v)
	}
	return time.Duration(min(n, 1<<31-1)) * time.Second, nil
}

func (x *xmlReginfo) read() (reginfo, error) {
	var doc reginfo
	v, _, err := attribute(x.Attrs, "version")
	if err != nil {
		return doc, err
	}
	n, err := strconv.ParseUint(v, 10, 32) // "representable using a 32 bit integer"
	if err != nil {
		return doc, fmt.Errorf("%w: version is %q", errReginfo, v)
	}
	state, err := oneOf(x.Attrs, "state", "full", "partial")
	if err != nil {
		return doc, err
	}
	doc.version, doc.full = uint32(n), state == "full"
	for i := range x.Registrations {
		r, err := x.Registrations[i].read()
		if err != nil {
			return doc, err
		}
		doc.registrations = append(doc.registrations, r)
	}
	return doc, nil
}

func (x *xmlRegistration) read() (regElement, error) {
	var r regElement
	if _, there, err := attribute(x.Attrs, "id"); err != nil || !there {
		return r, fmt.Errorf("%w: registration without one id", errReginfo)
	}
	state, err := oneOf(x.Attrs, "state", "init", "active", "terminated")
	if err != nil {
		return r, err
	}
	v, _, err := attribute(x.Attrs, "aor")
	if err != nil {
		return r, err
	}
	u, ok := parseURI("<" + strings.TrimSpace(v) + ">")
	if !ok {
		return r, fmt.Errorf("%w: aor is no URI", errReginfo)
	}
	r.aor, r.terminated = aor(&u), state == "terminated"
	for i := range x.Contacts {
		c, err := x.Contacts[i].read()
		if err != nil {
			return r, err
		}
		r.contacts = append(r.contacts, c)
	}
	return r, nil
}

func (x *xmlContact) read() (contactElement, error) {
	var c contactElement
	if _, there, err := attribute(x.Attrs, "id"); err != nil || !there || len(x.URI) != 1 {
		return c, fmt.Errorf("%w: contact without one id and uri", errReginfo)
	}
	state, err := oneOf(x.Attrs, "state", "active", "terminated")
	if err != nil {
		return c, err
	}
	event, _, err := attribute(x.Attrs, "event")
	if err != nil {
		return c, err
	}
	lives, known := livesOn[regEvent(event)]
	if c.terminated = state == "terminated"; !known || lives == c.terminated {
		return c, fmt.Errorf("%w: %s by event %q", errReginfo, state, event)
	}
	c.event = regEvent(event)
	switch c.event {
	case eventShortened:
		c.expires, err = secondsOf(x.Attrs, "expires")
	case eventProbation:
		c.retryAfter, err = secondsOf(x.Attrs, "retry-after")
	}
	if err != nil {
		return c, err
	}
	c.contact.uri = strings.TrimSpace(x.URI[0])
	for _, p := range x.Params {
		switch strings.ToLower(p.Name) {
		case "+sip.instance":
			c.contact.instance = strings.Trim(strings.TrimSpace(p.Value), `"`)
		case "reg-id":
			c.contact.regID = strings.TrimSpace(p.Value)
		}
	}
	return c, nil
}

// is reports whether the element is about the registration's contact: by instance and
// reg-id where the registrar tells them, and by URI.
func (c *contactElement) is(r *Registration) bool {
	if c.contact.instance != "" && (c.contact.instance != r.instance || c.contact.regID != "" && c.contact.regID != r.regID) {
		return false
	}
	return sameURI(c.contact.uri, r.contact)
}
