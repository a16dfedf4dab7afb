package push

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// Keys are a node's certificate and the authorities whose certificates it takes. Either
// may be renewed at any time: a renewed pool is another pointer.
type Keys interface {
	Certificate() *tls.Certificate
	Authorities() *x509.CertPool
}

// FixedKeys are Keys that never change.
type FixedKeys struct {
	Pair tls.Certificate
	Pool *x509.CertPool
}

// Certificate implements Keys.
func (k *FixedKeys) Certificate() *tls.Certificate { return &k.Pair }

// Authorities implements Keys.
func (k *FixedKeys) Authorities() *x509.CertPool { return k.Pool }

// handshakeTimeout bounds what a stranger can hold open.
const handshakeTimeout = 5 * time.Second

// ServerTLS is the relay's side: TLS 1.3 and a certificate of both sides, or no handshake.
// There are no session tickets, so that no session outlives a change of the authorities.
func ServerTLS(k Keys) *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAndVerifyClientCert}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool := k.Authorities()
		if pool == nil { // nil would be no authority asked for, not none trusted
			return nil, errors.New("push: no authorities")
		}
		c := base.Clone()
		c.GetConfigForClient, c.ClientCAs, c.Certificates = nil, pool, []tls.Certificate{*k.Certificate()}
		return c, nil
	}
	// The server wants one to begin with; each handshake has its own.
	base.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.Certificate(), nil }
	return base
}

// clientTLS is the side of who writes, for one connection. Whoever has not the role that is
// looked for is told nothing, whatever host it speaks for.
func clientTLS(cfg ClientConfig) *tls.Config {
	pair := cfg.Keys.Certificate()
	pool := cfg.Keys.Authorities()
	if pool == nil {
		pool = x509.NewCertPool() // nil would be the system's
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, RootCAs: pool, ServerName: cfg.ServerName,
		Certificates: []tls.Certificate{*pair},
		VerifyConnection: func(s tls.ConnectionState) error {
			p, err := PeerOf(s.PeerCertificates[0], cfg.Domain)
			if err != nil {
				return err
			}
			if p.Role != cfg.Role {
				return fmt.Errorf("%w: %s has not the role %s", ErrPeer, p, cfg.Role)
			}
			return nil
		},
	}
}

// dialTLS connects and shakes hands.
func dialTLS(ctx context.Context, addr string, c *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 15 * time.Second}, Config: c}
	return d.DialContext(ctx, "tcp", addr)
}

// trust remembers under which authorities a connection's certificate was found good:
// connections outlive them.
type trust struct{ checked atomic.Pointer[x509.CertPool] }

func (t *trust) good(pool *x509.CertPool) bool { return pool != nil && t.checked.Load() == pool }
