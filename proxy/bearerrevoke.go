package proxy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// reasonRevoked is why the edge ends the calls of a revoked token (RFC 3326).
const reasonRevoked = `SIP;cause=403;text="Authorization revoked"`

// RevokeToken ends at once what stands on a token, named by its ID or its Grant: registrations,
// with BYE to both sides of their calls, and TURN credentials. The core is told, and a
// WebSocket that is left without a registration is closed. It waits for the relay, or until ctx
// has ended, and returns how many registrations there were.
//
// A token that comes later is for the Verifier to refuse: the edge remembers a revocation only
// for as long as a REGISTER may be on its way.
func (p *Proxy) RevokeToken(ctx context.Context, id string) (ended int, err error) {
	p.revoked.add(id, p.cfg.Now()) // first, so that whoever binds or provisions after our look sees it
	var work sync.WaitGroup
	for r := range p.standingOn(id) {
		ended++
		work.Add(1)
		if !p.start(func() { defer work.Done(); p.endRevoked(r) }) {
			work.Done()
		}
	}
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	select {
	case <-done:
		return ended, nil
	case <-ctx.Done():
		return ended, ctx.Err()
	}
}

// standingOn finds the registrations that stand on a token: on flows, and those that a lost
// flow has left for its grace.
func (p *Proxy) standingOn(id string) map[*Registration]struct{} {
	all := map[*Registration]struct{}{}
	add := func(r *Registration) {
		if r.identity().token.is(id) {
			all[r] = struct{}{}
		}
	}
	for _, f := range p.flows.all() {
		f.mu.Lock()
		for _, r := range f.regs {
			add(r)
		}
		f.mu.Unlock()
	}
	p.regs.mu.Lock()
	defer p.regs.mu.Unlock()
	for _, r := range p.regs.current {
		add(r)
	}
	return all
}

func (t *heldToken) is(id string) bool { return t != nil && id != "" && (t.id == id || t.grant == id) }

// tokenLeft says that a registration was the last that stood on its grant, where it was.
func (p *Proxy) tokenLeft(r *Registration) {
	b, t := p.cfg.Bearer, r.identity().token
	if b == nil || b.Ended == nil || t == nil || t.grant == "" || p.revoked.hasHeld(t) {
		return
	}
	p.start(func() {
		if p.isHeld(t.grant, r.flow) {
			return
		}
		ctx, cancel := context.WithTimeout(p.ctx, verifyTimeout)
		defer cancel()
		b.Ended(ctx, t.grant)
	})
}

// isHeld reports whether a registration stands on a grant: one that speaks for its binding, or
// another of the same device on that flow.
func (p *Proxy) isHeld(grant string, f *Flow) bool {
	f.mu.Lock()
	held := slices.ContainsFunc(f.regs, func(r *Registration) bool { return r.identity().token.is(grant) })
	f.mu.Unlock()
	p.regs.mu.Lock()
	defer p.regs.mu.Unlock()
	for _, r := range p.regs.current {
		held = held || r.identity().token.is(grant)
	}
	return held
}

// endIfRevoked ends a registration whose token was revoked while the core was asked. It comes
// after the 2xx has been sent, so that the WIC hears that before the end.
func (p *Proxy) endIfRevoked(r *Registration) {
	if p.revoked.hasHeld(r.identity().token) {
		p.start(func() { p.endRevoked(r) })
	}
}

// endRevoked ends a registration. It may come twice to one.
func (p *Proxy) endRevoked(r *Registration) {
	r.stopTimer()
	r.flow.dropRegistration(r)
	if p.regs.release(r) {
		p.log.Info("registration ended by the WAF", "flow", r.flow.id, "impu", string(r.aor), "reason", "token revoked")
		p.events.leave(r)
	}
	key := r.identity().key()
	if p.regs.speaker(key) != nil {
		return // the device has registered with another token
	}
	p.releaseDialogs(r.flow, &key, reasonRevoked)
	if r.flow.registrationCount() == 0 {
		r.flow.close(websocket.ClosePolicyViolation, "authorization revoked", closedRevoked)
	}
	p.start(func() { p.deregister(r) })
	p.revoke(causeToken, r.scope(false))
}

