package minicore

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

const (
	// maxWatches bounds subscriptions: one a user and edge, and some that WICs make.
	maxWatches = 1000
	// watchLife is granted at most, and where none is asked for (RFC 3680 §4.3 says 3761 s).
	watchLife = time.Hour
)

// notifier is the reg event package (RFC 3680): who watches which user.
type notifier struct {
	core *Core

	mu      sync.Mutex        // guards below, and is held while NOTIFYs go out, in order
	watches map[string]*watch // by our tag
}

// watch is one subscription and its dialog, where we are the UAS.
type watch struct {
	aor      string
	callID   string
	tag      string       // ours
	local    string       // To of the SUBSCRIBE, without the tag
	remote   string       // From of the SUBSCRIBE
	target   sip.Uri      // its Contact
	routes   []sip.Header // its Record-Route as Route (RFC 3261 §12.1.1)
	expires  time.Time
	seq      uint32
	version  uint32
	bindings []Binding // as last told
}

func newNotifier(c *Core) *notifier { return &notifier{core: c, watches: map[string]*watch{}} }

func isRegEvent(req *sip.Request) bool {
	name, _, _ := strings.Cut(headerValue(req, "Event"), ";")
	return req.Method == sip.SUBSCRIBE && strings.EqualFold(strings.TrimSpace(name), "reg")
}

// subscribe answers a SUBSCRIBE to the reg event package; the NOTIFY follows the answer.
func (n *notifier) subscribe(ex *exchange) {
	req := ex.req
	tag, _ := req.To().Params.Get("tag")
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.watches[tag]
	var res *sip.Response
	switch {
	case tag != "" && (w == nil || w.callID != callID(req)):
		res = reply(req, sip.StatusCallTransactionDoesNotExists, "Subscription does not exist")
	case tag == "":
		w, res = n.newWatch(req)
	}
	if res != nil {
		_ = ex.tx.Respond(res)
		return
	}
	life := watchLife
	if v, err := strconv.ParseUint(headerValue(req, "Expires"), 10, 32); err == nil {
		life = min(time.Duration(v)*time.Second, watchLife)
	}
	w.expires = n.core.cfg.Now().Add(life)
	res = reply(req, sip.StatusOK, "OK")
	if tag == "" {
		sipext.Strip(res, "To")
		res.AppendHeader(sip.NewHeader("To", w.local+";tag="+w.tag))
		for _, row := range sipext.Rows(req, "Record-Route") {
			res.AppendHeader(sip.NewHeader("Record-Route", row.Value()))
		}
	}
	sipext.Strip(res, "Contact")
	res.AppendHeader(sip.NewHeader("Contact", n.contact(req.Transport())))
	res.AppendHeader(sip.NewHeader("Expires", seconds(life)))
	_ = ex.tx.Respond(res)
	n.tell(w, n.core.where.of(w.aor), "")
}

// newWatch enters a subscription, or refuses it. A user may watch himself, and a node of
// the domain, which has no user part, everyone.
func (n *notifier) newWatch(req *sip.Request) (*watch, *sip.Response) {
	c := n.core
	contact := req.Contact()
	if contact == nil {
		return nil, reply(req, sip.StatusBadRequest, "Bad Request: no Contact")
	}
	user := req.Recipient.User
	if _, known := c.cfg.Users[user]; !known || !c.isDomain(req.Recipient.Host) {
		return nil, reply(req, sip.StatusNotFound, "Not Found")
	}
	who := req.From().Address
	if rows := sipext.Rows(req, "P-Asserted-Identity"); len(rows) > 0 {
		if _, err := sip.ParseAddressValue(rows[0].Value(), &who, nil); err != nil {
			return nil, reply(req, sip.StatusBadRequest, "Bad Request: malformed P-Asserted-Identity")
		}
	}
	if who.User != "" && (who.User != user || !c.isDomain(who.Host)) {
		return nil, reply(req, sip.StatusForbidden, "Forbidden: the registration is another user's")
	}
	if len(n.watches) >= maxWatches {
		return nil, reply(req, sip.StatusServiceUnavailable, "Service Unavailable")
	}
	w := &watch{
		aor: c.aor(user), callID: callID(req), tag: sip.GenerateTagN(16),
		local: headerValue(req, "To"), remote: headerValue(req, "From"), target: *contact.Address.Clone(),
	}
	for _, row := range sipext.Rows(req, "Record-Route") {
		for _, v := range splitList(row.Value()) {
			var u sip.Uri
			if _, err := sip.ParseAddressValue(v, &u, nil); err != nil {
				return nil, reply(req, sip.StatusBadRequest, "Bad Request: malformed Record-Route")
			}
			w.routes = append(w.routes, &sip.RouteHeader{Address: u})
		}
	}
	n.watches[w.tag] = w
	return w, nil
}

