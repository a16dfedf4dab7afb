package minicore

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// Status codes that sipgo has no constant for.
const (
	statusFlowFailed           = 430 // RFC 5626 §11.5
	statusFirstHopLacksOutbond = 439 // RFC 5626 §11.6
)

// understood are the option tags that a REGISTER may require.
var understood = []string{"path", "outbound"}

// register answers a REGISTER by the steps of RFC 3261 §10.3.
func (c *Core) register(req *sip.Request) *sip.Response {
	// Step 1: a registrar for this domain only.
	if !c.isDomain(req.Recipient.Host) {
		return reply(req, sip.StatusNotFound, "Not Found: "+c.cfg.Domain+" is the only domain here")
	}
	// Step 2: required extensions.
	if bad := unsupported(sipext.List(req, "Require"), understood); len(bad) > 0 {
		return badExtension(req, bad)
	}
	// Steps 3 and 4: who it is, and whether it may register this AOR. The From
	// differs in a third-party registration, which this core has no use for.
	user, v := c.vouchedFor(req)
	if v != accepted {
		user, v = c.auth.check(req)
	}
	switch v {
	case malformed:
		return reply(req, sip.StatusBadRequest, "Bad Request: malformed Authorization")
	case rejected, stale:
		res := reply(req, sip.StatusUnauthorized, "Unauthorized")
		for _, row := range c.auth.challenges(v == stale) {
			res.AppendHeader(row)
		}
		return res
	case accepted:
	}
	to := req.To().Address
	if !c.isDomain(to.Host) {
		return reply(req, sip.StatusNotFound, "Not Found")
	}
	if to.User != user {
		return reply(req, sip.StatusForbidden, "Forbidden: this password is another user's")
	}
	// Steps 5 to 8.
	aor := c.aor(user)
	res := c.bind(req, aor)
	if res == nil {
		res = c.registered(req, aor, user)
	}
	c.log.Info("register", "impu", aor, "status", res.StatusCode, "call_id", callID(req), "bindings", len(c.where.of(aor)))
	return res
}

// vouchedFor returns the user whom a trusted eP-CSCF has authenticated itself.
func (c *Core) vouchedFor(req *sip.Request) (user string, v verdict) {
	from, err := netip.ParseAddrPort(req.Source())
	if err != nil || !slices.Contains(c.cfg.TrustedEdges, from.Addr().Unmap()) {
		return "", rejected
	}
	for _, row := range sipext.Rows(req, "Authorization") {
		scheme, rest, _ := strings.Cut(row.Value(), " ")
		params, err := sipext.ParseAuthParams(rest)
		if err != nil || !strings.EqualFold(scheme, "Digest") {
			continue
		}
		name, _ := params.Get("username")
		realm, _ := params.Get("realm")
		protected, _ := params.Get("integrity-protected")
		user := strings.TrimSuffix(name, "@"+c.cfg.Domain)
		if _, known := c.cfg.Users[user]; known && realm == c.cfg.Domain && protected == "auth-done" {
			return user, accepted
		}
	}
	return "", rejected
}

// bind applies the contacts. It returns nil where all went well.
func (c *Core) bind(req *sip.Request, aor string) *sip.Response {
	rows := sipext.Rows(req, "Contact")
	path, err := pathOf(req)
	if err != nil {
		return reply(req, sip.StatusBadRequest, "Bad Request: "+err.Error())
	}
	proto := Binding{AOR: aor, path: path, CallID: callID(req), CSeq: req.CSeq().SeqNo}
	for _, u := range path {
		proto.Path = append(proto.Path, "<"+u.String()+">")
	}
	var contacts []Binding
	for _, row := range rows {
		contact, ok := row.(*sip.ContactHeader)
		if !ok {
			return reply(req, sip.StatusBadRequest, "Bad Request: malformed Contact")
		}
		if contact.Address.Wildcard {
			// Step 6: "*" stands alone and with Expires: 0.
			if len(rows) != 1 || headerValue(req, "Expires") != "0" {
				return reply(req, sip.StatusBadRequest, `Bad Request: "*" needs Expires: 0 and no other Contact`)
			}
			if !c.where.clear(aor, proto.CallID, proto.CSeq) {
				return reply(req, sip.StatusInternalServerError, "Out of Order")
			}
			return nil
		}
		b, res := c.binding(req, proto, contact)
		if res != nil {
			return res
		}
		contacts = append(contacts, b)
	}
	if len(contacts) > maxBindings {
		return reply(req, sip.StatusBadRequest, fmt.Sprintf("Bad Request: more than %d Contacts", maxBindings))
	}
	if !c.where.update(aor, contacts) {
		return reply(req, sip.StatusInternalServerError, "Out of Order")
	}
	return nil
}

