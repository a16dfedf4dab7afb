package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"epcscf/bench/internal/subject"
	"epcscf/turncred"
)

// domain is the home domain of every WIC.
const domain = "ims.test"

// bench is what all measurements share: a directory with a certificate, and the core.
type bench struct {
	settings
	progress io.Writer
	dir      string
	certFile string
	keyFile  string
	roots    *x509.CertPool // only the certificate that was made for this run
	core     *core
	edges    []contender
}

// contender is an edge that can be started.
type contender struct {
	name       string
	credential string // the header that each 200 must carry
	ours       bool
	start      func(context.Context) (*edge, error)
}

// edge is a started contender.
type edge struct {
	addr    string // of its WSS listener
	pid     int
	control *subject.Control // nil: not ours
	stop    func()
}

func newBench(s settings, progress io.Writer) (_ *bench, err error) {
	b := &bench{settings: s, progress: progress}
	if s.profile != "" {
		if err := os.MkdirAll(s.profile, 0o700); err != nil {
			return nil, fmt.Errorf("-profile: %w", err)
		}
	}
	if b.dir, err = os.MkdirTemp("", "registration-bench-"); err != nil {
		return nil, err
	}
	if err = b.makeCertificate(); err == nil {
		b.core, err = newCore()
	}
	if err != nil {
		_ = os.RemoveAll(b.dir)
		return nil, err
	}
	all := []contender{b.ourEdge(turncred.ApproachSharedKey), b.ourEdge(turncred.ApproachPush)}
	if k, err := b.kamailioEdge(); err != nil {
		b.say("kamailio is left out: %v", err)
	} else {
		all = append(all, k)
	}
	for _, c := range all {
		if strings.Contains(c.name, s.only) {
			b.edges = append(b.edges, c)
		}
	}
	if len(b.edges) == 0 {
		b.close()
		return nil, fmt.Errorf("-only %q leaves no edge", s.only)
	}
	return b, nil
}

func (b *bench) close() {
	b.core.close()
	_ = os.RemoveAll(b.dir)
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, format+"\n", args...)
}

// makeCertificate makes the ECDSA P-256 certificate that every edge serves. The flows trust
// nothing else, so they cannot reach someone else's server by mistake.
func (b *bench) makeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "registration bench"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	b.certFile, b.keyFile = filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	if err := os.WriteFile(b.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(b.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	b.roots = x509.NewCertPool()
	b.roots.AddCert(cert)
	return nil
}
