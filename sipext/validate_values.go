package sipext

import (
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// scanStart reads the start line (RFC 3261 §7.1, §7.2): exactly two spaces in a request.
func (s *scanner) scanStart(line string) *MalformedError {
	if len(line) >= 4 && strings.EqualFold(line[:4], "SIP/") {
		return s.scanStatus(line)
	}
	method, rest, ok1 := strings.Cut(line, " ")
	uri, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !IsToken(method) || len(version) < 4 || !strings.EqualFold(version[:4], "SIP/") {
		// Enough of a request to answer, if a version stands at its end (RFC 4475 §3.1.2.7 to 10).
		if IsToken(method) && strings.Contains(strings.ToUpper(line), " SIP/2.0") {
			s.raw.Method, s.ack = method, method == "ACK"
		}
		return refuse(FaultStart, "Malformed request line")
	}
	s.raw.Method, s.raw.URI, s.ack = method, uri, method == "ACK"
	if !strings.EqualFold(version, "SIP/2.0") {
		if strings.Trim(version[4:], "0123456789.") != "" {
			return refuse(FaultStart, "Malformed request line")
		}
		return &MalformedError{Fault: FaultVersion, Status: sip.StatusVersionNotSupported, Phrase: "Version Not Supported"}
	}
	return checkRequestURI(uri)
}

func checkRequestURI(uri string) *MalformedError {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || !isScheme(scheme) || !isURI(uri) {
		return refuse(FaultStart, "Malformed Request-URI")
	}
	switch strings.ToLower(scheme) {
	case "sip", "sips":
		if hostnameSet.holds(rest) { // no more than a host, as a REGISTER has it
			return nil
		}
		// RFC 3261 §19.1.1: header parameters must not stand in a Request-URI.
		if strings.Contains(uri, "?") {
			return refuse(FaultStart, "Header parameters in the Request-URI")
		}
	case "tel", "urn":
	default:
		return &MalformedError{Fault: FaultScheme, Status: sip.StatusRequestedRangeNotSatisfiable, Phrase: "Unsupported URI Scheme"}
	}
	// What sipgo would write differently from what was received, it has not understood.
	var u sip.Uri
	if err := sip.ParseUri(uri, &u); err != nil || u.Wildcard || !strings.EqualFold(u.String(), uri) {
		return refuse(FaultStart, "Malformed Request-URI")
	}
	return nil
}

func (s *scanner) scanStatus(line string) *MalformedError {
	version, rest, ok1 := strings.Cut(line, " ")
	code, phrase, ok2 := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if !ok1 || !ok2 || !strings.EqualFold(version, "SIP/2.0") || len(code) != 3 || err != nil || n < 100 || n > 699 {
		return refuse(FaultStart, "Malformed status line")
	}
	s.raw.Status, s.raw.Phrase = n, phrase
	return nil
}

// checkCounts refuses repeated single fields and missing mandatory ones (RFC 3261 §8.1.1).
// A request without Max-Forwards passes: §16.3 has the proxy add it.
func (s *scanner) checkCounts() *MalformedError {
	var seen uint64 // a bit for each single field, and for Via
	via := uint64(1) << Other
	for i := range s.raw.Fields {
		f := &s.raw.Fields[i]
		switch {
		case f.ID == Via:
			seen |= via
		case !f.ID.isSingle():
		case seen&(1<<f.ID) != 0:
			err := refuse(FaultRepeated, "Repeated "+f.Name)
			err.Close = f.ID == ContentLength // two lengths are two messages to someone
			return err
		default:
			seen |= 1 << f.ID
		}
	}
	if seen&via == 0 {
		return refuse(FaultMissing, "Missing Via")
	}
	for _, n := range [...]Name{From, To, CallID, CSeq} {
		if seen&(1<<n) == 0 {
			return refuse(FaultMissing, "Missing "+spelled[n])
		}
	}
	return nil
}

func (s *scanner) checkValues() *MalformedError {
	for i := range s.raw.Fields {
		if err := s.checkValue(&s.raw.Fields[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkValue also writes anew what sipgo's parser would misread.
func (s *scanner) checkValue(f *Field) *MalformedError {
	switch f.ID {
	case CSeq:
		return s.checkCSeq(f)
	case ContentLength:
		n, err := parseDigits(f.Value, 32)
		if err != nil {
			e := refuse(FaultLength, "Malformed Content-Length")
			e.Close = true
			return e
		}
		// RFC 7118 §5: one message is one WebSocket message, so a length adds nothing but doubt.
		if n != int64(len(s.raw.Body)) {
			return refuse(FaultLength, "Content-Length is not the length of the body")
		}
	case CallID:
		if f.Value == "" || strings.ContainsAny(f.Value, " \t,;") {
			return refuse(FaultAddress, "Malformed Call-ID")
		}
	case MaxForwards:
		if n, err := parseDigits(f.Value, 32); err != nil || n > 255 {
			return refuse(FaultNumber, "Malformed Max-Forwards")
		}
	case Expires:
		if _, err := parseDeltaSeconds(f.Value); err != nil {
			return refuse(FaultNumber, "Malformed Expires")
		}
	case From, To:
		return s.checkParty(f)
	case Contact, Route, RecordRoute:
		return checkAddresses(f)
	}
	return nil
}

// checkCSeq reads 1*DIGIT LWS Method; RFC 3261 §8.1.1.5 keeps the number below 2**31.
func (s *scanner) checkCSeq(f *Field) *MalformedError {
	i := strings.IndexAny(f.Value, " \t")
	if i < 0 {
		return refuse(FaultCSeq, "Malformed CSeq")
	}
	num, method := f.Value[:i], trimLWS(f.Value[i:])
	if _, err := parseDigits(num, 31); err != nil || !IsToken(method) {
		return refuse(FaultCSeq, "Malformed CSeq")
	}
	if s.raw.Method != "" && method != s.raw.Method {
		return refuse(FaultCSeq, "CSeq method is not the request's")
	}
	if len(num)+1+len(method) != len(f.Value) || f.Value[i] != ' ' {
		f.Value = num + " " + method // sipgo wants exactly one space
	}
	return nil
}

func (s *scanner) checkParty(f *Field) *MalformedError {
	a, rest, err := cutAddress(f.Value)
	if err != nil || a.URI == "*" {
		return refuse(FaultAddress, "Malformed "+f.Name)
	}
	tagged := false
	for p, err := range params(rest) {
		if err != nil {
			return refuse(FaultAddress, "Malformed "+f.Name)
		}
		tagged = tagged || strings.EqualFold(p.Name, "tag")
	}
	// RFC 3261 §8.1.1.3: the From field must contain a tag.
	if !tagged && f.ID == From {
		return refuse(FaultMissing, "From without a tag")
	}
	if a.Display != "" || strings.ContainsAny(f.Value, " \t") {
		// sipgo would take white space for a part of the host or a name.
		a.Params, _ = parseParams(rest)
		f.Value = a.String()
	}
	return nil
}

func checkAddresses(f *Field) *MalformedError {
	for e := range ListElements(f.Value) {
		a, rest, err := cutAddress(e)
		if err != nil || f.ID != Contact && !a.Bracketed {
			return refuse(FaultAddress, "Malformed "+f.Name)
		}
		expires := false
		for p, err := range params(rest) {
			if err != nil {
				return refuse(FaultAddress, "Malformed "+f.Name)
			}
			if f.ID != Contact || expires || !strings.EqualFold(p.Name, "expires") {
				continue
			}
			expires = true
			if _, err := parseDeltaSeconds(p.text()); err != nil {
				return refuse(FaultNumber, "Malformed expires of a Contact")
			}
		}
	}
	return nil
}
