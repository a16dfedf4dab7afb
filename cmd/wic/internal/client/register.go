package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"

	"epcscf/sipext"
)

// maxTries bounds the requests of one registration: the first, the one with the
// password, one for a stale nonce and one for a 423.
const maxTries = 4

// Registration is what a 200 to REGISTER says.
type Registration struct {
	AOR        string
	Expires    time.Duration
	Associated []string // P-Associated-URI, the default identity first
}

// ErrNoCredential says that a 200 bears no 3gpp-ext-turn-cred header.
var ErrNoCredential = errors.New("the 200 has no " + sipext.TurnCredHeader +
	" header: this server gives no TURN credentials, or none without an Authorization")

// UnavailableError is the server's word that it has no credential to give now.
type UnavailableError struct {
	Reason     string
	RetryAfter time.Duration
}

// Error implements error.
func (e *UnavailableError) Error() string {
	s := "the server gives no TURN credential now: unavailable"
	if e.Reason != "" {
		s += ", reason " + e.Reason
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(", ask again in %v", e.RetryAfter)
	}
	return s
}

// StatusError is a final response other than 2xx.
type StatusError struct {
	Method string
	Code   int
	Reason string
	hint   string
}

// Error implements error.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s: %d %s", e.Method, e.Code, e.Reason)
	if e.hint != "" {
		s += ": " + e.hint
	}
	return s
}

func (c *Client) statusError(req *sip.Request, res *sip.Response) error {
	e := &StatusError{Method: string(req.Method), Code: res.StatusCode, Reason: printable(res.Reason)}
	switch {
	case c.cfg.Token == nil:
	case res.StatusCode == 401 && bearerChallenge(res) == "":
		e.hint = "the edge takes the token, or none, but its core wants a password all the same: does it trust the edge?"
		return e
	case res.StatusCode == 401 || res.StatusCode == 407:
		e.hint = "the token is refused: is it expired, revoked, or for another edge? The server says: " + printable(bearerChallenge(res))
		return e
	case res.StatusCode == 403:
		e.hint = fmt.Sprintf("is the token another user's than %s?", c.aor())
		return e
	}
	switch res.StatusCode {
	case 401, 407:
		e.hint = fmt.Sprintf("wrong password for %q: check --user, --auth-user and --password-file", c.cfg.AuthUser)
	case 403:
		e.hint = fmt.Sprintf("%s may not do this; is the password another user's?", c.aor())
	case 404:
		e.hint = fmt.Sprintf("the core does not serve %s: check --domain and --user", c.aor())
	case 408, 500, 503, 504:
		e.hint = "the edge answers, but does not reach its core"
	}
	return e
}

// bearerChallenge returns the first challenge that asks for a token (RFC 8898 §4), or "".
func bearerChallenge(res *sip.Response) string {
	for _, name := range []string{"WWW-Authenticate", "Proxy-Authenticate"} {
		for _, row := range sipext.Rows(res, name) {
			if scheme, _, _ := strings.Cut(row.Value(), " "); strings.EqualFold(scheme, "Bearer") {
				return row.Value()
			}
		}
	}
	return ""
}

// authorizeByToken adds the token, where there is one (RFC 6750 §2.1).
func (c *Client) authorizeByToken(req *sip.Request) error {
	if c.cfg.Token == nil {
		return nil
	}
	token, err := c.cfg.Token()
	if err == nil {
		req.AppendHeader(sip.NewHeader("Authorization", "Bearer "+string(token.Reveal())))
	}
	return err
}

func (c *Client) aor() string { return "sip:" + c.cfg.User + "@" + c.cfg.Domain }

