package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	caLife   = 5 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// renewBefore leaves a demo that runs over a weekend with a valid leaf.
	renewBefore = 7 * 24 * time.Hour
)

// localPKI is the demo's own CA and leaf, kept in the data directory so that a browser
// that trusts them once trusts them after a restart.
type localPKI struct {
	CAFile string
	CAPEM  []byte
	Leaf   tls.Certificate // with the CA in its chain
	SPKI   string          // base64(SHA-256(SubjectPublicKeyInfo)), for Chromium's flag
}

// loadPKI reads the CA and the leaf from dir, and makes what is missing or does not fit.
func loadPKI(dir string, hosts []netip.Addr, now time.Time) (*localPKI, error) {
	ca, caPEM, err := loadOrMake(dir, "ca", func(c *x509.Certificate) bool {
		return now.Add(leafLife).Before(c.NotAfter) && permits(c, hosts)
	}, func(key *ecdsa.PrivateKey) ([]byte, error) { return makeCA(key, hosts, now) })
	if err != nil {
		return nil, err
	}
	leaf, leafPEM, err := loadOrMake(dir, "leaf", func(c *x509.Certificate) bool {
		return now.Add(renewBefore).Before(c.NotAfter) && c.CheckSignatureFrom(ca.Leaf) == nil && covers(c, hosts)
	}, leafMaker(ca, hosts, now))
	if err != nil {
		return nil, err
	}
	chain, err := tls.X509KeyPair(append(leafPEM, caPEM...), mustKeyPEM(leaf.PrivateKey.(*ecdsa.PrivateKey)))
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	spki := sha256.Sum256(leaf.Leaf.RawSubjectPublicKeyInfo)
	return &localPKI{
		CAFile: filepath.Join(dir, "ca.pem"), CAPEM: caPEM, Leaf: chain,
		SPKI: base64.StdEncoding.EncodeToString(spki[:]),
	}, nil
}

// permits reports whether the CA's name constraints allow every host.
func permits(ca *x509.Certificate, hosts []netip.Addr) bool {
	return !slices.ContainsFunc(hosts, func(h netip.Addr) bool {
		return !slices.ContainsFunc(ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(h.AsSlice()) })
	})
}

func covers(leaf *x509.Certificate, hosts []netip.Addr) bool {
	return !slices.ContainsFunc(hosts, func(h netip.Addr) bool { return leaf.VerifyHostname(h.String()) != nil })
}

// loadOrMake returns DIR/name.pem with DIR/name-key.pem if fit says so, else makes both.
func loadOrMake(dir, name string, fit func(*x509.Certificate) bool, sign func(*ecdsa.PrivateKey) ([]byte, error)) (tls.Certificate, []byte, error) {
	certFile, keyFile := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	if err := checkPrivate(keyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, nil, err
	}
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && fit(pair.Leaf) {
		certPEM, err := os.ReadFile(certFile)
		return pair, certPEM, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make %s key: %w", name, err)
	}
	der, err := sign(key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make %s certificate: %w", name, err)
	}
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), mustKeyPEM(key)
	if err := writeFile(keyFile, keyPEM, 0o600); err != nil {
		return tls.Certificate{}, nil, err
	}
	if err := writeFile(certFile, certPEM, 0o644); err != nil {
		return tls.Certificate{}, nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	return pair, certPEM, err
}

func mustKeyPEM(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("node: a P-256 key does not marshal: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// makeCA makes a CA that can speak for this host's own addresses and nothing else (RFC
// 5280 §4.2.1.10): a browser that imports it is not open to whoever steals its key.
func makeCA(key *ecdsa.PrivateKey, hosts []netip.Addr, now time.Time) ([]byte, error) {
	t := template("epcscf demo CA, this host only", now, caLife)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign
	t.PermittedDNSDomainsCritical = true
	t.PermittedDNSDomains = []string{"localhost"}
	for _, p := range append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, hostPrefixes(hosts)...) {
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
}

func hostPrefixes(hosts []netip.Addr) (out []netip.Prefix) {
	for _, h := range hosts {
		if !h.IsLoopback() {
			out = append(out, netip.PrefixFrom(h, h.BitLen()))
		}
	}
	return out
}

func leafMaker(ca tls.Certificate, hosts []netip.Addr, now time.Time) func(*ecdsa.PrivateKey) ([]byte, error) {
	t := template("epcscf demo", now, leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.DNSNames = []string{"localhost"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, h := range hosts {
		if !h.IsLoopback() {
			t.IPAddresses = append(t.IPAddresses, h.AsSlice())
		}
	}
	return func(key *ecdsa.PrivateKey) ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, t, ca.Leaf, &key.PublicKey, ca.PrivateKey)
	}
}

func template(name string, now time.Time, life time.Duration) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic("node: no random numbers: " + err.Error())
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life), // an hour for clocks that lag
	}
}
