package waf

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/waf/bearer"
)

// identity is whom a registration token speaks for.
type identity struct {
	IMPI  turncred.IMPI `json:"i"`
	IMPUs []string      `json:"u"`
	lent  bool          // from a pool
}

// identity returns the user's own identity (scenario 2), or lends one of his class's pool
// until a time (scenario 3). A grant that has one on loan keeps it.
func (s *Server) identity(ctx context.Context, g *grant, until time.Time) (identity, error) {
	if g.user.IMPI != "" {
		return identity{IMPI: g.user.IMPI, IMPUs: g.user.IMPUs}, nil
	}
	class := poolOf(g)
	if class == "" {
		return identity{}, refuse(AccessDenied, "there is no identity to register with")
	}
	if g.loan != nil {
		err := s.cfg.Records.Renew(ctx, g.loan.IMPI, g.id, until)
		if err == nil {
			return identity{g.loan.IMPI, g.loan.IMPUs, true}, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return identity{}, err
		}
	}
	lent, err := s.cfg.Records.Acquire(ctx, class, g.id, until)
	if errors.Is(err, store.ErrExhausted) {
		return identity{}, &Error{Code: TemporarilyUnavailable, Description: "every identity is lent out: try again later", cause: err}
	}
	if err != nil {
		return identity{}, err
	}
	g.loan = &identity{IMPI: lent.IMPI, IMPUs: lent.IMPUs}
	return identity{lent.IMPI, lent.IMPUs, true}, nil
}

// poolOf returns the class whose pool a grant borrows from, or "".
func poolOf(g *grant) string {
	switch {
	case g.user.IMPI != "":
		return ""
	case g.user.Name != "":
		return g.user.Class
	}
	return dataOf(g.client).Class
}

// borrowed returns what a grant has on loan now, or "".
func (s *Server) borrowed(ctx context.Context, grantID string) (turncred.IMPI, error) {
	all, err := s.cfg.Records.Identities(ctx, "")
	if err != nil {
		return "", err
	}
	now := s.cfg.Now()
	for _, id := range all {
		if id.Holder == grantID && id.Until.After(now) {
			return id.IMPI, nil
		}
	}
	return "", nil
}

// ReturnIdentity takes back what was lent to a grant: the eP-CSCF says that its registration
// has ended. The grant ends with it, or else its token, which is still good, could register
// the identity again beside the next borrower. A grant that has nothing on loan goes on, so a
// word that comes late does nothing.
func (s *Server) ReturnIdentity(ctx context.Context, grantID string) error {
	if impi, err := s.borrowed(ctx, grantID); err != nil || impi == "" {
		return err
	}
	return s.revoke(ctx, &grant{id: grantID}, "registration ended")
}

// revokeTimeout bounds how long a revocation waits for relays and eP-CSCF.
const revokeTimeout = 5 * time.Second

// revoke ends a grant and all that came of it: here, at the relays and at the eP-CSCF. It
// gives back what was on loan, but only when all of them know: while one does not, the loan
// lasts as long as the token. All is tried, whatever fails.
func (s *Server) revoke(ctx context.Context, g *grant, why string) error {
	// A client that hangs up stops no revocation, and an edge that hangs delays none for long.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	now := s.cfg.Now()
	errs := []error{s.cfg.Records.RevokeFamily(ctx, g.id, now.Add(s.cfg.RefreshLife+s.cfg.Registration.Life+bearer.Leeway))}

	impi, lent := g.user.IMPI, false
	if impi == "" {
		// Asked, not remembered: an identity that is another's by now must not lose its rights.
		var err error
		impi, err = s.borrowed(ctx, g.id)
		errs, lent = append(errs, err), impi != ""
	}
	for _, subject := range slices.Compact([]turncred.IMPI{cmp.Or(impi, s.turnSubject(g, identity{})), s.turnSubject(g, identity{})}) {
		for _, r := range s.cfg.Relays {
			// A token bears no device, so this reaches all of the user's: after theft that is wanted.
			errs = append(errs, r.Tokens.Revoke(ctx, turncred.Scope{IMPI: subject, AllBindings: true}))
		}
	}
	var later error
	if s.cfg.Revoker != nil {
		err := s.cfg.Revoker.RevokeGrant(ctx, Revocation{Grant: g.id, IMPI: impi, Until: now.Add(s.cfg.Registration.Life + bearer.Leeway)})
		if errors.Is(err, ErrLater) {
			later, err = err, nil
			s.cfg.Logger.Warn("a grant is revoked, and someone hears of it later", "user", g.user.Name, "client", g.client.ID, "err", later)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		s.cfg.Logger.Error("a grant is revoked, but not everyone knows", "user", g.user.Name, "client", g.client.ID, "reason", why, "err", err)
		return err
	}
	if lent && later == nil {
		if err := s.cfg.Records.Release(ctx, impi, g.id); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	s.cfg.Logger.Info("grant revoked", "user", g.user.Name, "client", g.client.ID, "reason", why)
	return s.cfg.Records.Record(ctx, store.Event{Actor: "waf", Action: "grant.revoke", Object: "grant/" + g.id, Detail: why})
}
