// Package client is a WIC without a browser: it registers over secure WebSocket
// (RFC 7118), asks for a TURN credential (TS 33.203 X.5.2) and renews it by OPTIONS.
//
//	Dial -> Register -> Options ... -> Deregister -> Close
//
// It takes no calls: what others send it gets a 405.
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
	"github.com/icholy/digest"

	"epcscf/cmd/wic/internal/hint"
	"epcscf/turncred"
)

const (
	// maxMessage bounds a message from the server.
	maxMessage   = 64 << 10
	writeTimeout = 5 * time.Second
)

// Config configures a Client. URL, Domain, User, and Password or Token must be set.
type Config struct {
	URL      string // wss://host[:port]/path
	Domain   string // home domain
	User     string // user part of the public identity
	AuthUser string // digest user name; default User
	Password turncred.Secret
	// Token returns an access token to register with in place of the password (RFC 8898). It
	// is called for each request, so that it can be renewed. nil: there is none.
	Token   func() (turncred.Secret, error)
	Roots   *x509.CertPool // nil: the system's
	Origin  string         // "" sends none
	Expires time.Duration  // wish for the registration; default 600 s
	Agent   string         // User-Agent; "" sends none
}

// Client is one connection with at most one registration. Its methods other than Close
// are for one goroutine.
type Client struct {
	cfg      Config
	ws       *websocket.Conn
	host     string // random .invalid name of Via and Contact (RFC 7118 Appendix B.1)
	instance string // urn:uuid (RFC 5626 §4.1)
	callID   string
	tag      string
	cseq     uint32

	challenge *digest.Challenge // the last one, with the count of its uses
	count     int

	writing sync.Mutex // one writer on ws

	mu      sync.Mutex // guards waiting
	waiting map[string]chan *sip.Response

	done    chan struct{} // closed when the reader has ended
	readErr error         // why; set before done is closed
}

// Dial connects. An error says what to do.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "wss" || u.Host == "" {
		return nil, fmt.Errorf("URL %q: want wss://HOST:PORT/PATH", cfg.URL)
	}
	if cfg.AuthUser == "" {
		cfg.AuthUser = cfg.User
	}
	if cfg.Expires == 0 {
		cfg.Expires = 600 * time.Second
	}
	d := websocket.Dialer{
		Subprotocols:    []string{"sip"}, // RFC 7118 §4.1
		TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
	}
	header := http.Header{}
	if cfg.Origin != "" {
		header.Set("Origin", cfg.Origin)
	}
	ws, res, err := d.DialContext(ctx, cfg.URL, header)
	if err != nil {
		return nil, dialError(u, res, err)
	}
	if ws.Subprotocol() != "sip" {
		_ = ws.Close()
		return nil, fmt.Errorf("%s accepts WebSockets, but not the subprotocol sip: it is no SIP server", cfg.URL)
	}
	ws.SetReadLimit(maxMessage)
	c := &Client{
		cfg: cfg, ws: ws, host: strings.ToLower(rand.Text()[:12]) + ".invalid", instance: newUUID(),
		callID: rand.Text(), tag: rand.Text()[:10],
		waiting: map[string]chan *sip.Response{}, done: make(chan struct{}),
	}
	go c.readLoop()
	return c, nil
}

func dialError(u *url.URL, res *http.Response, err error) error {
	if res == nil {
		addr := u.Host
		if u.Port() == "" {
			addr = net.JoinHostPort(u.Hostname(), "443")
		}
		return hint.Dial(addr, err)
	}
	// The body says more than the status; gorilla keeps its first kilobyte.
	body, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
	text := printable(strings.TrimSpace(string(body)))
	switch res.StatusCode {
	case http.StatusForbidden:
		return fmt.Errorf("%s: 403 Forbidden: %s (--origin sets the Origin)", u, text)
	case http.StatusNotFound, http.StatusOK:
		return fmt.Errorf("%s: %s: no WebSocket at this path; the edge has it at / and /ws", u, res.Status)
	}
	return fmt.Errorf("%s: %s: %s", u, res.Status, text)
}

// newUUID returns a random UUID (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Close ends the connection and waits for its reader. It can be called twice.
func (c *Client) Close() error {
	c.writing.Lock()
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(writeTimeout))
	c.writing.Unlock()
	_ = c.ws.Close()
	<-c.done
	return nil
}

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended; call it after Done.
func (c *Client) Err() error { return c.readErr }

// readLoop is the only reader: one WebSocket message is one SIP message (RFC 7118 §5).
func (c *Client) readLoop() {
	defer close(c.done)
	for {
		_, raw, err := c.ws.ReadMessage()
		if err != nil {
			c.readErr = closedError(err)
			return
		}
		m, err := sip.ParseMessage(raw)
		if err != nil {
			continue // a keep-alive, or nothing that we could answer
		}
		switch m := m.(type) {
		case *sip.Response:
			c.deliver(m)
		case *sip.Request:
			c.refuse(m)
		}
	}
}

func closedError(err error) error {
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		return fmt.Errorf("the server closed the connection: %d %s", ce.Code, printable(ce.Text))
	}
	return fmt.Errorf("the connection is lost: %w", err)
}

// deliver hands a final response to whom it is for.
func (c *Client) deliver(res *sip.Response) {
	via := res.Via()
	if via == nil || res.CSeq() == nil || res.IsProvisional() {
		return
	}
	branch, _ := via.Params.Get("branch")
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.waiting[branch]; ch != nil {
		delete(c.waiting, branch)
		ch <- res // has room for one
	}
}

// refuse answers requests of others, so that they do not wait: OPTIONS with what we
// are, the rest with 405.
func (c *Client) refuse(req *sip.Request) {
	if req.IsAck() || req.Via() == nil || req.From() == nil || req.To() == nil || req.CSeq() == nil {
		return
	}
	code, reason := sip.StatusMethodNotAllowed, "Method Not Allowed"
	if req.Method == sip.OPTIONS {
		code, reason = sip.StatusOK, "OK"
	}
	res := sip.NewResponseFromRequest(req, code, reason, nil)
	res.AppendHeader(sip.NewHeader("Allow", "OPTIONS"))
	_ = c.write(res)
}

func (c *Client) write(m sip.Message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(writeTimeout))
	return c.ws.WriteMessage(websocket.TextMessage, []byte(m.String()))
}

// exchange sends a request and returns its final response.
func (c *Client) exchange(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	branch, _ := req.Via().Params.Get("branch")
	ch := make(chan *sip.Response, 1)
	c.mu.Lock()
	c.waiting[branch] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, branch)
	}()
	if err := c.write(req); err != nil {
		return nil, fmt.Errorf("send %s: %w", req.Method, err)
	}
	select {
	case res := <-ch:
		return res, nil
	case <-c.done:
		return nil, fmt.Errorf("%s: no answer: %w", req.Method, c.readErr)
	case <-ctx.Done():
		if hint.Timeout(ctx.Err()) {
			return nil, fmt.Errorf("%s: no answer from %s in time: does the edge reach its core? --timeout gives it longer", req.Method, c.cfg.URL)
		}
		return nil, fmt.Errorf("%s: %w", req.Method, ctx.Err())
	}
}

// printable replaces what a terminal might act on: the text is a stranger's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