// binding reads one Contact into a copy of proto.
func (c *Core) binding(req *sip.Request, proto Binding, contact *sip.ContactHeader) (Binding, *sip.Response) {
	life, err := c.lifetime(req, contact)
	if err != nil {
		return proto, reply(req, sip.StatusBadRequest, "Bad Request: "+err.Error())
	}
	if life > 0 && life < c.cfg.MinExpires {
		res := reply(req, sip.StatusIntervalToBrief, "Interval Too Brief")
		res.AppendHeader(sip.NewHeader("Min-Expires", seconds(c.cfg.MinExpires)))
		return proto, res
	}
	b := proto
	b.Expires = c.cfg.Now().Add(min(life, c.cfg.MaxExpires))
	b.Contact = contact.Address.String()
	b.contact = contact.Clone()
	b.contact.Params.Remove("expires")
	b.contact.Params.Remove("q")
	instance, _ := contact.Params.Get("+sip.instance")
	b.Instance = strings.Trim(instance, `"`)
	regID, _ := contact.Params.Get("reg-id")
	// RFC 5626 §6: reg-id counts with an instance and the UA's word that it supports outbound.
	if regID == "" || b.Instance == "" || !hasToken(sipext.List(req, "Supported"), "outbound") {
		return b, nil
	}
	if b.RegID, err = strconv.Atoi(regID); err != nil || b.RegID < 1 || b.RegID > 1<<31-1 {
		return b, reply(req, sip.StatusBadRequest, "Bad Request: reg-id is out of range")
	}
	b.Outbound = true
	// "If the Path header field value of the first hop lacks ob": the last Path is
	// the edge proxy's, since each proxy puts its own before the others.
	if n := len(b.path); n > 0 && !b.path[n-1].UriParams.Has("ob") {
		return b, reply(req, statusFirstHopLacksOutbond, "First Hop Lacks Outbound Support")
	}
	return b, nil
}

// lifetime returns the expiry that a Contact asks for: its own, the message's, or ours.
func (c *Core) lifetime(req *sip.Request, contact *sip.ContactHeader) (time.Duration, error) {
	v, ok := contact.Params.Get("expires")
	if !ok {
		if v = headerValue(req, "Expires"); v == "" {
			return c.cfg.MaxExpires, nil
		}
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("expires is no number of seconds")
	}
	return time.Duration(n) * time.Second, nil
}

// registered is the 200: all bindings of the AOR with what is left of their lives.
func (c *Core) registered(req *sip.Request, aor, user string) *sip.Response {
	res := reply(req, sip.StatusOK, "OK")
	now := c.cfg.Now()
	outbound := false
	for _, b := range c.where.of(aor) {
		contact := b.contact.Clone()
		// Rounded up: a client that sees 0 takes its binding for gone.
		contact.Params.Add("expires", seconds(b.Expires.Sub(now)+time.Second-1))
		res.AppendHeader(contact)
		outbound = outbound || b.Outbound && b.CallID == callID(req)
	}
	// RFC 3327 §5.3: the Path goes back to the UA, which may look for tampering.
	for _, row := range sipext.Rows(req, "Path") {
		res.AppendHeader(sip.NewHeader("Path", row.Value()))
	}
	// RFC 3608 §6.3: "orig" marks requests that the user originates.
	self := c.self.of(req.Transport())
	route := "<sip:orig@" + self.String()
	if self != c.self.udp {
		route += ";transport=tcp"
	}
	res.AppendHeader(sip.NewHeader("Service-Route", route+";lr>"))
	res.AppendHeader(sip.NewHeader("P-Associated-URI", "<"+c.aor(user)+">"))
	res.AppendHeader(sip.NewHeader("Supported", strings.Join(understood, ", ")))
	if outbound {
		res.AppendHeader(sip.NewHeader("Require", "outbound")) // RFC 5626 §6
	}
	return res
}

// pathOf returns the Path of a REGISTER in order; each row may hold a list.
func pathOf(req *sip.Request) ([]sip.Uri, error) {
	var path []sip.Uri
	for _, row := range sipext.Rows(req, "Path") {
		for _, v := range splitList(row.Value()) {
			var u sip.Uri
			if _, err := sip.ParseAddressValue(v, &u, nil); err != nil || u.Host == "" || u.Raw() != "" {
				return nil, fmt.Errorf("malformed Path")
			}
			path = append(path, u)
		}
	}
	return path, nil
}

// splitList splits a header value at commas outside quotes and angle brackets.
func splitList(s string) []string {
	var parts []string
	start, depth, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case quoted && ch == '\\':
			i++
		case ch == '"':
			quoted = !quoted
		case quoted:
		case ch == '<':
			depth++
		case ch == '>':
			depth--
		case ch == ',' && depth == 0:
			parts = append(parts, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(parts, strings.TrimSpace(s[start:]))
}

func unsupported(tags, understood []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return hasToken(understood, t) })
}

func hasToken(list []string, token string) bool {
	return slices.ContainsFunc(list, func(t string) bool { return strings.EqualFold(t, token) })
}

func badExtension(req *sip.Request, tags []string) *sip.Response {
	res := reply(req, sip.StatusBadExtension, "Bad Extension")
	res.AppendHeader(sip.NewHeader("Unsupported", strings.Join(tags, ", ")))
	return res
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
