package stunkey

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/token"
)

// ClientConfig configures a Client. URL, Name, Domain, Keys and Use must be set.
type ClientConfig struct {
	URL    string    // of the WAF: https://HOST:PORT
	Name   string    // our STUN server name
	Domain string    // of the certificates
	Keys   push.Keys // our certificate, and the authorities
	// Use takes all keys that tokens may still be under, each time that one of them is new.
	Use func([]token.Key) error
	// Known are keys that Use was given in an earlier life: they go on as if asked for.
	Known []token.Key
	// MaxLifetime is the longest life of a token: how long a key is kept after its end.
	// Default 1 h.
	MaxLifetime time.Duration
	Logger      *slog.Logger     // default: none
	Now         func() time.Time // default time.Now
}

// Client is the relay's side.
type Client struct {
	cfg   ClientConfig
	url   string
	after func(time.Duration) <-chan time.Time

	mu   sync.Mutex // guards keys
	keys map[turncred.KeyID]token.Key
}

// NewClient checks cfg. It asks for nothing before Run.
func NewClient(cfg ClientConfig) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("stunkey: URL is %q, want https://HOST:PORT", cfg.URL)
	}
	if cfg.Name == "" || cfg.Domain == "" || cfg.Keys == nil || cfg.Use == nil {
		return nil, errors.New("stunkey: Name, Domain, Keys and Use must be set")
	}
	if cfg.MaxLifetime == 0 {
		cfg.MaxLifetime = time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	u.Path, u.RawQuery = Path, url.Values{"service": {service}, "name": {cfg.Name}}.Encode()
	c := &Client{cfg: cfg, url: u.String(), after: time.After, keys: map[turncred.KeyID]token.Key{}}
	for _, k := range cfg.Known {
		c.keys[k.ID] = k
	}
	c.forget(c.keys, cfg.Now())
	return c, nil
}

// Run asks at once, then every few minutes and well before a key's end, until ctx ends. While
// the WAF does not answer the keys that are there go on, and it asks again each minute.
func (c *Client) Run(ctx context.Context) error {
	failures := 0
	for {
		wait, err := c.renew(ctx)
		if err == nil {
			failures = 0
		} else {
			wait = min(time.Second<<min(failures, 6), time.Minute)
			failures++
			c.cfg.Logger.Error("no key from the WAF", "err", err)
		}
		wait += time.Duration(rand.Int64N(int64(wait/4) + 1)) //nolint:gosec // G404: relays that started together should not ask together
		select {
		case <-ctx.Done():
			return nil
		case <-c.after(wait):
		}
	}
}

// renew asks once and puts the ring to use. It returns when to ask again.
func (c *Client) renew(ctx context.Context) (time.Duration, error) {
	k, err := c.ask(ctx)
	if err != nil {
		return 0, err
	}
	now := c.cfg.Now()
	if !now.Before(k.NotAfter) {
		return 0, fmt.Errorf("key %s has ended", k.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, there := c.keys[k.ID]; there && (!old.Secret.Equal(k.Secret) || old.Algorithm != k.Algorithm) {
		return 0, fmt.Errorf("key %s is another than before", k.ID)
	}
	keys := maps.Clone(c.keys)
	keys[k.ID] = k
	c.forget(keys, now)
	if old, there := c.keys[k.ID]; !there || len(keys) != len(c.keys) || !old.NotAfter.Equal(k.NotAfter) {
		if _, err := token.NewKeyRing(k); err != nil {
			return 0, err
		}
		if err := c.cfg.Use(sorted(keys)); err != nil {
			return 0, err
		}
	}
	c.keys = keys
	return max(time.Second, min(askEvery, k.NotAfter.Sub(now)/2)), nil
}

// forget drops the keys under which no token is good any more.
func (c *Client) forget(keys map[turncred.KeyID]token.Key, now time.Time) {
	maps.DeleteFunc(keys, func(_ turncred.KeyID, k token.Key) bool {
		return now.After(k.NotAfter.Add(c.cfg.MaxLifetime + token.Delta))
	})
}

func sorted(keys map[turncred.KeyID]token.Key) (all []token.Key) {
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		all = append(all, keys[id])
	}
	return all
}

// maxBody bounds an answer.
const maxBody = 16 << 10

func (c *Client) ask(ctx context.Context) (k token.Key, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return k, err
	}
	// A connection for each time: certificates and authorities may have been renewed.
	transport := &http.Transport{TLSClientConfig: c.tls(req.URL.Hostname()), ForceAttemptHTTP2: true, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req) // no redirects: the key comes from the WAF or not at all
	if err != nil {
		return k, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return k, fmt.Errorf("WAF answers %d", resp.StatusCode)
	}
	var w wireKey
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&w); err != nil {
		return k, errors.New("WAF's answer is no key") // the decoder's text may quote it
	}
	return parseKey(w)
}

// parseKey reads an answer; errors do not show it.
func parseKey(w wireKey) (token.Key, error) {
	secret, err := base64.RawURLEncoding.DecodeString(w.K)
	if err != nil {
		return token.Key{}, errors.New("k is not base64url")
	}
	alg, err := token.ParseAlgorithm(w.Enc)
	if err != nil {
		return token.Key{}, err
	}
	id, err := turncred.ParseKeyID(w.Kid)
	if err != nil {
		return token.Key{}, err
	}
	return token.Key{ID: id, Secret: turncred.NewSecret(secret), Algorithm: alg, NotAfter: time.Unix(w.Exp, 0)}, nil
}

// tls trusts the deployment's authority alone, and in it only the WAF.
func (c *Client) tls(host string) *tls.Config {
	pool := c.cfg.Keys.Authorities()
	if pool == nil {
		pool = x509.NewCertPool() // nil would be the system's
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: host, Certificates: []tls.Certificate{*c.cfg.Keys.Certificate()},
		VerifyConnection: func(s tls.ConnectionState) error {
			p, err := push.PeerOf(s.PeerCertificates[0], c.cfg.Domain)
			if err == nil && p.Role != push.RoleWAF {
				err = fmt.Errorf("%w: %s has not the role of the WAF", push.ErrPeer, p)
			}
			return err
		},
	}
}