// endWithToken takes a binding that has ended with its token out of the registrar, where that
// has granted more than it was asked for: Kamailio makes 60 s of less.
func (p *Proxy) endWithToken(r *Registration) {
	if id := r.identity(); id.token != nil && !id.expires.Before(id.token.ends) {
		p.start(func() { p.deregister(r) })
	}
}

// deregister takes a binding out of the registrar in the user's place, so that calls to the
// user fail at once and not at a flow that is gone. A core that wants the user's own word is
// left with a binding that ends by itself.
func (p *Proxy) deregister(r *Registration) {
	var recipient sip.Uri
	if sip.ParseUri("sip:"+p.cfg.Domain, &recipient) != nil {
		return
	}
	contact := "<" + r.contact + ">"
	if instance, err := sipext.Quote(r.instance); err == nil && r.instance != "" {
		contact += ";+sip.instance=" + instance
		if r.regID != "" {
			contact += ";reg-id=" + r.regID
		}
	}
	word, err := p.ownWord(r.identity().impi)
	if err != nil {
		return
	}
	req := sip.NewRequest(sip.REGISTER, recipient)
	hops, callID := sip.MaxForwardsHeader(70), sip.CallIDHeader(newTag())
	for _, h := range []sip.Header{
		&hops, sip.NewHeader("From", "<"+string(r.aor)+">;tag="+newTag()), sip.NewHeader("To", "<"+string(r.aor)+">"), &callID,
		&sip.CSeqHeader{SeqNo: 1, MethodName: sip.REGISTER},
		sip.NewHeader("Contact", contact), sip.NewHeader("Expires", "0"),
		sip.NewHeader("Path", p.pathOver(r.flow, p.coreTransport())), sip.NewHeader("Require", "path"), sip.NewHeader("Supported", "path, outbound"),
		sip.NewHeader("Authorization", word.String()),
		sip.NewHeader("P-Visited-Network-ID", p.visited), sip.NewHeader("P-Charging-Vector", p.chargingVector()),
	} {
		req.AppendHeader(h)
	}
	req.SetBody(nil)
	ctx, cancel := context.WithTimeout(p.ctx, 64*sip.T1)
	defer cancel()
	if res, err := p.ask(ctx, req, p.core.hops, 0); err != nil || !isSuccess(res.StatusCode) {
		p.log.Info("the core was not told of the end of a registration", "impu", string(r.aor), "err", err)
	}
}

// revokedTokens remembers revocations for as long as what was begun before them may take: a
// REGISTER to its verdict and its answer, or a credential to be made. Two generations of names
// are kept, the younger one for at least that long.
type revokedTokens struct {
	mu    sync.RWMutex // guards what follows
	young map[string]struct{}
	old   map[string]struct{}
	since time.Time // of the younger
}

// revokedFor is longer than verifyTimeout and the transaction of a REGISTER together.
const revokedFor = time.Minute

// maxRevoked bounds a generation: some 100 octets each.
const maxRevoked = 100_000

func (t *revokedTokens) add(id string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.young == nil || now.Sub(t.since) >= revokedFor || len(t.young) >= maxRevoked {
		t.old, t.young, t.since = t.young, map[string]struct{}{}, now
	}
	t.young[id] = struct{}{}
}

func (t *revokedTokens) has(c TokenClaims) bool {
	return t.hasHeld(&heldToken{id: c.ID, grant: c.Grant})
}

func (t *revokedTokens) hasHeld(h *heldToken) bool {
	if h == nil {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, id := range []string{h.id, h.grant} {
		_, young := t.young[id]
		_, old := t.old[id]
		if id != "" && (young || old) {
			return true
		}
	}
	return false
}
