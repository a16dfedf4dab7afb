package sipext

import (
	"bytes"
	"fmt"
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

// Validate makes the checks of Scan with default limits.
func Validate(raw []byte) error {
	_, err := Scan(raw, Limits{})
	return err
}

// Scan checks one framed SIP message (a datagram, a WebSocket message) strictly, before
// sipgo's parser sees it: that parser is lenient, and what two parsers read differently
// is a way past the trust boundary. The error is a *MalformedError; what was read until
// then is in the Message, so that an answer can be built. It shares no memory with raw.
//
// We depart from RFC 3261 where a quoted-pair hides a control character (RFC 4475
// §3.1.1.2): it is refused, since a core in C may end the line or the string there.
func Scan(raw []byte, l Limits) (*Message, error) {
	s := scanner{limits: l.orDefault(), raw: new(Message)}
	err := s.scan(raw)
	if err != nil {
		err.Answerable = s.answerable()
		return s.raw, err
	}
	return s.raw, nil
}

type scanner struct {
	limits  Limits
	raw     *Message
	ack     bool
	damaged bool // leave out rows with control characters
}

func refuse(f Fault, phrase string) *MalformedError {
	return &MalformedError{Fault: f, Status: 400, Phrase: phrase}
}

// answerable reports whether a response can be routed back and matched.
func (s *scanner) answerable() bool {
	_, via := s.raw.Get(Via)
	_, cseq := s.raw.Get(CSeq)
	return s.raw.Method != "" && !s.ack && via && cseq
}

func (s *scanner) scan(raw []byte) *MalformedError {
	end := bytes.Index(raw, []byte("\r\n\r\n"))
	head := raw
	if end >= 0 {
		head = raw[:end+2]
		s.raw.Body = bytes.Clone(raw[end+4:])
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

// spareRows is room for what an edge adds: to a REGISTER, or to its 200.
const spareRows = 6

// scanRows splits the header into the start line and unfolded fields.
func (s *scanner) scanRows(head string) *MalformedError {
	start, rest, _ := strings.Cut(head, "\r\n")
	if s.damaged && checkOctets([]byte(start)) != nil {
		return refuse(FaultStart, "Malformed request line")
	}
	if len(start) > s.limits.Line {
		return &MalformedError{Fault: FaultLimit, Status: sip.StatusRequestURITooLong, Phrase: "Request-URI Too Long"}
	}
	s.raw.Fields = make([]Field, 0, min(strings.Count(rest, "\r\n")+spareRows, s.limits.Headers))
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
			s.raw.Add(Via, trimLWS(v))
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
	id := NameOf(name)
	if id != Other {
		name = spelled[id]
	}
	if id != Via {
		s.raw.Fields = append(s.raw.Fields, Field{id, name, value})
		return nil
	}
	for v := range ListElements(value) {
		norm, err := normalizeVia(v)
		if err != nil {
			return refuse(FaultVia, "Malformed Via")
		}
		s.raw.Add(Via, norm)
	}
	return nil
}