// Register registers, or refreshes the registration, and asks for a credential. Where
// there is none, the Registration is good and the error is ErrNoCredential, an
// *UnavailableError, or sipext.ErrTurnCred, wrapped.
func (c *Client) Register(ctx context.Context) (Registration, sipext.TurnCred, error) {
	res, err := c.register(ctx, c.cfg.Expires, true)
	if err != nil {
		return Registration{}, sipext.TurnCred{}, err
	}
	reg := Registration{AOR: c.aor()}
	if reg.Expires, err = c.granted(res); err != nil {
		return Registration{}, sipext.TurnCred{}, err
	}
	for _, row := range sipext.Rows(res, "P-Associated-URI") {
		reg.Associated = append(reg.Associated, strings.Trim(row.Value(), "<> "))
	}
	cred, err := credentialOf(res)
	return reg, cred, err
}

// Deregister ends the registration.
func (c *Client) Deregister(ctx context.Context) error {
	_, err := c.register(ctx, 0, false)
	return err
}

// Options asks for a new credential without a registration (TS 33.203 X.5.2.1). The
// errors are those of Register.
func (c *Client) Options(ctx context.Context) (sipext.TurnCred, error) {
	req := c.request(sip.OPTIONS)
	req.AppendHeader(sip.NewHeader(sipext.TurnCredHeader, string(sipext.KindRequest)))
	if err := c.authorizeByToken(req); err != nil {
		return sipext.TurnCred{}, err
	}
	req.SetBody(nil)
	res, err := c.exchange(ctx, req)
	if err != nil {
		return sipext.TurnCred{}, err
	}
	if !res.IsSuccess() {
		return sipext.TurnCred{}, c.statusError(req, res)
	}
	return credentialOf(res)
}

func credentialOf(res *sip.Response) (sipext.TurnCred, error) {
	cred, ok, err := sipext.TurnCredOf(res)
	switch {
	case err != nil:
		return sipext.TurnCred{}, fmt.Errorf("the server's answer: %w", err)
	case !ok:
		return sipext.TurnCred{}, ErrNoCredential
	case cred.Kind == sipext.KindUnavailable:
		return sipext.TurnCred{}, &UnavailableError{Reason: cred.Reason, RetryAfter: cred.RetryAfter}
	case cred.Kind != sipext.KindCredential:
		return sipext.TurnCred{}, fmt.Errorf("the server's answer: %w: it says %q", sipext.ErrTurnCred, string(cred.Kind))
	}
	if cred.Username == "" { // TS 33.203 X.5.2.2 step 5
		cred.Username = cred.Tid + ":" + strconv.FormatInt(cred.Texp, 10)
	}
	return cred, nil
}

// register sends REGISTERs until one gets its 200.
func (c *Client) register(ctx context.Context, expires time.Duration, credential bool) (*sip.Response, error) {
	answered := false // the last request bore an answer to a fresh challenge
	for try := 1; ; try++ {
		req, err := c.registerRequest(expires, credential)
		if err != nil {
			return nil, err
		}
		res, err := c.exchange(ctx, req)
		if err != nil {
			return nil, err
		}
		switch {
		case res.IsSuccess():
			return res, nil
		case try == maxTries, res.StatusCode == sip.StatusUnauthorized && c.cfg.Token != nil:
			return nil, c.statusError(req, res)
		case res.StatusCode == sip.StatusUnauthorized:
			ch, err := c.challengeOf(res)
			if err != nil {
				return nil, err
			}
			if answered && !ch.Stale {
				return nil, c.statusError(req, res)
			}
			c.challenge, c.count, answered = ch, 0, true
		case res.StatusCode == sip.StatusIntervalToBrief && expires > 0:
			row := res.GetHeader("Min-Expires")
			if row == nil {
				return nil, c.statusError(req, res)
			}
			n, err := strconv.ParseUint(row.Value(), 10, 31)
			if err != nil || time.Duration(n)*time.Second <= expires {
				return nil, c.statusError(req, res)
			}
			expires = time.Duration(n) * time.Second
		default:
			return nil, c.statusError(req, res)
		}
	}
}

