package relay

import (
	"time"

	"epcscf/turncred"
)

// quotaReachedLocked counts all credentials of a subject together (RFC 8656 §5), and ports
// reserved as allocations.
func (s *Server) quotaReachedLocked(subject turncred.Subject) bool {
	return len(s.subjects[subject])+s.reserved.count[subject] >= s.cfg.MaxAllocationsPerSubject
}

// quotaReached is quotaReachedLocked for who does not hold the lock.
func (s *Server) quotaReached(subject turncred.Subject) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quotaReachedLocked(subject)
}

// byteBurst is how many seconds' bytes a subject may relay at once.
const byteBurst = time.Second

// budgetLocked returns the allowance of bytes that all of a subject's allocations share, or
// nil where there is no limit. It outlives them until it is full again, so that a new
// allocation brings no new bytes.
func (s *Server) budgetLocked(subject turncred.Subject) *allowance {
	if s.cfg.BytesPerSecond == 0 {
		return nil
	}
	b := s.budgets[subject]
	if b == nil {
		b = &allowance{}
		s.budgets[subject] = b
	}
	return b
}

// affords reports whether a may relay n bytes now, and counts them.
func (s *Server) affords(a *allocation, n int, now time.Time) bool {
	return a.budget == nil || a.budget.take(now, time.Duration(n)*time.Second/time.Duration(s.cfg.BytesPerSecond), byteBurst)
}

// pruneBudgetsLocked forgets the allowances that are full and nobody's.
func (s *Server) pruneBudgetsLocked(now time.Time) {
	for subject, b := range s.budgets {
		if len(s.subjects[subject]) == 0 && b.atRest(now) {
			delete(s.budgets, subject)
		}
	}
}
