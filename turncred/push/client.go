package push

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"epcscf/turncred"
)

// ClientConfig configures a Client. Address, Domain, Name, Epoch and Keys must be set.
type ClientConfig struct {
	Address    string // HOST:PORT of the relay's credential interface
	ServerName string // in the relay's certificate; default: the host of Address
	Role       Role   // in it too; default RoleRelay
	Domain     string // of the deployment
	Name       string // ours, as our certificate has it
	Epoch      uint64 // of our life
	Keys       Keys

	transport func(http.RoundTripper) http.RoundTripper // of tests
}

// Client speaks the credential interface with one relay. Errors that the relay answered
// are *Problem. Safe for concurrent use.
type Client struct {
	cfg  ClientConfig
	base string

	mu   sync.Mutex // guards the fields below
	http *http.Client
	pair *tls.Certificate // that connections were made with
	pool *x509.CertPool
}

// NewClient checks cfg. It connects with the first request.
func NewClient(cfg ClientConfig) (*Client, error) {
	host, _, _ := net.SplitHostPort(cfg.Address)
	switch {
	case CheckAddress(cfg.Address) != nil:
		return nil, fmt.Errorf("push client: Address: %w", CheckAddress(cfg.Address))
	case cfg.Domain == "" || cfg.Keys == nil:
		return nil, errors.New("push client: Domain or Keys is not set")
	case CheckPeerName(cfg.Name) != nil:
		return nil, fmt.Errorf("push client: Name: %w", CheckPeerName(cfg.Name))
	case cfg.Epoch == 0:
		return nil, errors.New("push client: Epoch is not set")
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if cfg.Role == "" {
		cfg.Role = RoleRelay
	}
	return &Client{cfg: cfg, base: "https://" + cfg.Address}, nil
}

// CheckAddress reports what is no address of a credential interface.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || host == "" {
		return fmt.Errorf("%q: want HOST:PORT", address)
	}
	return nil
}

// Close closes the connections that are idle.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// client returns one whose connections show the present certificate. A renewed one comes
// with connections of its own; requests that are under way end on theirs.
func (c *Client) client() *http.Client {
	pair, pool := c.cfg.Keys.Certificate(), c.cfg.Keys.Authorities()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil && c.pair == pair && c.pool == pool {
		return c.http
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	var rt http.RoundTripper = &http.Transport{
		Protocols: http2Only(), MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Minute, MaxResponseHeaderBytes: 16 << 10,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dialTLS(ctx, addr, clientTLS(c.cfg))
		},
	}
	if c.cfg.transport != nil {
		rt = c.cfg.transport(rt)
	}
	c.http, c.pair, c.pool = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, pair, pool
	return c.http
}

func http2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP2(true)
	return p
}

// Put writes a credential.
func (c *Client) Put(ctx context.Context, r Record) error {
	return c.do(ctx, http.MethodPut, credentialsPath+url.PathEscape(string(r.Tid)), bodyOf(r), nil)
}

// Revoke writes a revocation.
func (c *Client) Revoke(ctx context.Context, r turncred.Revocation) error {
	r = normal(r)
	b := revocationOf(r)
	switch {
	case r.Tid != "":
		return c.do(ctx, http.MethodDelete, credentialsPath+url.PathEscape(string(r.Tid))+"?"+b.query().Encode(), nil, nil)
	case r.KeyID != "": // has no resource of its own
		errs, err := c.Batch(ctx, []Item{{Revocation: &r}})
		return errors.Join(append(errs, err)...)
	}
	return c.do(ctx, http.MethodDelete, subjectsPath+r.Subject.String()+"?"+b.query().Encode(), nil, nil)
}

// Item is one of a batch: it has one of both.
type Item struct {
	Record     *Record
	Revocation *turncred.Revocation
}

