package hint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestDial(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "use --ca DIR/ca.pem"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "relay.test"}, "does not speak for relay.test"},
		{x509.CertificateInvalidError{Reason: x509.Expired}, "is not valid"},
		{tls.RecordHeaderError{}, "does not speak TLS"},
		{&net.OpError{Err: syscall.ECONNREFUSED}, "nothing listens there"},
		{&net.DNSError{IsNotFound: true}, "does not resolve"},
		{context.DeadlineExceeded, "in time"},
		{errors.New("something else"), "something else"},
	} {
		got := Dial("relay.test:5349", fmt.Errorf("dial: %w", tt.err)).Error()
		if !strings.Contains(got, tt.want) || !strings.Contains(got, "relay.test") {
			t.Errorf("Dial(%v) = %q, want %q in it", tt.err, got, tt.want)
		}
	}
}
