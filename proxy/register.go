package proxy

import (
	"hash/maphash"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// contact is one Contact of a REGISTER or of its 200.
type contact struct {
	uri      string
	instance string
	regID    string
	expires  int           // seconds, or -1 where not given
	life     time.Duration // that the core has granted; 0: none
}

func contacts(m *sipext.Message) []contact {
	all := make([]contact, 0, 1)
	for e := range m.Elements(sipext.Contact) {
		a, err := sipext.ParseAddress(e)
		if err != nil {
			continue
		}
		c := contact{uri: a.URI, expires: -1}
		c.instance, _ = a.Params.Get("+sip.instance")
		if c.instance != "" { // RFC 5626 §4.2: reg-id without an instance means nothing
			c.regID, _ = a.Params.Get("reg-id")
		}
		if v, ok := a.Params.Get("expires"); ok {
			c.expires = seconds(v)
		}
		all = append(all, c)
	}
	return all
}

// seconds reads delta-seconds; -1 where it is none.
func seconds(s string) int {
	n, err := strconv.ParseUint(strings.Trim(s, " \t"), 10, 32)
	if err != nil {
		return -1
	}
	return int(min(n, 1<<31-1))
}

// matches reports whether c is the binding with that contact, instance and reg-id: by
// instance and reg-id where there is one (RFC 5626 §6), else by URI.
func (c contact) matches(uri, instance, regID string) bool {
	if c.instance != "" || instance != "" {
		return c.instance == instance && c.regID == regID
	}
	return sameURI(c.uri, uri)
}

func (c contact) binding() turncred.Binding {
	if c.instance != "" {
		return turncred.BindingOf(c.instance, c.regID)
	}
	return turncred.BindingOf(c.uri, "")
}

// wish is what a REGISTER asks for.
type wish struct {
	aor      IMPU
	contacts []contact
	expires  int // of the Expires header, or -1
	who      claim
	wanted   bool // a credential
}

// register forwards a REGISTER to the core (TS 24.229 5.2.2.1). The error is a
// *sipext.MalformedError.
func (p *Proxy) register(m *sipext.Message, f *Flow) error {
	id, ok := registeredParty(m)
	if !ok {
		return malformedHeader(m)
	}
	f.sawRegister.Store(true)
	key := serverKey(f.id, m, sip.REGISTER)
	if f.isRegistering(key) || !p.admitRequest(m, f, key) {
		return nil
	}
	r := p.newRegistering(m, f, key)
	r.aor, r.expires = id, -1
	if p.cfg.Bearer != nil && p.registerByToken(r) {
		return nil
	}
	if refusal := p.prepareRegister(r); refusal != nil {
		r.refuse(refusal)
		return nil
	}
	r.start()
	return nil
}

// registeredParty reads who is registered, To, and reports whether From has a URI too.
func registeredParty(m *sipext.Message) (IMPU, bool) {
	to, from := m.First(sipext.To), m.First(sipext.From)
	u, ok := parseURI(to)
	if !strings.HasSuffix(to, ">") || !strings.HasPrefix(from, to) { // else it is the same URI
		_, fromOK := parseURI(from)
		ok = ok && fromOK
	}
	return aor(&u), ok
}

// prepareRegister rewrites a REGISTER for the core, or says why not.
func (p *Proxy) prepareRegister(r *registering) (refused *refusal) {
	req, f := r.req, r.f
	if r.loop, refused = p.checkProxied(req, peer{flow: f}); refused != nil {
		return refused
	}
	var err error
	if r.wanted, err = req.TurnCredWanted(); err != nil {
		return &refusal{status: sip.StatusBadRequest, phrase: "Malformed " + sipext.TurnCredHeader}
	}
	var given []credentials
	if given, err = p.takeCredentials(r); err != nil {
		return &refusal{status: sip.StatusBadRequest, phrase: "Malformed Authorization"}
	}
	r.contacts = contacts(req)
	if v := req.First(sipext.Expires); v != "" {
		r.expires = seconds(v)
	}
	if f.registrationCount() >= p.cfg.Limits.Bindings && len(f.registrationsOf(r.aor)) == 0 {
		return &refusal{status: sip.StatusForbidden, phrase: "Too many registrations on this flow"}
	}
	p.expectLeaves(r)
	asked.clean(req)
	req.Remove(sipext.Route)
	p.cfg.authorize(f, req, given, r.aor)
	if len(given) == 0 {
		// TS 33.203 P.3: the core chooses how to authenticate by the access.
		req.Add(sipext.PAccessNetworkInfo, p.cfg.AccessNetwork+";network-provided")
	}
	requirePath(req)
	req.Add(sipext.PVisitedNetworkID, p.visited)
	req.Add(sipext.PChargingVector, p.chargingVector())
	decrementRow(req)
	return nil
}

// requirePath makes a registrar without RFC 3327 refuse, rather than lose our Path (§5.2).
func requirePath(req *sipext.Message) {
	for tag := range req.Elements(sipext.Require) {
		if strings.EqualFold(tag, "path") {
			return
		}
	}
	req.Add(sipext.Require, "path")
}

// registerResponse edits a response on its way to the WIC, and acts on a 2xx before it
// leaves.
func (p *Proxy) registerResponse(r *registering, res *sipext.Message) {
	charging := slices.Collect(res.Rows(sipext.PChargingFunctionAddresses))
	outward.clean(res)
	if isSuccess(res.Status) {
		p.offerKeepAlive(res)
		p.finishRegister(r, res, charging)
	}
}

func isSuccess(status int) bool { return status >= 200 && status < 300 }

// finishRegister takes over what the core has granted: bindings, and with them the reason
// for credentials.
func (p *Proxy) finishRegister(r *registering, res *sipext.Message, charging []string) {
	var bound *Registration
	var left time.Duration
	for _, c := range r.contacts {
		switch {
		case c.uri == "*":
			p.unbindAll(r)
		case c.life <= 0:
			p.unbind(r, c)
		default:
			reg := p.bind(r, c, res, charging)
			if bound == nil {
				bound, left = reg, c.life
			}
			r.stand(reg)
		}
	}
	// Only a 200 that leaves a contact of this flow bound carries a credential.
	if bound != nil && r.wantsCredential() {
		res.Add(sipext.TurnCredField, p.answerWish(bound, left))
	}
}

func (r *registering) wantsCredential() bool { return r.wanted || r.p.cfg.Offer == OfferAlways }

// ends reports whether the REGISTER asks to end the binding of c.
func (r *registering) ends(c contact) bool { return c.expires == 0 || c.expires < 0 && r.expires == 0 }

// expectLeaves notes which registrations the REGISTER is to end, or to replace from a new
// flow.
func (p *Proxy) expectLeaves(r *registering) {
	f := r.f
	for _, c := range r.contacts {
		for _, reg := range f.registrationsOf(r.aor) {
			if r.ends(c) && (c.uri == "*" || c.matches(reg.contact, reg.instance, reg.regID)) {
				reg.expectLeave()
			}
		}
		if reg := p.regs.speaker(bindingKey{p.impi(r, nil), c.binding()}); reg != nil && reg.flow != f && reg.aor == r.aor {
			reg.expectLeave()
		}
	}
}

// grant notes how long the core keeps each contact: by the expires of the same contact in
// the 200, else by its Expires header, else by what was asked (RFC 3261 §10.2.4). A 200
// without the contact leaves it unbound.
func (r *registering) grant(res *sipext.Message) {
	granted := contacts(res)
	for i := range r.contacts {
		c := &r.contacts[i]
		of := slices.IndexFunc(granted, func(g contact) bool { return g.matches(c.uri, c.instance, c.regID) || sameURI(g.uri, c.uri) })
		if of < 0 || r.ends(*c) {
			continue
		}
		n := granted[of].expires
		if v := res.First(sipext.Expires); n < 0 && v != "" {
			n = seconds(v)
		}
		for _, asked := range []int{c.expires, r.expires, 3600} {
			if n < 0 {
				n = asked
			}
		}
		c.life = r.withinToken(c, time.Duration(n)*time.Second)
	}
}

// bind keeps or refreshes a registration on the flow.
func (p *Proxy) bind(r *registering, c contact, res *sipext.Message, charging []string) *Registration {
	f := r.f
	old := f.findRegistration(r.aor, c)
	id := bindingIdentity{
		aor: r.aor, impi: p.impi(r, old), binding: c.binding(),
		authorized: r.who.answered || old != nil && old.identity().authorized,
		expires:    p.cfg.Now().Add(c.life),
		token:      tokenFor(r.who, old),
	}
	grant := p.grantSum(c, res, charging)
	if old != nil && p.regs.speaker(id.key()) == old && old.refresh(id, grant) {
		p.events.join(old, old)
		return old
	}
	reg := &Registration{
		p: p, flow: f, aor: r.aor, contact: strings.Clone(c.uri), instance: strings.Clone(c.instance), regID: strings.Clone(c.regID),
		serviceRoute: cloned(res.Elements(sipext.ServiceRoute)), charging: cloned(slices.Values(charging)),
		associated: associated(res), grant: grant, ident: id,
	}
	before := p.regs.own(reg)
	if old != nil {
		old.stopTimer()
		p.regs.release(old) // its private identity may have been another
	}
	if before != nil {
		p.replace(before, reg)
	}
	if old != nil {
		p.events.join(reg, old)
	} else {
		p.events.join(reg, before)
	}
	if !f.keepRegistration(reg, old) {
		// The flow went while the core answered: the same grace as for any lost flow.
		reg.arm(min(p.cfg.FlowGrace, c.life), reg.graceOver)
		return reg
	}
	reg.armExpiry()
	if old == nil {
		p.adoptDialogs(id.key(), f) // of the flow that the device has had before
		p.log.Info("registered", "flow", f.id, "impu", string(r.aor), "expires", c.life)
	}
	return reg
}

// replace takes a binding off the flow that it was on. The registrar has it once: "the
// registrar MUST replace" what has the same instance and reg-id (RFC 5626 §6). That flow
// speaks for the user no more, and it is the device's own business to close it.
func (p *Proxy) replace(before, now *Registration) {
	same := contact{uri: now.contact, instance: now.instance, regID: now.regID}
	if before.flow == now.flow || before.aor != now.aor || !same.matches(before.contact, before.instance, before.regID) {
		return
	}
	before.stopTimer()
	before.flow.dropRegistration(before)
	p.log.Info("registered on another flow", "flow", now.flow.id, "impu", string(now.aor), "reason", "replaces the one before")
}

// impi is the private identity that the core has authenticated: the Digest username of
// this REGISTER where it answered a challenge, or of the one that it refreshes. Without
// any it is derived from the public one (TS 23.003 §13.2).
func (p *Proxy) impi(r *registering, old *Registration) turncred.IMPI {
	switch {
	case r.who.answered:
		return r.who.impi
	case old != nil:
		return old.identity().impi
	}
	_, id, _ := strings.Cut(string(r.aor), ":")
	return p.cfg.impi(id)
}

func associated(res *sipext.Message) []IMPU {
	var all []IMPU
	for e := range res.Elements(sipext.PAssociatedURI) {
		if u, ok := parseURI(e); ok {
			all = append(all, aor(&u))
		}
	}
	return all
}

// cloned collects strings that are parts of a message: they would pin all of it in memory, and
// these stay for as long as the binding.
func cloned(parts iter.Seq[string]) []string {
	var all []string
	for s := range parts {
		all = append(all, strings.Clone(s))
	}
	return all
}

// grantSum sums up what a Registration keeps of a 200, so that a refresh that changes nothing
// is known without reading it again.
func (p *Proxy) grantSum(c contact, res *sipext.Message, charging []string) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	write := func(kind byte, s string) {
		_ = h.WriteByte(kind)
		_, _ = h.WriteString(s)
	}
	write(0, c.uri)
	write(0, c.instance)
	write(0, c.regID)
	for i := range res.Fields {
		switch f := &res.Fields[i]; f.ID {
		case sipext.ServiceRoute, sipext.PAssociatedURI:
			write(byte(f.ID), f.Value)
		}
	}
	for _, v := range charging {
		write(byte(sipext.PChargingFunctionAddresses), v)
	}
	return h.Sum64()
}

