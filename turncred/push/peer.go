package push

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role says what a node may do at the credential interface.
type Role string

// The roles. A relay serves the interface and writes to none.
const (
	RoleEdge  Role = "edge"  // writes credentials and revocations
	RoleRelay Role = "relay" // takes them
	RoleWAF   Role = "waf"   // writes revocations
)

// ParseRole returns the role that s names.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleEdge, RoleRelay, RoleWAF:
		return r, nil
	}
	return "", fmt.Errorf("unknown role %q: use %q, %q or %q", s, RoleEdge, RoleRelay, RoleWAF)
}

// Peer is a node as its certificate names it, by the one URI of its subjectAltName
// (RFC 5280 §4.2.1.6), which has the form of a SPIFFE ID:
//
//	spiffe://DOMAIN/turn-cred/ROLE/NAME
//
// The distinguished name counts for nothing: how it is spelt differs between libraries.
type Peer struct {
	Domain string // the deployment's: its home domain
	Role   Role
	Name   string // unlike any other of the role
}

const peerService = "turn-cred"

// String returns ROLE/NAME, which tells the nodes of a deployment apart.
func (p Peer) String() string { return string(p.Role) + "/" + p.Name }

// URI returns the URI for a certificate.
func (p Peer) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: p.Domain, Path: "/" + peerService + "/" + string(p.Role) + "/" + p.Name}
}

// ErrPeer says that a certificate names no node of the deployment.
var ErrPeer = errors.New("push: the certificate names no node of this deployment")

// PeerOf reads whose certificate it is. It must bear one URI, of the domain. The error
// wraps ErrPeer.
func PeerOf(cert *x509.Certificate, domain string) (Peer, error) {
	if len(cert.URIs) != 1 {
		return Peer{}, fmt.Errorf("%w: it has %d URIs in its subjectAltName, want one", ErrPeer, len(cert.URIs))
	}
	u := cert.URIs[0]
	parts := strings.Split(u.Path, "/")
	if u.Scheme != "spiffe" || len(parts) != 4 || parts[1] != peerService {
		return Peer{}, fmt.Errorf("%w: %q is not of the form spiffe://DOMAIN/turn-cred/ROLE/NAME", ErrPeer, u)
	}
	p := Peer{Domain: u.Host, Role: Role(parts[2]), Name: parts[3]}
	if *p.URI() != *u || CheckPeerName(p.Name) != nil {
		return Peer{}, fmt.Errorf("%w: %q is not of the form spiffe://DOMAIN/turn-cred/ROLE/NAME", ErrPeer, u)
	}
	if _, err := ParseRole(parts[2]); err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if p.Domain != domain {
		return Peer{}, fmt.Errorf("%w: it is of the domain %q, want %q", ErrPeer, p.Domain, domain)
	}
	return p, nil
}

// maxPeerName keeps names short in logs and metrics.
const maxPeerName = 63

// CheckPeerName refuses what is no name of a node: 1 to 63 small letters, digits and
// hyphens, as a label of a host name.
func CheckPeerName(s string) error {
	if len(s) == 0 || len(s) > maxPeerName || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(s, "-") {
		return fmt.Errorf("%q: want 1 to %d small letters, digits and hyphens, such as edge1", s, maxPeerName)
	}
	return nil
}