func (n *notifier) contact(transport string) string {
	self := n.core.self.of(transport)
	if self != n.core.self.udp {
		return "<sip:" + self.String() + ";transport=tcp>"
	}
	return "<sip:" + self.String() + ">"
}

// changed tells the watchers of a user what is new. event says why bindings are gone; ""
// leaves it to their expiry.
func (n *notifier) changed(aor, event string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.watches {
		if w.aor != aor {
			continue
		}
		now := n.core.where.of(aor)
		if !slices.EqualFunc(now, w.bindings, func(a, b Binding) bool { return a.seq == b.seq && a.Expires.Equal(b.Expires) }) {
			n.tell(w, now, event)
		}
	}
}

// run tells of what ends by itself: bindings and subscriptions.
func (n *notifier) run() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-n.core.ctx.Done():
			return
		case <-tick.C:
		}
		n.mu.Lock()
		now, aors := n.core.cfg.Now(), map[string]bool{}
		for _, w := range n.watches {
			if !now.Before(w.expires) {
				n.tell(w, n.core.where.of(w.aor), "")
			}
			aors[w.aor] = true
		}
		n.mu.Unlock()
		for aor := range aors {
			n.changed(aor, "")
		}
	}
}

// tell sends one NOTIFY with the full state, and what has ended since the last one. n.mu
// is held.
func (n *notifier) tell(w *watch, now []Binding, event string) {
	c := n.core
	left := w.expires.Sub(c.cfg.Now())
	state := "active;expires=" + seconds(max(left, 0))
	if left <= 0 {
		state = "terminated;reason=timeout"
		delete(n.watches, w.tag)
	}
	body := w.document(c.cfg.Now(), now, event)
	w.bindings = now
	w.version++
	w.seq++
	req := sip.NewRequest(sip.NOTIFY, *w.target.Clone())
	id, hops := sip.CallIDHeader(w.callID), sip.MaxForwardsHeader(maxForwards)
	for _, row := range append([]sip.Header{
		&hops, sip.NewHeader("From", w.local+";tag="+w.tag), sip.NewHeader("To", w.remote), &id,
		&sip.CSeqHeader{SeqNo: w.seq, MethodName: sip.NOTIFY},
		sip.NewHeader("Event", "reg"), sip.NewHeader("Subscription-State", state),
		sip.NewHeader("Content-Type", "application/reginfo+xml"),
	}, w.routes...) {
		req.AppendHeader(row)
	}
	req.SetBody(body)
	hop := w.target
	if r := req.Route(); r != nil {
		hop = r.Address
	}
	to, err := c.peerFor(c.ctx, &hop)
	if err != nil {
		c.log.Debug("NOTIFY not sent", "impu", w.aor, "err", err)
		delete(n.watches, w.tag)
		return
	}
	req.AppendHeader(sip.NewHeader("Contact", n.contact(to.transport())))
	self := c.self.of(to.transport())
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: to.transport(), Host: self.Addr().String(), Port: int(self.Port())}
	via.Params.Add("branch", sip.GenerateBranchN(16))
	req.PrependHeader(via)
	tx, err := c.startClient(req, to)
	if err != nil {
		return
	}
	c.wg.Go(func() { n.await(w, tx) })
}

// await drops a subscription whose NOTIFY is refused or not answered (RFC 6665 §4.2.2).
func (n *notifier) await(w *watch, tx *sip.ClientTx) {
	defer tx.Terminate()
	for {
		select {
		case res := <-tx.Responses():
			if res.IsProvisional() {
				continue
			}
			if res.IsSuccess() {
				return
			}
		case <-tx.Done():
		case <-n.core.ctx.Done():
			return
		}
		n.mu.Lock()
		delete(n.watches, w.tag)
		n.mu.Unlock()
		return
	}
}