func (c *Client) registerRequest(expires time.Duration, credential bool) (*sip.Request, error) {
	req := c.request(sip.REGISTER)
	contact := &sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: c.cfg.User, Host: c.host}}
	contact.Address.UriParams.Add("transport", "ws") // RFC 7118 §5.2: also over TLS
	contact.Params.Add("+sip.instance", `"<urn:uuid:`+c.instance+`>"`)
	contact.Params.Add("reg-id", "1")
	contact.Params.Add("expires", strconv.Itoa(int(expires/time.Second)))
	req.AppendHeader(contact)
	req.AppendHeader(sip.NewHeader("Supported", "path, outbound"))
	if credential {
		req.AppendHeader(sip.NewHeader(sipext.TurnCredHeader, string(sipext.KindRequest)))
	}
	if err := c.authorizeByToken(req); err != nil {
		return nil, err
	}
	if c.challenge != nil {
		c.count++
		cred, err := digest.Digest(c.challenge, digest.Options{
			Method: string(sip.REGISTER), URI: req.Recipient.String(),
			Username: c.cfg.AuthUser, Password: string(c.cfg.Password.Reveal()), Count: c.count,
		})
		if err != nil {
			return nil, fmt.Errorf("answer the challenge: %w", err)
		}
		req.AppendHeader(sip.NewHeader("Authorization", cred.String()))
	}
	req.SetBody(nil)
	return req, nil
}

// request starts a request to the home domain.
func (c *Client) request(method sip.RequestMethod) *sip.Request {
	req := sip.NewRequest(method, sip.Uri{Scheme: "sip", Host: c.cfg.Domain})
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: "WSS", Host: c.host}
	via.Params.Add("branch", sip.GenerateBranchN(16))
	req.AppendHeader(via)
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	user := sip.Uri{Scheme: "sip", User: c.cfg.User, Host: c.cfg.Domain}
	from := &sip.FromHeader{Address: user}
	from.Params.Add("tag", c.tag)
	req.AppendHeader(from)
	to := &sip.ToHeader{Address: user}
	if method == sip.OPTIONS {
		to.Address.User = ""
	}
	req.AppendHeader(to)
	id := sip.CallIDHeader(c.callID)
	req.AppendHeader(&id)
	c.cseq++
	req.AppendHeader(&sip.CSeqHeader{SeqNo: c.cseq, MethodName: method})
	if c.cfg.Agent != "" {
		req.AppendHeader(sip.NewHeader("User-Agent", c.cfg.Agent))
	}
	return req
}

// challengeOf returns the topmost challenge that we can answer, as RFC 8760 §2.4 wants.
func (c *Client) challengeOf(res *sip.Response) (*digest.Challenge, error) {
	rows := sipext.Rows(res, "WWW-Authenticate")
	for _, row := range rows {
		ch, err := digest.ParseChallenge(row.Value())
		if err != nil {
			continue
		}
		ch.Algorithm = strings.ToUpper(ch.Algorithm)
		if digest.CanDigest(ch) {
			return ch, nil
		}
	}
	return nil, fmt.Errorf("REGISTER: 401 with %d challenges, none of SIP Digest with MD5 or SHA-256: this client knows no AKA", len(rows))
}

// granted returns the expiry that the 200 gives to our contact (RFC 3261 §10.2.4).
func (c *Client) granted(res *sip.Response) (time.Duration, error) {
	for _, row := range sipext.Rows(res, "Contact") {
		contact, ok := row.(*sip.ContactHeader)
		if !ok || !strings.EqualFold(contact.Address.Host, c.host) {
			continue
		}
		v, ok := contact.Params.Get("expires")
		if row := res.GetHeader("Expires"); !ok && row != nil {
			v = row.Value()
		}
		if n, err := strconv.ParseUint(v, 10, 32); err == nil && n > 0 {
			return time.Duration(n) * time.Second, nil
		}
	}
	return 0, errors.New("REGISTER: the 200 does not list our Contact with an expiry (RFC 3261 section 10.3 step 8): the core did not bind it")
}
