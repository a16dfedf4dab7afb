package push

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"epcscf/turncred"
)

// Authority is a private certificate authority for one deployment's credential interface,
// for operators who have none. Its certificates are good for this domain alone.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// backdated allows for hosts whose clocks are behind.
const backdated = 5 * time.Minute

// NewAuthority makes one for a domain, good for life from now.
func NewAuthority(domain string, life time.Duration, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl, err := template("epcscf "+domain, now, life)
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	// RFC 5280 §4.2.1.10: nodes of other domains cannot come from it. It also tells Issue
	// the domain.
	tmpl.PermittedURIDomains, tmpl.PermittedDNSDomainsCritical = []string{domain}, true
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert, key}, err
}

// LoadAuthority reads one from its certificate and key, both PEM.
func LoadAuthority(certPEM []byte, keyPEM turncred.Secret) (*Authority, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM.Reveal())
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA || len(pair.Leaf.PermittedURIDomains) != 1 {
		return nil, errors.New("not an authority that epcscf pki init made")
	}
	return &Authority{pair.Leaf, key}, nil
}

// Domain is the one that the authority's certificates are good for.
func (a *Authority) Domain() string { return a.cert.PermittedURIDomains[0] }

// NotAfter is when the authority ends.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// PEM returns the authority's certificate, for all nodes.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// KeyPEM returns the authority's key, for no node.
func (a *Authority) KeyPEM() (turncred.Secret, error) { return keyPEM(a.key) }

// Issue makes a certificate, with its chain, and a key for a node. Hosts are the names and
// addresses at which others reach it. It ends with the authority at the latest.
func (a *Authority) Issue(p Peer, hosts []string, life time.Duration, now time.Time) (certPEM []byte, key turncred.Secret, err error) {
	if err := CheckPeerName(p.Name); err != nil {
		return nil, key, err
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, key, err
	}
	tmpl, err := template(p.String(), now, life)
	if err != nil {
		return nil, key, err
	}
	if tmpl.NotAfter.After(a.cert.NotAfter) {
		tmpl.NotAfter = a.cert.NotAfter
	}
	tmpl.URIs, tmpl.KeyUsage = []*url.URL{p.URI()}, x509.KeyUsageDigitalSignature
	// Each role asks and is asked: a relay asks the WAF for keys (RFC 7635 §4.1.1), and the WAF
	// tells an edge of revocations. Who is whom goes by the role.
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		return nil, key, err
	}
	key, err = keyPEM(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, err
}

func template(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdated), NotAfter: now.Add(life)}, nil
}

func keyPEM(k *ecdsa.PrivateKey) (turncred.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	return turncred.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
}
