// Package testpki makes certificates for tests, in files as an operator has them.
package testpki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA signs certificates.
type CA struct {
	File string // PEM, for clients
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority, with its certificate in DIR/ca.pem.
func NewCA(t *testing.T, dir string) *CA {
	t.Helper()
	ca := &CA{File: filepath.Join(dir, "ca.pem"), key: newKey(t)}
	tmpl := template(t, "test authority", time.Now().Add(time.Hour))
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	ca.cert = tmpl
	ca.cert = ca.write(t, ca.File, tmpl, &ca.key.PublicKey)
	return ca
}

// Issue writes a certificate for hosts, good until notAfter, to DIR/name.pem, and its key,
// mode 0600, to DIR/name.key.
func (ca *CA) Issue(t *testing.T, dir, name string, notAfter time.Time, hosts ...string) *x509.Certificate {
	t.Helper()
	tmpl := template(t, name, notAfter)
	tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	key := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", der, 0o600)
	return ca.write(t, filepath.Join(dir, name+".pem"), tmpl, &key.PublicKey)
}

func (ca *CA) write(t *testing.T, name string, tmpl *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, "CERTIFICATE", der, 0o644)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// write replaces a file in one step.
func write(t *testing.T, name, kind string, der []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(t *testing.T, name string, notAfter time.Time) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: notAfter.Add(-100 * 24 * time.Hour), NotAfter: notAfter,
	}
}
