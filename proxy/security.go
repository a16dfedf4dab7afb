package proxy

import (
	"errors"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// What integrity-protected tells the core of the way that a REGISTER came (TS 33.203 P.3,
// X.2). Every flow is TLS, set up before the registration.
const (
	protectedPending   = "tls-pending"   // a Digest response, over a connection not yet bound to the user
	protectedYes       = "tls-yes"       // the same, over the user's own connection
	protectedConnected = "tls-connected" // IMS AKA over TLS
)

// tagSecAgree asks to agree on a security mechanism (RFC 3329 §4): over a secure WebSocket
// there is none to agree on.
const tagSecAgree = "sec-agree"

// algorithmAKA is the one form of IMS AKA that runs over TLS (TS 33.203 P.3).
const algorithmAKA = "AKAv2-SHA-256"

// credentials is one row of Authorization, or a challenge (RFC 3261 §25.1).
type credentials struct {
	scheme string
	params sipext.Params
}

var errCredentials = errors.New("malformed credentials")

// parseCredentials reads scheme and auth-params strictly.
func parseCredentials(value string) (credentials, error) {
	value = strings.Trim(value, " \t")
	n := strings.IndexAny(value, " \t")
	if n < 0 {
		return credentials{}, errCredentials
	}
	c := credentials{scheme: value[:n]}
	if !sipext.IsToken(c.scheme) {
		return c, errCredentials
	}
	var err error
	c.params, err = sipext.ParseAuthParams(value[n:])
	return c, err
}

func (c credentials) isDigest() bool { return strings.EqualFold(c.scheme, "Digest") }

func (c credentials) get(name string) string {
	v, _ := c.params.Get(name)
	return v
}

// without removes parameters.
func (c credentials) without(names ...string) credentials {
	c.params = slices.DeleteFunc(slices.Clone(c.params), func(p sipext.Param) bool { return containsFold(names, p.Name) })
	return c
}

// String writes the credentials anew, so that the next reader sees what this one saw.
func (c credentials) String() string {
	all := make([]string, len(c.params))
	for i, p := range c.params {
		all[i] = p.Name + "=" + p.Value
	}
	return c.scheme + " " + strings.Join(all, ", ")
}

// cleanCredentials keeps from a UE's Authorization and Proxy-Authorization what the core
// may read: Digest, and never a word on integrity-protected, which is the edge's
// (TS 33.203 P.3). Tokens of other schemes are for the edge alone; what does not parse
// could be read otherwise by the core.
func cleanCredentials(m sipext.HeaderFields) {
	for _, name := range []string{"Authorization", "Proxy-Authorization"} {
		rows := sipext.Rows(m, name)
		if len(rows) == 0 {
			continue
		}
		var kept []string
		for _, h := range rows {
			if c, err := parseCredentials(h.Value()); err == nil && c.isDigest() {
				kept = append(kept, c.without("integrity-protected").String())
			}
		}
		setRows(m, name, kept...)
	}
}

// dropKeys removes from a challenge the session keys, which are for the edge alone
// (TS 33.203 X.2). A challenge that does not parse could hide them.
func dropKeys(m sipext.HeaderFields) {
	rows := sipext.Rows(m, "WWW-Authenticate")
	if len(rows) == 0 {
		return
	}
	var kept []string
	for _, h := range rows {
		if c, err := parseCredentials(h.Value()); err == nil {
			kept = append(kept, c.without("ck", "ik").String())
		}
	}
	setRows(m, "WWW-Authenticate", kept...)
}

// claim is who a REGISTER says to be: worth something once the core has accepted it.
type claim struct {
	impi     turncred.IMPI // "" where there is no Digest username
	answered bool          // with the response to a challenge
}

// readClaim reads the Authorization of a REGISTER. Several Digest rows must be one user's.
func (c *Config) readClaim(req *sip.Request) (claim, error) {
	var who claim
	for _, h := range sipext.Rows(req, "Authorization") {
		cred, err := parseCredentials(h.Value())
		switch {
		case cred.scheme != "" && !cred.isDigest():
			continue // goes no further
		case err != nil:
			return claim{}, err
		}
		id := c.impi(cred.get("username"))
		if who.impi != "" && id != who.impi {
			return claim{}, errCredentials
		}
		who.impi = id
		who.answered = who.answered || id != "" && cred.get("response") != ""
	}
	return who, nil
}

// impi completes a Digest username: one without "@" is of the home domain, so that alice
// and alice@ims.test are one subject (TS 23.003 §13.3: user@realm).
func (c *Config) impi(username string) turncred.IMPI {
	i := strings.LastIndexByte(username, '@')
	switch {
	case username == "":
		return ""
	case i < 0:
		return turncred.IMPI(username + "@" + strings.ToLower(c.Domain))
	}
	return turncred.IMPI(username[:i+1] + strings.ToLower(username[i+1:]))
}

// protect says in each Authorization of a REGISTER how it is protected (TS 33.203 P.3);
// what the UE said of it has gone. A core may take tls-yes at its word, so it is said only
// of the user whom the core has authenticated over this very flow.
func (c *Config) protect(f *Flow, req *sip.Request) {
	rows := sipext.Rows(req, "Authorization")
	values := make([]string, len(rows))
	for i, h := range rows {
		values[i] = h.Value()
		if cred, err := parseCredentials(values[i]); err == nil {
			if v := c.protection(f, cred, aor(&req.To().Address)); v != "" {
				cred.params = append(cred.params, sipext.Param{Name: "integrity-protected", Value: `"` + v + `"`})
				values[i] = cred.String()
			}
		}
	}
	if len(rows) > 0 {
		setRows(req, "Authorization", values...)
	}
}

func (c *Config) protection(f *Flow, cred credentials, to IMPU) string {
	switch {
	case strings.EqualFold(cred.get("algorithm"), algorithmAKA):
		return protectedConnected
	case cred.get("response") == "":
		return "" // the first REGISTER: the core has asked nothing yet
	case f.authenticated(c.impi(cred.get("username")), to):
		return protectedYes
	}
	return protectedPending
}

// authenticated reports whether the core has accepted id's Authorization over this flow,
// for that public identity.
func (f *Flow) authenticated(id turncred.IMPI, to IMPU) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return id != "" && slices.ContainsFunc(f.regs, func(r *Registration) bool {
		i := r.identity()
		return i.authorized && i.impi == id && r.speaksFor(to)
	})
}
