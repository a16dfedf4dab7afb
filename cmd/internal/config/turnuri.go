package config

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"

	"epcscf/cmd/internal/node"
)

// turnURI is a TURN URI taken apart.
type turnURI struct {
	secure bool   // turns
	host   string // without brackets
}

var turnURIForm = regexp.MustCompile(`^(turns?):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(\?transport=(udp|tcp))?$`)

var errTURNURI = errors.New("not a TURN URI")

// splitTURNURI reads RFC 7065 §3.1, of whose transports we know two.
func splitTURNURI(s string) (turnURI, error) {
	m := turnURIForm.FindStringSubmatch(s)
	if m == nil {
		return turnURI{}, errTURNURI
	}
	u := turnURI{secure: m[1] == "turns", host: strings.Trim(m[2], "[]")}
	if _, err := netip.ParseAddr(u.host); err != nil && node.CheckDomain(u.host) != nil {
		return turnURI{}, errTURNURI
	}
	return u, nil
}
