package proxy

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
	"epcscf/turncred"
)

// protectedDone says that the edge has authenticated the user itself: Trusted Node
// Authentication (TS 33.203 X.3, TS 24.292 clause 6, known to us by digests).
const protectedDone = "auth-done"

// heldToken is what is kept of the token that a registration stands on: not the token.
type heldToken struct {
	id, grant string
	wwsf, waf string
	ends      time.Time
}

// registerByToken takes a REGISTER that shows a token, and reports whether this one does.
func (p *Proxy) registerByToken(r *registering) bool {
	token, err := bearerOf(r.req, sipext.Authorization)
	if err == nil && token == "" {
		return false
	}
	if err == nil && slices.ContainsFunc(r.req.Fields, isDigestRow) {
		err = errTwoSchemes // of two users, perhaps
	}
	if err != nil {
		r.refuse(p.malformedToken(err))
		return true
	}
	p.verify(token, func(c TokenClaims, err error) { p.registerVerified(r, c, err) })
	return true
}

func isDigestRow(f sipext.Field) bool {
	return f.ID == sipext.Authorization && len(f.Value) >= 6 && strings.EqualFold(f.Value[:6], "Digest")
}

// registerVerified goes on with a REGISTER when it is known what its token says.
func (p *Proxy) registerVerified(r *registering, c TokenClaims, err error) {
	if err != nil {
		refused, bad := p.badToken(err, func(problem string) *refusal { return p.challenge(sip.StatusUnauthorized, problem) })
		p.log.Info("registration refused", "flow", r.f.id, "impu", string(r.aor), "status", refused.status, "err", err)
		r.refuse(refused)
		if bad && p.cfg.Bearer.CloseOnBad {
			r.f.close(websocket.ClosePolicyViolation, "bad token", closedToken)
		}
		return
	}
	refused := p.takeToken(r, c)
	if refused == nil {
		refused = p.prepareRegister(r)
	}
	if refused == nil && r.f.isEnding() { // while the verifier was asked
		refused = &refusal{status: statusFlowFailed, phrase: "Flow Failed"}
	}
	if refused != nil {
		r.refuse(refused)
		return
	}
	p.metrics.tokens.WithLabelValues(tokenAccepted).Inc()
	r.start()
}

func (r *registering) refuse(why *refusal) { r.answer(why.status, why.phrase, why.extra...) }

// takeToken holds a REGISTER to what its token says. Who it is comes from the token, never
// from To or From: those can only be one of its identities (TS 33.203 X.3.2.3).
func (p *Proxy) takeToken(r *registering, c TokenClaims) *refusal {
	from, _ := parseURI(r.req.First(sipext.From))
	if c.IMPI == "" || !c.owns(r.aor) || !c.owns(aor(&from)) {
		p.metrics.tokens.WithLabelValues(tokenForeign).Inc()
		return &refusal{status: sip.StatusForbidden, phrase: "Not an identity of the token"}
	}
	if !capExpires(r.req, int(c.Expires.Sub(p.cfg.Now())/time.Second)) {
		return &refusal{status: sip.StatusBadRequest, phrase: "Malformed Contact"}
	}
	r.who = claim{impi: p.cfg.impi(string(c.IMPI)), answered: true, token: &heldToken{
		id: c.ID, grant: c.Grant, wwsf: c.WWSF, waf: c.WAF, ends: c.Expires,
	}}
	return nil
}

// owns reports whether id is one of the token's identities.
func (c *TokenClaims) owns(id IMPU) bool {
	return slices.ContainsFunc(c.IMPUs, func(o IMPU) bool {
		u, ok := parseURI(string(o))
		return ok && aor(&u) == id
	})
}

// capExpires lets a REGISTER ask for no more than what is left of its token, wherever it says
// for how long. What says nothing, or no number, asks for an hour (RFC 3261 §10.2). It
// reports false where a Contact cannot be read: the core might read more in it.
func capExpires(req *sipext.Message, rest int) bool {
	asked := func(v string) int {
		n := seconds(v)
		if n < 0 {
			n = 3600
		}
		return min(n, rest)
	}
	expires := strconv.Itoa(asked(req.First(sipext.Expires)))
	readable := true
	req.Rewrite(func(f *sipext.Field) bool {
		switch f.ID {
		case sipext.Expires:
			return false
		case sipext.Contact:
			var all []string
			for e := range sipext.ListElements(f.Value) {
				a, err := sipext.ParseAddress(e)
				readable = readable && err == nil
				if v, there := a.Params.Get("expires"); there {
					a.Params = slices.DeleteFunc(a.Params, func(p sipext.Param) bool { return strings.EqualFold(p.Name, "expires") })
					a.Params = append(a.Params, sipext.Param{Name: "expires", Value: strconv.Itoa(asked(v))})
				}
				all = append(all, a.String())
			}
			f.Value = strings.Join(all, ", ")
		}
		return true
	})
	req.Add(sipext.Expires, expires)
	return readable
}

// takeCredentials takes the Authorization of a REGISTER off and returns what is written anew:
// the UE's Digest rows, or in place of a token our own word for the user.
func (p *Proxy) takeCredentials(r *registering) (given []credentials, err error) {
	if r.who.token == nil {
		r.who, given, err = p.cfg.takeClaim(r.req)
		return given, err
	}
	r.req.Remove(sipext.Authorization)
	word, err := p.ownWord(r.who.impi)
	return []credentials{word}, err
}

// ownWord is the Authorization of a user whom the edge has authenticated itself.
func (p *Proxy) ownWord(id turncred.IMPI) (credentials, error) {
	username, err := sipext.Quote(string(id))
	return credentials{scheme: "Digest", params: sipext.Params{
		{Name: "username", Value: username}, {Name: "realm", Value: `"` + p.cfg.Domain + `"`}, {Name: "nonce", Value: `""`},
		{Name: "uri", Value: `"sip:` + p.cfg.Domain + `"`}, {Name: "response", Value: `""`},
		{Name: "integrity-protected", Value: `"` + protectedDone + `"`},
	}}, err
}

// tokenFor is the token that a registration stands on: that of this REGISTER, or where it
// brought no credentials and the core took it nevertheless, that of the one before.
func tokenFor(who claim, old *Registration) *heldToken {
	if who.answered || old == nil {
		return who.token
	}
	return old.identity().token
}

// stand notes a registration that stands on a token.
func (r *registering) stand(reg *Registration) {
	if r.p.cfg.Bearer != nil && reg.identity().token != nil {
		r.standing = append(r.standing, reg)
	}
}

// withinToken cuts what the core has granted at the token's end.
func (r *registering) withinToken(c *contact, life time.Duration) time.Duration {
	if r.p.cfg.Bearer == nil {
		return life
	}
	if t := tokenFor(r.who, r.f.findRegistration(r.aor, *c)); t != nil {
		return min(life, t.ends.Sub(r.p.cfg.Now()))
	}
	return life
}
