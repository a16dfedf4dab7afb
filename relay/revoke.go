package relay

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"epcscf/turncred"
)

var _ turncred.Revoker = (*Server)(nil)

// Revoke implements turncred.Revoker. When it returns nil, credentials that r hits make no
// allocation any more, also where the Allocate was under way, and allocations that they
// made have ended: no packet of theirs leaves any more. With KeepLive those last
// Config.Grace beyond their credential at most. And r is in Config.Revocations; where that
// fails r holds all the same, but the error says that a restart would forget it: try again.
func (s *Server) Revoke(ctx context.Context, r turncred.Revocation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.Until.IsZero() {
		return errors.New("relay: revocation without Until would be forgotten at once")
	}
	s.metrics.revocations.Inc()
	s.revoke(r)
	return s.keep(ctx, r)
}

// revoke takes effect at once: nobody goes on because a disk is slow.
func (s *Server) revoke(r turncred.Revocation) {
	s.mu.Lock()
	s.revoked.add(r)
	var hit []*allocation
	for _, a := range s.candidatesLocked(r) {
		h := a.who()
		if !r.Hits(h.tid, h.identity) {
			continue
		}
		if r.KeepLive {
			s.shortenLocked(a, h.texp.Add(s.cfg.Grace))
		} else if s.removeLocked(a, EndRevoked) {
			hit = append(hit, a)
		}
	}
	s.mu.Unlock()

	for _, a := range hit {
		a.release()
	}
	s.settle()
	s.log.Info("relay: credentials revoked", "tid", r.Tid, "kid", r.KeyID, "subject", r.Subject, "keep_live", r.KeepLive, "ended", len(hit))
}

// settle waits until what carriers had checked before has left.
func (s *Server) settle() {
	s.mu.Lock()
	carriers := slices.Collect(maps.Keys(s.carriers))
	s.mu.Unlock()
	for _, c := range carriers {
		c.settle()
	}
}

// candidatesLocked returns the live allocations that r may hit.
func (s *Server) candidatesLocked(r turncred.Revocation) []*allocation {
	var all []*allocation
	if r.Tid == "" && r.KeyID == "" {
		for a := range s.subjects[r.Subject] {
			all = append(all, a)
		}
		return all
	}
	s.flows.all(func(a *allocation) { all = append(all, a) })
	return all
}

// revokedNow reports whether the credential of h has been taken back.
func (s *Server) revokedNow(h *holder) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked.hit(h.tid, h.identity)
}

// revocations are the credentials that are good no more, each until it would have expired
// anyway. The server's lock guards them.
type revocations struct {
	tids     map[turncred.Tid]turncred.Revocation
	kids     map[turncred.KeyID][]turncred.Revocation
	subjects map[turncred.Subject][]turncred.Revocation
}

func newRevocations() revocations {
	return revocations{
		tids:     map[turncred.Tid]turncred.Revocation{},
		kids:     map[turncred.KeyID][]turncred.Revocation{},
		subjects: map[turncred.Subject][]turncred.Revocation{},
	}
}

func (v revocations) add(r turncred.Revocation) {
	switch {
	case r.Tid != "":
		r.Until = later(r.Until, v.tids[r.Tid].Until)
		v.tids[r.Tid] = r
	case r.KeyID != "":
		v.kids[r.KeyID] = merge(v.kids[r.KeyID], r)
	default:
		v.subjects[r.Subject] = merge(v.subjects[r.Subject], r)
	}
}

// merge adds r to list. One entry a scope is enough, since revocations only grow: a user
// has as many as devices, and one.
func merge(list []turncred.Revocation, r turncred.Revocation) []turncred.Revocation {
	for i, o := range list {
		if (o.Binding == nil) == (r.Binding == nil) && (r.Binding == nil || *o.Binding == *r.Binding) {
			list[i].IssuedUntil = max(o.IssuedUntil, r.IssuedUntil)
			list[i].Until = later(o.Until, r.Until)
			return list
		}
	}
	return append(list, r)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// hit reports whether the credential tid of id is revoked.
func (v revocations) hit(tid turncred.Tid, id turncred.Identity) bool {
	if _, ok := v.tids[tid]; ok {
		return true
	}
	hits := func(r turncred.Revocation) bool { return r.Hits(tid, id) }
	return slices.ContainsFunc(v.kids[tid.KeyID()], hits) || slices.ContainsFunc(v.subjects[id.Subject], hits)
}

// prune forgets what can hit nothing any more.
func (v revocations) prune(now time.Time) {
	past := func(r turncred.Revocation) bool { return now.After(r.Until) }
	for k, r := range v.tids {
		if past(r) {
			delete(v.tids, k)
		}
	}
	for k, list := range v.kids {
		if v.kids[k] = slices.DeleteFunc(list, past); len(v.kids[k]) == 0 {
			delete(v.kids, k)
		}
	}
	for k, list := range v.subjects {
		if v.subjects[k] = slices.DeleteFunc(list, past); len(v.subjects[k]) == 0 {
			delete(v.subjects, k)
		}
	}
}
