package push

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Cause says why a request was refused; the values stand in the member cause of a Problem.
type Cause string

// The causes. The caller of a stale epoch must stop, of an unavailable relay come back.
const (
	CauseFormat      Cause = "INVALID_MSG_FORMAT"
	CauseTooLarge    Cause = "MESSAGE_TOO_LARGE"
	CauseMediaType   Cause = "UNSUPPORTED_MEDIA_TYPE"
	CauseForbidden   Cause = "ROLE_NOT_ALLOWED"
	CauseNotYours    Cause = "NOT_THE_CERTIFICATES_NODE"
	CauseCertificate Cause = "CERTIFICATE_NOT_VALID"
	CauseStaleEpoch  Cause = "EPOCH_STALE"
	CauseConflict    Cause = "CREDENTIAL_EXISTS"
	CauseNotFound    Cause = "RESOURCE_URI_STRUCTURE_NOT_FOUND"
	CauseMethod      Cause = "METHOD_NOT_ALLOWED"
	CauseUnavailable Cause = "SYSTEM_FAILURE"
)

// Problem is a refusal as it goes over the wire (RFC 9457), with the member cause that
// 3GPP's service-based interfaces add. It is an error, too.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Cause  Cause  `json:"cause"`
	Detail string `json:"detail,omitempty"`
	// Epoch is the relay's, where the request's is older.
	Epoch uint64 `json:"epoch,omitempty"`
}

func problem(status int, cause Cause, format string, args ...any) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Cause: cause, Detail: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (p *Problem) Error() string {
	return strconv.Itoa(p.Status) + " " + string(p.Cause) + ": " + p.Detail
}

// Is reports whether target is the sentinel of the cause.
func (p *Problem) Is(target error) bool {
	return target == ErrConflict && p.Cause == CauseConflict || target == ErrStaleEpoch && p.Cause == CauseStaleEpoch
}

const problemType = "application/problem+json"

// write answers with the problem.
func (p *Problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", problemType)
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer has gone: nobody to tell
}
