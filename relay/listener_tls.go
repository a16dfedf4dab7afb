package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// handshakeTimeout bounds the TLS handshake.
const handshakeTimeout = 5 * time.Second

// strongSuites are the suites of TLS 1.2 that RFC 9325 §4.2 recommends, and ChaCha20's;
// those of TLS 1.3 are all good and not configurable.
var strongSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ServeTLS answers clients on ln, which yields plain connections, until Close and then
// returns nil. Of cfg it wants the certificate; TLS below 1.2 is refused whatever cfg says.
func (s *Server) ServeTLS(ln net.Listener, cfg *tls.Config) error {
	if cfg == nil || len(cfg.Certificates) == 0 && cfg.GetCertificate == nil {
		_ = ln.Close()
		return errors.New("relay: ServeTLS wants a certificate")
	}
	return s.serveListener(ln, TLS, secureWith(cfg))
}

// secureWith returns what makes TLS of a connection.
func secureWith(cfg *tls.Config) secureFunc {
	cfg = cfg.Clone()
	cfg.GetConfigForClient = nil // it could go below what follows
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	if cfg.CipherSuites == nil {
		cfg.CipherSuites = strongSuites
	}
	if cfg.NextProtos == nil {
		cfg.NextProtos = []string{"stun.turn", "stun.nat-discovery"} // RFC 7443 §3
	}
	return func(ctx context.Context, c net.Conn) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		conn := tls.Server(c, cfg)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return conn, nil
	}
}
