package relay

import (
	"context"
	"fmt"

	"epcscf/turncred"
)

// RevocationLog keeps revocations over a crash of the relay. Its methods are safe for
// concurrent use.
type RevocationLog interface {
	// Append returns when r is synced to disk.
	Append(ctx context.Context, r turncred.Revocation) error
	// Load returns those whose Until is ahead.
	Load(ctx context.Context) ([]turncred.Revocation, error)
}

// loadRevocations takes what was revoked before this start.
func (s *Server) loadRevocations() error {
	if s.cfg.Revocations == nil {
		return nil
	}
	all, err := s.cfg.Revocations.Load(s.ctx)
	if err != nil {
		return fmt.Errorf("relay: load revocations: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all {
		s.revoked.add(r)
	}
	if len(all) > 0 {
		s.log.Info("relay: revocations loaded", "count", len(all))
	}
	return nil
}

// keep returns when r would outlive a crash.
func (s *Server) keep(ctx context.Context, r turncred.Revocation) error {
	if s.cfg.Revocations == nil {
		return nil
	}
	if err := s.cfg.Revocations.Append(ctx, r); err != nil {
		s.metrics.revocationsUnkept.Inc()
		s.log.Error("relay: a revocation holds, but would not outlive a restart", "tid", r.Tid, "kid", r.KeyID, "subject", r.Subject, "err", err)
		return fmt.Errorf("relay: keep revocation: %w", err)
	}
	return nil
}
