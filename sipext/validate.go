package sipext

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Limits bound what Scan reads. The zero value means the defaults.
type Limits struct {
	Headers int // rows; default 128
	Line    int // bytes of one header field, folds included; default 8 KiB
}

func (l Limits) orDefault() Limits {
	if l.Headers == 0 {
		l.Headers = 128
	}
	if l.Line == 0 {
		l.Line = 8 << 10
	}
	return l
}

// Fault classes a refusal; its values label metrics, so the list is fixed.
type Fault string

// The faults that Scan finds.
const (
	FaultControl  Fault = "control-character"
	FaultFraming  Fault = "framing" // no end of headers, folding of nothing
	FaultLimit    Fault = "limit"
	FaultStart    Fault = "start-line"
	FaultVersion  Fault = "version"
	FaultScheme   Fault = "scheme"
	FaultName     Fault = "header-name"
	FaultMissing  Fault = "missing-header"
	FaultRepeated Fault = "repeated-header"
	FaultLength   Fault = "content-length"
	FaultCSeq     Fault = "cseq"
	FaultNumber   Fault = "number"
	FaultVia      Fault = "via"
	FaultAddress  Fault = "address"
)

// Faults lists every Fault.
var Faults = []Fault{
	FaultControl, FaultFraming, FaultLimit, FaultStart, FaultVersion, FaultScheme, FaultName,
	FaultMissing, FaultRepeated, FaultLength, FaultCSeq, FaultNumber, FaultVia, FaultAddress,
}

// MalformedError says why a message is refused and what its sender is answered.
type MalformedError struct {
	Fault  Fault
	Status int    // 400, 416, 501, 505 or 513
	Phrase string // for the answer's reason phrase: fixed text, nothing from the message
	// Answerable says that the message is a request other than ACK whose Via and CSeq
	// can be echoed. A response is never answered, only dropped.
	Answerable bool
	// Close says that message boundaries are in doubt, so the connection should end.
	Close bool
}

// Error implements error.
func (e *MalformedError) Error() string { return fmt.Sprintf("malformed SIP: %s", e.Phrase) }

// Field is one header field, folds undone, name in its long form.
type Field struct{ Name, Value string }

// Raw is a message as Scan understood it.
type Raw struct {
	Method string // "" where the message is a response
	URI    string
	Status int
	Phrase string // reason phrase of a response
	Fields []Field
	Body   []byte
}

// Validate makes the checks of Scan with default limits.
func Validate(raw []byte) error {
	_, err := Scan(raw, Limits{})
	return err
}

// Scan checks one framed SIP message (a datagram, a WebSocket message) strictly, before
// sipgo's parser sees it: that parser is lenient, and what two parsers read differently
// is a way past the trust boundary. The error is a *MalformedError; what was read until
// then is in the Raw, so that an answer can be built.
//
// We depart from RFC 3261 where a quoted-pair hides a control character (RFC 4475
// §3.1.1.2): it is refused, since a core in C may end the line or the string there.
func Scan(raw []byte, l Limits) (Raw, error) {
	s := scanner{limits: l.orDefault()}
	err := s.scan(raw)
	if err != nil {
		err.Answerable = s.answerable()
		return s.raw, err
	}
	return s.raw, nil
}

// Bytes writes the message anew from what was understood: one header field a row,
// no folds, long names, no optional white space in Via, and the body's real length.
func (r Raw) Bytes() []byte {
	size := len("SIP/2.0 Content-Length: \r\n\r\n\r\n") + len(r.Method) + len(r.URI) + len(r.Phrase) + len(r.Body) + 32
	for _, f := range r.Fields {
		size += len(f.Name) + len(f.Value) + len(": \r\n")
	}
	var b bytes.Buffer
	b.Grow(size)
	if r.Method != "" {
		b.WriteString(r.Method + " " + r.URI + " SIP/2.0\r\n")
	} else {
		b.WriteString("SIP/2.0 " + strconv.Itoa(r.Status) + " " + r.Phrase + "\r\n")
	}
	for _, f := range r.Fields {
		if f.Name != "Content-Length" {
			b.WriteString(f.Name)
			b.WriteString(": ")
			b.WriteString(f.Value)
			b.WriteString("\r\n")
		}
	}
	b.WriteString("Content-Length: " + strconv.Itoa(len(r.Body)) + "\r\n\r\n")
	b.Write(r.Body)
	return b.Bytes()
}

// Get returns the first value of a header field by its long name.
func (r Raw) Get(name string) (string, bool) {
	for _, f := range r.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value, true
		}
	}
	return "", false
}

type scanner struct {
	limits  Limits
	raw     Raw
	ack     bool
	damaged bool // leave out rows with control characters
}

func refuse(f Fault, phrase string) *MalformedError {
	return &MalformedError{Fault: f, Status: 400, Phrase: phrase}
}

