package relay

import "epcscf/turncred"

// quotaReachedLocked counts all credentials of a subject together (RFC 8656 §5).
func (s *Server) quotaReachedLocked(subject turncred.Subject) bool {
	return len(s.subjects[subject]) >= s.cfg.MaxAllocationsPerSubject
}

// quotaReached is quotaReachedLocked for who does not hold the lock.
func (s *Server) quotaReached(subject turncred.Subject) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quotaReachedLocked(subject)
}
