package proxy

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"epcscf/sipext"
	"epcscf/turncred"
)

// provisionTimeout bounds how long a 200 waits for the relay, in either direction:
// registration never fails because TURN does.
const provisionTimeout = time.Second

// reasonNotAuthorized tells a WIC that the core took its REGISTER without an
// Authorization, so that there is nobody to give a credential to.
const reasonNotAuthorized = "not-authorized"

// answerWish returns the header field that answers a wish for a credential. life is what is
// left of the registration.
func (p *Proxy) answerWish(reg *Registration, life time.Duration) string {
	cred, result := p.provision(reg, life)
	value, err := cred.Value()
	if err != nil {
		// The grammar cannot carry what the Provisioner made: an error of ours or of the
		// configuration, such as a control character in a TURN URI.
		p.log.Error("credential not printable", "impu", string(reg.aor), "err", err)
		result = "error"
		value, _ = unavailable(string(turncred.ReasonDisabled), time.Minute).Value()
	}
	p.metrics.credential(result)
	return value
}

func unavailable(reason string, retry time.Duration) sipext.TurnCred {
	return sipext.TurnCred{Kind: sipext.KindUnavailable, Reason: reason, RetryAfter: retry}
}

// provisionsAtOnce reports whether a credential comes without waiting for anyone, so that
// whoever reads the core's messages may ask for it.
func (p *Proxy) provisionsAtOnce() bool {
	i, ok := p.cfg.Provisioner.(turncred.Immediate)
	return p.cfg.Provisioner == nil || ok && i.Immediate()
}

// provision returns a credential, or says why there is none, and the metrics label.
func (p *Proxy) provision(reg *Registration, life time.Duration) (sipext.TurnCred, string) {
	id := reg.identity()
	if !id.authorized && !p.cfg.AllowUnauthorized {
		return unavailable(reasonNotAuthorized, 0), reasonNotAuthorized
	}
	if p.cfg.Provisioner == nil {
		return unavailable(string(turncred.ReasonDisabled), 0), string(turncred.ReasonDisabled)
	}
	ctx := p.ctx
	if !p.provisionsAtOnce() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, provisionTimeout)
		defer cancel()
	}
	c, err := p.cfg.Provisioner.Provision(ctx, turncred.Request{IMPI: id.impi, Binding: id.binding, Life: life})
	if err != nil {
		return p.noCredential(id, err)
	}
	p.regs.issued(reg, c.Identity.Issued)
	if p.revoked.hasHeld(id.token) { // while it was made
		p.start(func() { p.revoke(causeToken, reg.scope(false)) })
		return unavailable(reasonNotAuthorized, 0), reasonNotAuthorized
	}
	if p.log.Enabled(ctx, slog.LevelInfo) {
		p.log.Info("credential issued", "impu", string(reg.aor), "kid", string(c.Tid.KeyID()), "ttl", c.TTL)
	}
	return sipext.TurnCred{
		Kind: sipext.KindCredential, Tid: string(c.Tid), Texp: c.Texp.Unix(), Tpwd: string(c.Password.Reveal()),
		Username: c.Username, Realm: string(c.Realm), URIs: c.URIs, TTL: c.TTL, Approach: string(c.Approach),
	}, "issued"
}

func (p *Proxy) noCredential(id bindingIdentity, err error) (sipext.TurnCred, string) {
	var u *turncred.UnavailableError
	if !errors.As(err, &u) {
		u = &turncred.UnavailableError{Reason: turncred.ReasonRelayUnreachable, RetryAfter: 30 * time.Second, Err: err}
	}
	p.log.Warn("no credential", "impu", string(id.aor), "reason", string(u.Reason), "err", err)
	label := string(u.Reason)
	if !containsFold(credentialLabels, label) {
		label = "error"
	}
	return unavailable(string(u.Reason), max(u.RetryAfter, time.Second)), label
}
