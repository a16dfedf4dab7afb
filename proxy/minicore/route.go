package minicore

import (
	"slices"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

const maxForwards = 70 // RFC 3261 §16.6 step 3

// target is one copy of a request: its Request-URI and the Route to put before what is left.
type target struct {
	uri     sip.Uri
	route   []sip.Uri
	binding *Binding   // the binding it comes from, or nil
	spare   []*Binding // other flows of the same device (RFC 5626 §7), best first
}

// nextHop is where the copy goes: the first Route, or the Request-URI (RFC 3261 §16.6 step 7).
func (t target) nextHop(req *sip.Request) *sip.Uri {
	if len(t.route) > 0 {
		return &t.route[0]
	}
	if r := req.Route(); r != nil {
		return &r.Address
	}
	return &t.uri
}

func targetOf(b Binding) target {
	return target{uri: *b.contact.Address.Clone(), route: b.path, binding: &b}
}

// handle answers or forwards a request other than ACK and CANCEL.
func (c *Core) handle(ex *exchange) {
	if isRegEvent(ex.req) {
		c.events.subscribe(ex)
		return
	}
	req := ex.req.Clone()
	var res *sip.Response
	var targets []target
	if req.Method == sip.REGISTER {
		res = c.register(req)
	} else {
		targets, res = c.route(req)
	}
	if res != nil {
		c.log.Debug("answer", "method", req.Method, "status", res.StatusCode, "call_id", callID(req))
		_ = ex.tx.Respond(res)
		if req.Method == sip.REGISTER && res.IsSuccess() {
			c.events.changed(c.aor(req.To().Address.User), "")
		}
		return
	}
	c.fork(ex, req, targets)
}

// route checks a request (RFC 3261 §16.3), takes our own Route off (§16.4) and
// determines its targets (§16.5). It returns a response where there are none.
func (c *Core) route(req *sip.Request) ([]target, *sip.Response) {
	if mf := req.MaxForwards(); mf != nil && mf.Val() == 0 {
		return nil, reply(req, sip.StatusTooManyHops, "Too Many Hops")
	}
	// A request has no cause to pass this core twice, so a Via of ours is a loop
	// (RFC 3261 §16.3 item 4, RFC 5393).
	for _, row := range sipext.Rows(req, "Via") {
		if via, ok := row.(*sip.ViaHeader); ok && c.self.is(via.Host, via.Port) {
			return nil, reply(req, sip.StatusLoopDetected, "Loop Detected")
		}
	}
	if tags := sipext.List(req, "Proxy-Require"); len(tags) > 0 {
		return nil, badExtension(req, tags)
	}
	c.stripOwnRoute(req)
	uri := req.Recipient
	inDialog := req.To().Params.Has("tag")
	switch {
	case req.Route() != nil:
		// The rest of a route set is the caller's business.
		return []target{{uri: uri}}, nil
	case c.isDomain(uri.Host) || c.self.is(uri.Host, uri.Port):
		return c.routeHome(req, inDialog)
	}
	// A contact of one of our bindings: through its Path. This mends an in-dialog
	// request whose route set was lost.
	if b, ok := c.where.byContact(uri.String()); ok {
		return []target{targetOf(b)}, nil
	}
	if inDialog {
		return []target{{uri: uri}}, nil
	}
	return nil, reply(req, sip.StatusNotFound, "Not Found: "+c.cfg.Domain+" is the only domain here")
}

// routeHome finds the devices of a user of ours.
func (c *Core) routeHome(req *sip.Request, inDialog bool) ([]target, *sip.Response) {
	user := req.Recipient.User
	if user == "" {
		if req.Method != sip.OPTIONS {
			return nil, reply(req, sip.StatusNotFound, "Not Found: the Request-URI names no user")
		}
		res := reply(req, sip.StatusOK, "OK")
		res.AppendHeader(sip.NewHeader("Allow", "REGISTER, INVITE, ACK, CANCEL, BYE, OPTIONS, MESSAGE, INFO, UPDATE, PRACK, REFER, SUBSCRIBE, NOTIFY"))
		res.AppendHeader(sip.NewHeader("Supported", "path, outbound"))
		return nil, res
	}
	if !inDialog && !c.knownCaller(req) {
		return nil, reply(req, sip.StatusForbidden, "Forbidden: the caller is no user of "+c.cfg.Domain)
	}
	if _, known := c.cfg.Users[user]; !known {
		return nil, reply(req, sip.StatusNotFound, "Not Found")
	}
	var targets []target
	for _, b := range c.where.of(c.aor(user)) {
		// RFC 5626 §7: one flow a device at a time, youngest first.
		i := slices.IndexFunc(targets, func(t target) bool {
			return b.Outbound && t.binding.Outbound && t.binding.Instance == b.Instance
		})
		if i >= 0 {
			targets[i].spare = append(targets[i].spare, &b)
			continue
		}
		targets = append(targets, targetOf(b))
	}
	if len(targets) == 0 {
		return nil, reply(req, sip.StatusTemporarilyUnavailable, "Temporarily Unavailable: no device is registered")
	}
	return targets, nil
}

// knownCaller reports whether the asserted identity, or without one the From, is a user
// of ours. The edge is believed: it authenticated the flow.
func (c *Core) knownCaller(req *sip.Request) bool {
	uris := []sip.Uri{req.From().Address}
	if rows := sipext.Rows(req, "P-Asserted-Identity"); len(rows) > 0 {
		uris = nil
		for _, row := range rows {
			for _, v := range splitList(row.Value()) {
				var u sip.Uri
				if _, err := sip.ParseAddressValue(v, &u, nil); err == nil {
					uris = append(uris, u)
				}
			}
		}
	}
	return slices.ContainsFunc(uris, func(u sip.Uri) bool {
		_, known := c.cfg.Users[u.User]
		return known && c.isDomain(u.Host)
	})
}

// stripOwnRoute removes our URIs from the top of the route set (RFC 3261 §16.4).
func (c *Core) stripOwnRoute(req *sip.Request) {
	for r := req.Route(); r != nil && (c.self.is(r.Address.Host, r.Address.Port) || c.isDomain(r.Address.Host)); r = req.Route() {
		req.RemoveHeader("Route")
	}
}

// copyFor makes the copy of req for t as RFC 3261 §16.6 numbers it.
func (c *Core) copyFor(req *sip.Request, t target, to peer) *sip.Request {
	out := req.Clone()             // step 1
	out.Recipient = *t.uri.Clone() // step 2
	// Step 3. A new header: Clone shares sipgo's Max-Forwards between copies.
	hops := sip.MaxForwardsHeader(maxForwards)
	if mf := req.MaxForwards(); mf != nil {
		hops = sip.MaxForwardsHeader(mf.Val() - 1)
	}
	sipext.Strip(out, "Max-Forwards")
	self := c.self.of(to.transport())
	via := &sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: to.transport(),
		Host: self.Addr().String(), Port: int(self.Port()),
	}
	via.Params.Add("branch", sip.GenerateBranchN(16))
	// Steps 4, 6 and 8; what is prepended last stands first.
	if c.cfg.RecordRoute && !req.To().Params.Has("tag") {
		rr := &sip.RecordRouteHeader{Address: sip.Uri{Scheme: "sip", Host: self.Addr().String(), Port: int(self.Port())}}
		if to.transport() == transportTCP {
			rr.Address.UriParams.Add("transport", "tcp")
		}
		rr.Address.UriParams.Add("lr", "")
		out.PrependHeader(rr)
	}
	for _, u := range slices.Backward(t.route) {
		out.PrependHeader(&sip.RouteHeader{Address: *u.Clone()})
	}
	out.PrependHeader(via, &hops)
	if t.binding != nil && c.isDomain(req.Recipient.Host) {
		// RFC 7315 §4.2: the Request-URI before it became the contact.
		sipext.Strip(out, "P-Called-Party-ID")
		out.AppendHeader(sip.NewHeader("P-Called-Party-ID", "<"+t.binding.AOR+">"))
	}
	return out
}

// forwardACK sends on the ACK of a 2xx, which has no transaction.
func (c *Core) forwardACK(ack *sip.Request) {
	targets, res := c.route(ack)
	if res != nil || len(targets) != 1 {
		c.log.Debug("drop an ACK", "call_id", callID(ack), "reason", "no route")
		return
	}
	to, err := c.peerFor(c.ctx, targets[0].nextHop(ack))
	if err == nil {
		err = to.WriteMsg(c.copyFor(ack, targets[0], to))
	}
	if err != nil {
		c.log.Debug("drop an ACK", "call_id", callID(ack), "err", err)
	}
}