// The document as encoding/xml writes it (RFC 3680 §5.4).
type (
	xmlReginfo struct {
		XMLName      xml.Name        `xml:"urn:ietf:params:xml:ns:reginfo reginfo"`
		Version      uint32          `xml:"version,attr"`
		State        string          `xml:"state,attr"`
		Registration xmlRegistration `xml:"registration"`
	}
	xmlRegistration struct {
		AOR      string       `xml:"aor,attr"`
		ID       string       `xml:"id,attr"`
		State    string       `xml:"state,attr"`
		Contacts []xmlContact `xml:"contact"`
	}
	xmlContact struct {
		ID         string     `xml:"id,attr"`
		State      string     `xml:"state,attr"`
		Event      string     `xml:"event,attr"`
		Expires    string     `xml:"expires,attr,omitempty"`
		RetryAfter string     `xml:"retry-after,attr,omitempty"`
		CallID     string     `xml:"callid,attr"`
		CSeq       uint32     `xml:"cseq,attr"`
		URI        string     `xml:"uri"`
		Params     []xmlParam `xml:"unknown-param"`
	}
	xmlParam struct {
		Name  string `xml:"name,attr"`
		Value string `xml:",chardata"`
	}
)

// document writes the full state, with the contacts that have ended since the last one.
func (w *watch) document(at time.Time, now []Binding, event string) []byte {
	r := xmlRegistration{AOR: w.aor, ID: "r1", State: "active"}
	for _, b := range now {
		c := contactOf(b)
		c.State, c.Event, c.Expires = "active", "registered", seconds(b.Expires.Sub(at)+time.Second-1)
		if i := slices.IndexFunc(w.bindings, func(o Binding) bool { return o.Contact == b.Contact }); i >= 0 {
			c.Event = "refreshed"
			if b.Expires.Before(w.bindings[i].Expires) {
				c.Event = "shortened"
			}
		}
		r.Contacts = append(r.Contacts, c)
	}
	for _, b := range w.bindings {
		if slices.ContainsFunc(now, func(o Binding) bool { return o.Contact == b.Contact }) {
			continue
		}
		c := contactOf(b)
		c.State, c.Event = "terminated", cmp.Or(event, "unregistered")
		switch {
		case event == "" && !at.Before(b.Expires):
			c.Event = "expired"
		case event == "probation":
			c.RetryAfter = "30"
		}
		r.Contacts = append(r.Contacts, c)
	}
	if len(now) == 0 {
		r.State = "init"
		if len(w.bindings) > 0 {
			r.State = "terminated"
		}
	}
	// Only strings and numbers: it cannot fail.
	body, _ := xml.Marshal(xmlReginfo{Version: w.version, State: "full", Registration: r})
	return append([]byte(xml.Header), body...)
}

func contactOf(b Binding) xmlContact {
	c := xmlContact{ID: fmt.Sprintf("c%d", b.seq), URI: b.Contact, CallID: b.CallID, CSeq: b.CSeq}
	if b.Instance != "" {
		c.Params = append(c.Params, xmlParam{"+sip.instance", `"` + b.Instance + `"`})
	}
	if b.RegID != 0 {
		c.Params = append(c.Params, xmlParam{"reg-id", strconv.Itoa(b.RegID)})
	}
	return c
}

// Terminate ends all bindings of a user, as an operator of a core may, and tells those who
// watch by which event (RFC 3680 §3.2): deactivated, probation, unregistered or rejected.
func (c *Core) Terminate(aor, event string) error {
	if !slices.Contains([]string{"deactivated", "probation", "unregistered", "rejected"}, event) {
		return fmt.Errorf("minicore: %q ends no registration: use deactivated, probation, unregistered or rejected", event)
	}
	if len(c.where.of(aor)) == 0 {
		return errors.New("minicore: " + aor + " is not registered")
	}
	c.where.clear(aor, "", 0)
	c.log.Info("terminate", "impu", aor, "reason", event)
	return c.do(func() { c.events.changed(aor, event) })
}

// Shorten lets all bindings of a user end after left, where they would live longer, and
// tells those who watch.
func (c *Core) Shorten(aor string, left time.Duration) error {
	if !c.where.shorten(aor, c.cfg.Now().Add(left)) {
		return errors.New("minicore: " + aor + " has no binding that lives longer")
	}
	return c.do(func() { c.events.changed(aor, "") })
}

// do runs f while the core serves: what f starts is waited for.
func (c *Core) do(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || c.stopped {
		return errors.New("minicore: not serving")
	}
	f()
	return nil
}