// Batch writes up to 500 items, each of which has a result of its own, in their order. err
// is that of the request; none of the items may then count as written.
func (c *Client) Batch(ctx context.Context, items []Item) (results []error, err error) {
	var b batchBody
	for _, it := range items {
		if it.Record != nil {
			b.Items = append(b.Items, itemBody{Credential: named(*it.Record)})
		} else {
			b.Items = append(b.Items, itemBody{Revocation: revocationOf(normal(*it.Revocation))})
		}
	}
	var a batchAnswer
	if err := c.do(ctx, http.MethodPost, batchPath, b, &a); err != nil {
		return nil, err
	}
	if len(a.Results) != len(items) {
		return nil, fmt.Errorf("the relay answered %d of %d items", len(a.Results), len(items))
	}
	results = make([]error, len(items))
	for i, r := range a.Results {
		if r.Status != http.StatusNoContent {
			results[i] = problem(r.Status, r.Cause, "%s", r.Detail)
		}
	}
	return results, nil
}

// Snapshot writes what the relay should have, in as many requests as it takes. It returns
// the Tids that the relay has with another body.
func (c *Client) Snapshot(ctx context.Context, rs []Record, vs []turncred.Revocation) (conflicts []turncred.Tid, err error) {
	for len(rs)+len(vs) > 0 {
		var b snapshotBody
		n := min(len(vs), maxItems)
		for _, v := range vs[:n] {
			b.Revocations = append(b.Revocations, *revocationOf(normal(v)))
		}
		vs, n = vs[n:], min(len(rs), maxItems-n)
		for _, r := range rs[:n] {
			b.Credentials = append(b.Credentials, *named(r))
		}
		rs = rs[n:]
		var a snapshotAnswer
		if err := c.do(ctx, http.MethodPut, snapshotPath, b, &a); err != nil {
			return conflicts, err
		}
		for _, tid := range a.Conflicts {
			conflicts = append(conflicts, turncred.Tid(tid))
		}
	}
	return conflicts, nil
}

// Digest asks what the relay has of ours that is good after a time, which counts as the
// whole minute that it lies in.
func (c *Client) Digest(ctx context.Context, after time.Time) (State, error) {
	seconds := minute(after) * int64(period/time.Second)
	var b stateBody
	if err := c.do(ctx, http.MethodGet, digestPath+"?expires_after="+strconv.FormatInt(seconds, 10), nil, &b); err != nil {
		return State{}, err
	}
	s, err := b.state()
	if err != nil {
		return State{}, fmt.Errorf("the relay's answer: %w", err)
	}
	return s, nil
}

// Events follows what happens at the relay, from the event after a cursor, or from now
// where it is "". It returns when the stream ends, with nil where the relay ended it.
func (c *Client) Events(ctx context.Context, cursor string, f func(Event) error) error {
	path := eventsPath
	if cursor != "" {
		path += "?after=" + url.QueryEscape(cursor)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	silent := time.AfterFunc(2*aliveEvery, cancel)
	defer silent.Stop()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxSingle)
	for lines.Scan() {
		silent.Reset(2 * aliveEvery)
		var e Event
		if err := decodeAnswer(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("the relay's event: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return lines.Err()
}

// do sends a request and reads an answer into out.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxSingle))
		return err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return err
	}
	if err := decodeAnswer(data, out); err != nil {
		return fmt.Errorf("the relay's answer: %w", err)
	}
	return nil
}

// send returns a response of success. The error is a *Problem where the relay refuses.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set(nodeHeader, c.cfg.Name)
	r.Header.Set(epochHeader, strconv.FormatUint(c.cfg.Epoch, 10))
	res, err := c.client().Do(r)
	if err != nil {
		return nil, withoutURL(err)
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNoContent {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxSingle))
	p := &Problem{}
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || t != problemType || decodeAnswer(data, p) != nil {
		return nil, fmt.Errorf("the relay answered %s, which is none of this interface: is it one?", res.Status)
	}
	return nil, p
}

// withoutURL drops what net/http puts before an error: method and path say nothing here.
func withoutURL(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err
	}
	return err
}
