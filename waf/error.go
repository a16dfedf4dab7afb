package waf

import (
	"encoding/json"
	"errors"
	"net/http"
)

// ErrorCode is the error of an OAuth answer.
type ErrorCode string

// The codes that we answer with, and where they stand.
const (
	InvalidRequest          ErrorCode = "invalid_request"           // RFC 6749 §4.1.2.1, §5.2
	InvalidClient           ErrorCode = "invalid_client"            // RFC 6749 §5.2
	InvalidGrant            ErrorCode = "invalid_grant"             // RFC 6749 §5.2
	UnauthorizedClient      ErrorCode = "unauthorized_client"       // RFC 6749 §4.1.2.1, §5.2
	UnsupportedGrantType    ErrorCode = "unsupported_grant_type"    // RFC 6749 §5.2
	UnsupportedResponseType ErrorCode = "unsupported_response_type" // RFC 6749 §4.1.2.1
	InvalidScope            ErrorCode = "invalid_scope"             // RFC 6749 §4.1.2.1, §5.2
	AccessDenied            ErrorCode = "access_denied"             // RFC 6749 §4.1.2.1
	ServerError             ErrorCode = "server_error"              // RFC 6749 §4.1.2.1
	TemporarilyUnavailable  ErrorCode = "temporarily_unavailable"   // RFC 6749 §4.1.2.1
	InvalidTarget           ErrorCode = "invalid_target"            // RFC 8707 §2
	InvalidRedirectURI      ErrorCode = "invalid_redirect_uri"      // RFC 7591 §3.2.2
	InvalidClientMetadata   ErrorCode = "invalid_client_metadata"   // RFC 7591 §3.2.2
	InvalidToken            ErrorCode = "invalid_token"             // RFC 6750 §3.1
)

// Error is an OAuth error answer, as it goes over the wire.
type Error struct {
	Code        ErrorCode `json:"error"`
	Description string    `json:"error_description,omitempty"` // for the client's developer; holds nothing that was sent
	cause       error     // for the operator
}

// Error implements error.
func (e *Error) Error() string {
	if e.cause != nil {
		return string(e.Code) + ": " + e.Description + ": " + e.cause.Error()
	}
	return string(e.Code) + ": " + e.Description
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

func refuse(code ErrorCode, description string) *Error {
	return &Error{Code: code, Description: description}
}

// failed hides a cause that is ours, not the client's.
func failed(cause error) *Error {
	return &Error{Code: ServerError, Description: "something went wrong here", cause: cause}
}

// status is that of an answer in JSON (RFC 6749 §5.2, RFC 6750 §3.1).
func (e *Error) status() int {
	switch e.Code {
	case InvalidClient, InvalidToken:
		return http.StatusUnauthorized
	case ServerError:
		return http.StatusInternalServerError
	case TemporarilyUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// answerError ends a request to an endpoint for programs (RFC 6749 §5.2).
func (s *Server) answerError(w http.ResponseWriter, r *http.Request, err error) {
	e := new(Error)
	if !errors.As(err, &e) {
		e = failed(err)
	}
	s.count(r, e)
	switch e.Code {
	case InvalidClient: // RFC 6749 §5.2: wanted where the client tried Authorization
		w.Header().Set("WWW-Authenticate", `Basic realm="waf", charset="UTF-8"`)
	case InvalidToken:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	answerJSON(w, e.status(), e)
}

// answerJSON writes v. RFC 6749 §5.1: answers with tokens are not stored.
func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // to a peer that has gone there is nothing to say
}
