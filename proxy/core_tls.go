package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

var errNoTLS = errors.New("core link: TLS is not configured")

// clientTLS makes a connection that we have opened a TLS one. It closes conn where that
// fails.
func (l *coreLink) clientTLS(ctx context.Context, conn net.Conn, name string) (net.Conn, error) {
	if l.p.cfg.Core.TLS == nil {
		_ = conn.Close()
		return nil, errNoTLS
	}
	cfg := l.p.cfg.Core.TLS.Clone()
	cfg.ServerName = name
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// ServeCoreTLS takes TLS connections of the core until ctx ends, then closes ln; ln's port
// is Core.TLSPort. The core proves itself by a certificate that Core.TLS trusts, as we do
// by ours: what comes on them is believed as what comes on the other sockets.
func (p *Proxy) ServeCoreTLS(ctx context.Context, ln net.Listener) error {
	defer func() { _ = ln.Close() }()
	if p.cfg.Core.TLS == nil {
		return errNoTLS
	}
	cfg := p.cfg.Core.TLS.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if cfg.ClientCAs == nil {
		cfg.ClientCAs = cfg.RootCAs
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	if err := p.core.accept(tls.NewListener(ln, cfg), "TLS"); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// serverHandshake finishes the handshake of a connection that the core has opened, within
// dialTimeout.
func serverHandshake(ctx context.Context, conn net.Conn) error {
	c, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.HandshakeContext(ctx)
}
