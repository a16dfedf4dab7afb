package store

import (
	"context"
	"time"

	"epcscf/turncred"
)

// Client is an OAuth client (RFC 6749 §2, RFC 7591).
type Client struct {
	ID           string
	Name         string
	RedirectURIs []string
	GrantTypes   []string        // authorization_code, implicit, refresh_token, client_credentials
	Scopes       []string        // that it may ask for
	Audiences    []string        // TURN servers and resource servers that it may ask for
	SecretHash   turncred.Secret // of a confidential client; empty: a public one
	Disabled     bool
	Created      time.Time // set by AddClient
	Data         []byte    // what else the WAF knows of it; nothing secret
}

// Clients are the registered OAuth clients.
type Clients interface {
	// AddClient writes a new client. The error is ErrConflict where the ID is taken.
	AddClient(ctx context.Context, c Client) error
	// SetClient replaces a client but for Created. The error is ErrNotFound.
	SetClient(ctx context.Context, c Client) error
	// Client returns a client. The error is ErrNotFound.
	Client(ctx context.Context, id string) (Client, error)
	// Clients returns all, by ID.
	Clients(ctx context.Context) ([]Client, error)
	// DeleteClient forgets a client. The error is ErrNotFound.
	DeleteClient(ctx context.Context, id string) error
}
