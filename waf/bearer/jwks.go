package bearer

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	// keysFresh is how long keys are used before they are asked for again: a key that the
	// WAF withdrew is good for no longer.
	keysFresh = 5 * time.Minute
	// keysPause is the least time between two requests, so that tokens with made-up kids
	// cannot turn the verifier against the WAF.
	keysPause   = 10 * time.Second
	maxKeysBody = 64 << 10
	maxKeys     = 32
)

// RemoteKeys are a WAF's keys by its JWKS (RFC 7517 §5), fetched when first needed. While
// the WAF does not answer, the last ones go on. Safe for concurrent use.
type RemoteKeys struct {
	url    string
	client *http.Client
	now    func() time.Time

	flight singleflight.Group

	mu      sync.Mutex // guards the fields below
	keys    map[string]crypto.PublicKey
	fetched time.Time // last success
	tried   time.Time
	err     error // of the last try
}

// NewRemoteKeys returns the keys at url. client should have a timeout; nil is one of 5 s.
// now is time.Now where it is nil.
func NewRemoteKeys(url string, client *http.Client, now func() time.Time) *RemoteKeys {
	if client == nil {
		client = &http.Client{Timeout: 5 * time.Second}
	}
	if now == nil {
		now = time.Now
	}
	return &RemoteKeys{url: url, client: client, now: now}
}

// Key implements Keys. An unknown kid is looked up again, for a new key may be there.
func (r *RemoteKeys) Key(ctx context.Context, kid string) (crypto.PublicKey, error) {
	key, due := r.lookup(kid)
	if key != nil && !due {
		return key, nil
	}
	// Those who wait for one answer ask once. The asking outlives the first of them; the
	// client's timeout bounds it.
	res := r.flight.DoChan("", func() (any, error) { return nil, r.refresh(context.WithoutCancel(ctx)) })
	if key != nil { // an older answer serves meanwhile
		return key, nil
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: keys of the WAF: %w", ErrUnavailable, ctx.Err())
	case got := <-res:
		if key, _ = r.lookup(kid); key != nil {
			return key, nil
		}
		if got.Err != nil {
			return nil, fmt.Errorf("%w: keys of the WAF: %w", ErrUnavailable, got.Err)
		}
	}
	return nil, fmt.Errorf("%w: unknown kid", ErrInvalid)
}

// lookup returns the key, if it is known, and whether the WAF should be asked.
func (r *RemoteKeys) lookup(kid string) (key crypto.PublicKey, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key = r.keys[kid]
	return key, key == nil || r.now().Sub(r.fetched) >= keysFresh
}

// refresh asks the WAF, unless it was asked a moment ago.
func (r *RemoteKeys) refresh(ctx context.Context) error {
	r.mu.Lock()
	now := r.now()
	if now.Sub(r.tried) < keysPause {
		defer r.mu.Unlock()
		return r.err
	}
	r.tried = now
	r.mu.Unlock()

	keys, err := r.fetch(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.keys, r.fetched = keys, now
	}
	return err
}

func (r *RemoteKeys) fetch(ctx context.Context) (map[string]crypto.PublicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", r.url, resp.StatusCode)
	}
	keys, err := ReadKeys(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.url, err)
	}
	return keys, nil
}

// KnownKeys are keys by their kid, which do not change.
type KnownKeys map[string]crypto.PublicKey

// Key implements Keys.
func (k KnownKeys) Key(_ context.Context, kid string) (crypto.PublicKey, error) {
	if key := k[kid]; key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("%w: unknown kid", ErrInvalid)
}

// ReadKeys reads a JWKS, and leaves out what could verify no token.
func ReadKeys(r io.Reader) (KnownKeys, error) {
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(io.LimitReader(r, maxKeysBody)).Decode(&set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, errors.New("too many keys")
	}
	keys := KnownKeys{}
	for _, k := range set.Keys {
		if k.KeyID != "" && k.IsPublic() && k.Valid() && (k.Use == "" || k.Use == "sig") {
			keys[k.KeyID] = k.Key
		}
	}
	return keys, nil
}