// answerable reports whether a response can be routed back and matched.
func (s *scanner) answerable() bool {
	_, via := s.raw.Get("Via")
	_, cseq := s.raw.Get("CSeq")
	return s.raw.Method != "" && !s.ack && via && cseq
}

func (s *scanner) scan(raw []byte) *MalformedError {
	end := bytes.Index(raw, []byte("\r\n\r\n"))
	head := raw
	if end >= 0 {
		head = raw[:end+2]
		s.raw.Body = raw[end+4:]
	}
	if err := checkOctets(head); err != nil {
		s.damaged = true
		_ = s.scanRows(string(head)) // the sound rows, for the answer's sake
		return err
	}
	// Even without an empty line the rows are read, for the answer's sake.
	err := s.scanRows(string(head))
	if end < 0 && (err == nil || err.Fault != FaultStart) {
		return refuse(FaultFraming, "No empty line after the header")
	}
	if err != nil {
		return err
	}
	if err := s.checkCounts(); err != nil {
		return err
	}
	return s.checkValues()
}

// checkOctets refuses bare CR, bare LF and every control character but HTAB: a core that
// ends header lines at LF would see a header field where sipgo sees a part of a value.
func checkOctets(head []byte) *MalformedError {
	for i := 0; i < len(head); i++ {
		switch c := head[i]; {
		case c == '\r' && i+1 < len(head) && head[i+1] == '\n':
			i++
		case c < ' ' && c != '\t', c == 0x7f:
			return refuse(FaultControl, "Control character in the header")
		}
	}
	return nil
}

// scanRows splits the header into the start line and unfolded fields.
func (s *scanner) scanRows(head string) *MalformedError {
	start, rest, _ := strings.Cut(head, "\r\n")
	if s.damaged && checkOctets([]byte(start)) != nil {
		return refuse(FaultStart, "Malformed request line")
	}
	if len(start) > s.limits.Line {
		return &MalformedError{Fault: FaultLimit, Status: sip.StatusRequestURITooLong, Phrase: "Request-URI Too Long"}
	}
	s.raw.Fields = make([]Field, 0, min(strings.Count(rest, "\r\n")+1, s.limits.Headers))
	startErr := s.scanStart(start)
	if startErr != nil && startErr.Fault == FaultStart && s.raw.Method == "" {
		return startErr
	}
	rows := 0
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\r\n")
		size := len(line)
		// RFC 3261 §7.3.1: a line that begins with white space continues the one before.
		for rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			var more string
			more, rest, _ = strings.Cut(rest, "\r\n")
			if size += len(more); size > s.limits.Line {
				break
			}
			line = strings.TrimRight(line, " \t") + " " + trimLWS(more)
		}
		if s.damaged && checkOctets([]byte(line)) != nil {
			continue
		}
		if rows++; rows > s.limits.Headers || size > s.limits.Line {
			return &MalformedError{Fault: FaultLimit, Status: sip.StatusMessageTooLarge, Phrase: "Message Too Large: header"}
		}
		err := s.addField(line)
		switch {
		case err == nil:
		case startErr != nil && err.Fault == FaultVia:
			// The answer goes back by this Via, however a foreign version writes it.
			_, v, _ := strings.Cut(line, ":")
			s.raw.Fields = append(s.raw.Fields, Field{"Via", trimLWS(v)})
		case startErr == nil:
			return err
		}
	}
	return startErr
}

// addField reads field-name HCOLON field-value; only SP and HTAB may stand before the colon.
func (s *scanner) addField(line string) *MalformedError {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimRight(name, " \t"), trimLWS(value)
	if !ok || !IsToken(name) {
		return refuse(FaultName, "Header name is no token")
	}
	name = longName(name)
	if name != "Via" {
		s.raw.Fields = append(s.raw.Fields, Field{name, value})
		return nil
	}
	for _, v := range SplitList(value) {
		norm, err := normalizeVia(v)
		if err != nil {
			return refuse(FaultVia, "Malformed Via")
		}
		s.raw.Fields = append(s.raw.Fields, Field{name, norm})
	}
	return nil
}

// longNames maps compact forms, and both spellings in which nearly all messages come, to
// the one spelling of the fields that we look at.
var longNames = func() map[string]string {
	m := map[string]string{}
	add := func(name string) { m[name], m[strings.ToLower(name)] = name, name }
	for _, name := range append([]string{"Record-Route", "Route", "Via"}, single...) {
		add(name)
	}
	for letter, name := range longForms {
		add(name)
		m[string(rune(letter))] = name
	}
	return m
}()

func longName(name string) string {
	if long, ok := longNames[name]; ok {
		return long
	}
	if long, ok := longNames[strings.ToLower(name)]; ok {
		return long
	}
	return name
}
