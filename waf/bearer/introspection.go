package bearer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"epcscf/turncred"
)

const (
	maxCached            = 10_000
	maxIntrospectionBody = 64 << 10
)

// IntrospectionConfig configures an Introspection. Expected, URL, ClientID and Secret must
// be set.
type IntrospectionConfig struct {
	Expected Expected
	URL      string // https: the WAF's introspection endpoint
	ClientID string // how the WAF knows us
	Secret   turncred.Secret
	// CacheTTL is how long an answer is good: the longest time for which a revocation can
	// go unseen. Default 1 s.
	CacheTTL time.Duration
	Client   *http.Client     // default: one with a timeout of 5 s
	Now      func() time.Time // default time.Now
}

// Introspection verifies tokens by asking the WAF (RFC 7662). Safe for concurrent use.
type Introspection struct {
	cfg    IntrospectionConfig
	flight singleflight.Group

	mu    sync.Mutex // guards cache
	cache map[[sha256.Size]byte]answer
}

// answer is what the WAF said of a token.
type answer struct {
	claims Claims
	err    error
	until  time.Time
}

// NewIntrospection checks cfg.
func NewIntrospection(cfg IntrospectionConfig) (*Introspection, error) {
	if cfg.Expected.Issuer == "" || cfg.Expected.Audience == "" || cfg.URL == "" || cfg.ClientID == "" || cfg.Secret.Len() == 0 {
		return nil, errors.New("bearer: issuer, audience, URL, ClientID and Secret must be set")
	}
	if u, err := url.Parse(cfg.URL); err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("bearer: URL is %q, want https (RFC 7662 §4)", cfg.URL)
	}
	if cfg.CacheTTL <= 0 {
		cfg.CacheTTL = time.Second
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: 5 * time.Second}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Introspection{cfg: cfg, cache: map[[sha256.Size]byte]answer{}}, nil
}

// Verify returns what the WAF says of token. Errors are as those of Offline.
func (i *Introspection) Verify(ctx context.Context, token string) (Claims, error) {
	if len(token) > MaxTokenLen {
		return Claims{}, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxTokenLen)
	}
	key := sha256.Sum256([]byte(token)) // the cache keeps no tokens
	a, ok := i.cached(key)
	if !ok {
		// Those who bring one token at a time ask once. The asking outlives the first of
		// them, since the others wait for it; the client's timeout bounds it.
		res := i.flight.DoChan(string(key[:]), func() (any, error) { return i.ask(context.WithoutCancel(ctx), key, token) })
		select {
		case <-ctx.Done():
			return Claims{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		case r := <-res:
			if r.Err != nil {
				return Claims{}, fmt.Errorf("%w: %w", ErrUnavailable, r.Err)
			}
			a = r.Val.(answer)
		}
	}
	if a.err != nil {
		return Claims{}, a.err
	}
	if err := i.cfg.Expected.check(a.claims, i.cfg.Now()); err != nil {
		return Claims{}, err
	}
	return a.claims, nil
}

func (i *Introspection) cached(key [sha256.Size]byte) (answer, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	a, ok := i.cache[key]
	return a, ok && i.cfg.Now().Before(a.until)
}

// keep remembers a; a full cache forgets what is stale or else anything.
func (i *Introspection) keep(key [sha256.Size]byte, a answer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.cache) >= maxCached {
		now := i.cfg.Now()
		for k, old := range i.cache {
			if !now.Before(old.until) || len(i.cache) >= maxCached {
				delete(i.cache, k)
			}
		}
	}
	i.cache[key] = a
}

// ask makes the request of RFC 7662 §2.1. An error is the WAF's failing, not the token's.
func (i *Introspection) ask(ctx context.Context, key [sha256.Size]byte, token string) (answer, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.cfg.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	// RFC 6749 §2.3.1: both are form-encoded first.
	req.SetBasicAuth(url.QueryEscape(i.cfg.ClientID), url.QueryEscape(string(i.cfg.Secret.Reveal())))
	resp, err := i.cfg.Client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("introspection answers %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIntrospectionBody))
	if err != nil {
		return answer{}, err
	}
	var said struct {
		Active bool `json:"active"`
	}
	a := answer{until: i.cfg.Now().Add(i.cfg.CacheTTL)}
	if err := json.Unmarshal(body, &said); err != nil {
		return answer{}, fmt.Errorf("introspection: %w", err)
	}
	if !said.Active {
		a.err = fmt.Errorf("%w: not active", ErrInvalid)
	} else if err := json.Unmarshal(body, &a.claims); err != nil {
		return answer{}, fmt.Errorf("introspection: %w", err)
	}
	i.keep(key, a)
	return a, nil
}
