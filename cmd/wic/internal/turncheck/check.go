// Package turncheck shows that a TURN credential works at a URI: it makes two
// allocations and sends a datagram from the one through the relay to the other, and back.
//
//	a == URI == relayed address A --> relayed address B == URI == b
//
// So nothing but the relay is needed, and a relay that denies loopback and private
// peers passes too (RFC 8656 §21.1.7 leaves relayed addresses reachable).
package turncheck

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/cmd/wic/internal/hint"
	"epcscf/turncred"
)

// resend is how long one waits for a datagram before sending it again: UDP may lose it.
const resend = 500 * time.Millisecond

// Credential is a long-term credential.
type Credential struct {
	Username string
	Password turncred.Secret
	Realm    turncred.Realm
}

// Result is what a check of one URI found.
type Result struct {
	URI       string
	Relayed   string        // relayed transport address of the first allocation
	Allocate  time.Duration // from dialling to the first allocation
	RoundTrip time.Duration // of the datagram, through the relay and back
	Err       error         // nil: the URI works
}

// Check checks a URI until ctx ends. roots are the authorities for turns; nil are the system's.
func Check(ctx context.Context, uri string, cred Credential, roots *x509.CertPool) Result {
	r := Result{URI: uri}
	u, err := parseURI(uri)
	if err != nil {
		r.Err = err
		return r
	}
	start := time.Now()
	a, err := open(ctx, u, cred, roots)
	if err != nil {
		r.Err = err
		return r
	}
	defer a.close()
	r.Allocate, r.Relayed = time.Since(start), a.relay.LocalAddr().String()
	b, err := open(ctx, u, cred, roots)
	if err != nil {
		r.Err = fmt.Errorf("second allocation: %w", err)
		return r
	}
	defer b.close()
	if err := b.client.CreatePermission(a.relay.LocalAddr()); err != nil {
		r.Err = b.explain("create a permission", err)
		return r
	}
	start = time.Now()
	there, back := []byte(rand.Text()), []byte(rand.Text())
	if err := pass(ctx, a, b, there); err != nil {
		r.Err = fmt.Errorf("datagram from %s to %s: %w", a.relay.LocalAddr(), b.relay.LocalAddr(), err)
		return r
	}
	if err := pass(ctx, b, a, back); err != nil {
		r.Err = fmt.Errorf("datagram from %s back to %s: %w", b.relay.LocalAddr(), a.relay.LocalAddr(), err)
		return r
	}
	r.RoundTrip = time.Since(start)
	return r
}

// allocation is one allocation with its connection.
type allocation struct {
	ctx    context.Context // ends where the connection does, with the cause
	cancel context.CancelCauseFunc
	addr   string
	conn   net.PacketConn
	client *turn.Client
	relay  net.PacketConn
	stop   func() bool
}

// open connects to u and allocates.
func open(ctx context.Context, u uri, cred Credential, roots *x509.CertPool) (*allocation, error) {
	conn, err := dial(ctx, u, roots)
	if err != nil {
		return nil, hint.Dial(u.addr, err)
	}
	a := &allocation{addr: u.addr}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.conn = watched{conn, a.cancel}
	a.client, err = turn.NewClient(&turn.ClientConfig{
		// The connection knows where it goes. pion would resolve a name itself, IPv4 only.
		TURNServerAddr: "127.0.0.1:3478",
		Conn:           a.conn,
		Username:       cred.Username,
		Password:       string(cred.Password.Reveal()),
		Realm:          string(cred.Realm),
		// pion's logger would write to standard output, into our JSON.
		LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled},
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	// pion takes no context: closing is what ends its waits.
	a.stop = context.AfterFunc(a.ctx, func() {
		_ = a.conn.Close()
		a.client.Close()
	})
	if err = a.client.Listen(); err == nil {
		a.relay, err = a.client.Allocate()
	}
	if err != nil {
		err = a.explain("allocate", err)
		a.close()
		return nil, err
	}
	return a, nil
}

func dial(ctx context.Context, u uri, roots *x509.CertPool) (net.PacketConn, error) {
	if u.secure {
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: u.host, MinVersion: tls.VersionTLS12}}
		c, err := d.DialContext(ctx, "tcp", u.addr)
		if err != nil {
			return nil, err
		}
		return turn.NewSTUNConn(c), nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, u.transport, u.addr)
	if err != nil {
		return nil, err
	}
	if u.transport == "tcp" {
		return turn.NewSTUNConn(c), nil
	}
	return connected{c}, nil
}

// connected is a connected UDP socket, which learns of a closed port by ICMP.
type connected struct{ net.Conn }

func (c connected) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := c.Read(p)
	return n, c.RemoteAddr(), err
}

func (c connected) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Write(p) }

// watched ends what waits where reading fails.
type watched struct {
	net.PacketConn
	failed context.CancelCauseFunc
}

func (w watched) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := w.PacketConn.ReadFrom(p)
	if err != nil {
		w.failed(err)
	}
	return n, from, err
}

// close ends the allocation (Refresh with lifetime 0) and its connection.
func (a *allocation) close() {
	a.stop()
	if a.relay != nil {
		_ = a.relay.Close()
	}
	a.client.Close()
	_ = a.conn.Close()
	a.cancel(nil)
}

// pass sends a datagram until it arrives.
func pass(ctx context.Context, from, to *allocation, payload []byte) error {
	buf := make([]byte, 1500)
	for {
		if _, err := from.relay.WriteTo(payload, to.relay.LocalAddr()); err != nil {
			return from.explain("send", err)
		}
		if err := to.relay.SetReadDeadline(time.Now().Add(resend)); err != nil {
			return err
		}
		for {
			n, peer, err := to.relay.ReadFrom(buf)
			if err != nil && !hint.Timeout(err) {
				return to.explain("receive", err)
			}
			if err != nil {
				break
			}
			// An earlier copy of another datagram may still be on its way.
			if bytes.Equal(buf[:n], payload) && peer.String() == from.relay.LocalAddr().String() {
				return nil
			}
		}
		if ctx.Err() != nil {
			return errors.New("it did not arrive in time: does the relay let two of its relayed addresses talk?")
		}
	}
}

var errorCode = regexp.MustCompile(`\(error (\d{3})`)

// explain says what a failed step means.
func (a *allocation) explain(step string, err error) error {
	if cause := context.Cause(a.ctx); cause != nil {
		if errors.Is(cause, io.EOF) {
			return fmt.Errorf("%s: %s closed the connection", step, a.addr)
		}
		return fmt.Errorf("%s: %w", step, hint.Dial(a.addr, cause))
	}
	text := err.Error()
	m := errorCode.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("%s at %s: %w", step, a.addr, err)
	}
	why := map[string]string{
		"400": "the relay finds the request malformed",
		"401": "the relay refuses the credential: does it have the same key and realm as the edge, and the right time?",
		"403": "the relay forbids this peer by its policy",
		"437": "the relay mixes up allocations: an old one lives at this address",
		"438": "the nonce is stale",
		"440": "the relay does not give addresses of this family",
		"441": "the allocation belongs to another credential",
		"442": "the relay does not relay this transport",
		"486": "the user's quota of allocations is reached",
		"508": "the relay has no capacity: no relay port is free",
	}[m[1]]
	if why == "" {
		why = "see RFC 8656 section 19"
	}
	return fmt.Errorf("%s at %s: error %s: %s", step, a.addr, strings.TrimPrefix(m[0], "(error "), why)
}
