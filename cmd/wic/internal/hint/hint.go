// Package hint turns the errors of dialling, which name system calls, into errors that
// name what an operator can do.
package hint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Dial says what a failure to connect to addr, or to agree on TLS with it, means.
func Dial(addr string, err error) error {
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		host = addr
	}
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("the certificate of %s is signed by an authority that is unknown here: use --ca DIR/ca.pem with the server's data directory", addr)
	case errors.As(err, &name):
		return fmt.Errorf("the certificate of %s does not speak for %s: %w", addr, host, err)
	case errors.As(err, &invalid):
		return fmt.Errorf("the certificate of %s is not valid: %w", addr, err)
	case errors.As(err, &record):
		return fmt.Errorf("%s does not speak TLS: check the port", addr)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("connection refused by %s: nothing listens there; is the server running, and the address right?", addr)
	case errors.As(err, &dns):
		return fmt.Errorf("the name %s does not resolve: %w", host, err)
	case Timeout(err):
		return fmt.Errorf("no answer from %s in time: is a firewall between? --timeout gives it longer", addr)
	}
	return fmt.Errorf("%s: %w", addr, err)
}

// Timeout reports whether err says that time ran out.
func Timeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
