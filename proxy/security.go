package proxy

import (
	"errors"
	"slices"
	"strings"

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

// without removes parameters, from c itself too.
func (c credentials) without(names ...string) credentials {
	c.params = slices.DeleteFunc(c.params, func(p sipext.Param) bool { return containsFold(names, p.Name) })
	return c
}

// String writes the credentials anew, so that the next reader sees what this one saw.
func (c credentials) String() string {
	size := len(c.scheme)
	for _, p := range c.params {
		size += len(p.Name) + len(p.Value) + len(", =")
	}
	b := append(make([]byte, 0, size), c.scheme...)
	for i, p := range c.params {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(append(b, ' '), p.Name...), '='), p.Value...)
	}
	return string(b)
}

// ownCredentials leaves of a UE's Authorization what the core may read: Digest, and never a
// word on integrity-protected, which is the edge's (TS 33.203 P.3). Tokens of other schemes
// are for the edge alone; what does not parse could be read otherwise by the core.
func ownCredentials(value string) string {
	c, err := parseCredentials(value)
	if err != nil || !c.isDigest() {
		return ""
	}
	return c.without("integrity-protected").String()
}

// withoutKeys removes from a challenge the session keys, which are for the edge alone
// (TS 33.203 X.2). A challenge that does not parse could hide them.
func withoutKeys(value string) string {
	c, err := parseCredentials(value)
	if err != nil {
		return ""
	}
	return c.without("ck", "ik").String()
}

// claim is who a REGISTER says to be: worth something once the core has accepted it.
type claim struct {
	impi     turncred.IMPI // "" where there is no Digest username
	answered bool          // with the response to a challenge, or a token
	token    *heldToken    // that it has shown; nil: none
}

// takeClaim reads the Authorization of a REGISTER and takes it off, for authorize to write
// anew. Several Digest rows must be one user's.
func (c *Config) takeClaim(req *sipext.Message) (who claim, given []credentials, err error) {
	for v := range req.Rows(sipext.Authorization) {
		cred, err := parseCredentials(v)
		switch {
		case cred.scheme != "" && !cred.isDigest():
			continue // goes no further
		case err != nil:
			return claim{}, nil, err
		}
		id := c.impi(cred.get("username"))
		if who.impi != "" && id != who.impi {
			return claim{}, nil, errCredentials
		}
		who.impi = id
		who.answered = who.answered || id != "" && cred.get("response") != ""
		given = append(given, cred.without("integrity-protected"))
	}
	req.Remove(sipext.Authorization)
	return who, given, nil
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

// authorize writes the credentials of a REGISTER for the core, and says in each how the
// REGISTER is protected (TS 33.203 P.3); what the UE said of it has gone. A core may take
// tls-yes at its word, so it is said only of the user whom the core has authenticated over
// this very flow.
func (c *Config) authorize(f *Flow, req *sipext.Message, given []credentials, to IMPU) {
	for _, cred := range given {
		if v := c.protection(f, cred, to); v != "" {
			cred.params = append(cred.params, sipext.Param{Name: "integrity-protected", Value: `"` + v + `"`})
		}
		req.Add(sipext.Authorization, cred.String())
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
// for that public identity. Our own word for a token is none.
func (f *Flow) authenticated(id turncred.IMPI, to IMPU) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return id != "" && slices.ContainsFunc(f.regs, func(r *Registration) bool {
		i := r.identity()
		return i.authorized && i.token == nil && i.impi == id && r.speaksFor(to)
	})
}