// unbind ends one binding: it is revoked before the 200 leaves, for 1 s at most.
func (p *Proxy) unbind(r *registering, c contact) {
	f := r.f
	reg := f.findRegistration(r.aor, c)
	scope := turncred.Scope{IMPI: p.impi(r, reg), Binding: c.binding()}
	if reg != nil {
		reg.stopTimer()
		f.dropRegistration(reg)
		p.regs.release(reg)
		p.events.leave(reg)
		scope = reg.scope(false)
	}
	p.log.Info("deregistered", "flow", f.id, "impu", string(r.aor))
	p.revoke(causeDeregistered, scope)
}

// unbindAll ends all bindings of the user (Contact: *), on the user's other flows too,
// since the registrar has dropped them (RFC 3261 §10.2.2).
func (p *Proxy) unbindAll(r *registering) {
	f := r.f
	var known *Registration
	for _, o := range p.flows.all() {
		for _, reg := range o.registrationsOf(r.aor) {
			if o == f {
				known = reg
			}
			reg.stopTimer()
			o.dropRegistration(reg)
			p.regs.release(reg)
			p.events.leave(reg)
		}
	}
	p.log.Info("deregistered", "flow", f.id, "impu", string(r.aor), "reason", "all contacts")
	p.revoke(causeDeregistered, turncred.Scope{IMPI: p.impi(r, known), AllBindings: true})
}
