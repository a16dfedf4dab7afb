package stunkey

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"epcscf/turncred/push"
	"epcscf/turncred/token"
)

// HandlerConfig configures a Handler. Domain, Relays and Keys must be set.
type HandlerConfig struct {
	Domain string // of the certificates
	// Relays are the server names, each with the names of the relays that serve it.
	Relays map[string][]string
	// Keys returns the keys of a server name, as its tokens are made with.
	Keys   func(name string) []token.Key
	Logger *slog.Logger     // default: none
	Now    func() time.Time // default time.Now
}

// Handler is the WAF's side.
type Handler struct{ cfg HandlerConfig }

// NewHandler checks cfg.
func NewHandler(cfg HandlerConfig) (*Handler, error) {
	if cfg.Domain == "" || len(cfg.Relays) == 0 || cfg.Keys == nil {
		return nil, errors.New("stunkey: Domain, Relays and Keys must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Handler{cfg}, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	status, key := h.key(r)
	if status != http.StatusOK {
		h.cfg.Logger.Warn("key refused", "status", status, "address", r.RemoteAddr)
		http.Error(w, http.StatusText(status), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(key) // to a peer that has gone there is nothing to say
}

func (h *Handler) key(r *http.Request) (status int, key wireKey) {
	if r.URL.Path != Path {
		return http.StatusNotFound, key
	}
	if r.Method != http.MethodGet {
		return http.StatusMethodNotAllowed, key
	}
	// RFC 7635 §4.1.1: TLS with a client certificate is a must, whatever the listener asks.
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return http.StatusForbidden, key
	}
	peer, err := push.PeerOf(r.TLS.VerifiedChains[0][0], h.cfg.Domain)
	name := r.URL.Query().Get("name")
	if err != nil || peer.Role != push.RoleRelay || !slices.Contains(h.cfg.Relays[name], peer.Name) {
		return http.StatusForbidden, key // alike for a name that is another's and one that is nobody's
	}
	if r.URL.Query().Get("service") != service {
		return http.StatusBadRequest, key
	}
	best, ok := youngest(h.cfg.Keys(name), h.cfg.Now())
	if !ok {
		return http.StatusServiceUnavailable, key
	}
	h.cfg.Logger.Info("key handed out", "kid", best.ID, "reason", peer.String())
	return http.StatusOK, wireKey{
		K: base64.RawURLEncoding.EncodeToString(best.Secret.Reveal()), Exp: best.NotAfter.Unix(), Kid: string(best.ID), Enc: string(best.Algorithm),
	}
}

// youngest returns the key that relays should have: the last one that is or will soon be
// made tokens with. One without an end is given a day's, so that its relays ask again.
func youngest(keys []token.Key, now time.Time) (best token.Key, ok bool) {
	for _, k := range keys {
		if k.Foreign || now.Before(k.NotBefore.Add(-Lead)) || !k.NotAfter.IsZero() && !now.Before(k.NotAfter) {
			continue
		}
		if !ok || k.NotBefore.After(best.NotBefore) {
			best, ok = k, true
		}
	}
	if best.NotAfter.IsZero() {
		best.NotAfter = now.Add(24 * time.Hour)
	}
	if best.Algorithm == "" {
		best.Algorithm = token.A256GCM
	}
	return best, ok
}
