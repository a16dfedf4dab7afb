package waf

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// session is a sign-in, sealed in a cookie.
type session struct {
	User string `json:"u"`
	At   int64  `json:"t"` // when he signed in
	// Mark ends the session when the password changes.
	Mark string `json:"m,omitempty"`
	// Class makes a user of the provider's, who has no account here, one of a pool.
	Class string `json:"c,omitempty"`
}

// signIn starts a session.
func (s *Server) signIn(w http.ResponseWriter, u store.User, class string) error {
	return s.cookies.set(w, cookieSession, session{User: u.Name, At: s.cfg.Now().Unix(), Mark: markOf(u), Class: class}, s.cfg.SessionLife)
}

func markOf(u store.User) string {
	if u.PasswordHash.Len() == 0 {
		return ""
	}
	h := sha256.Sum256(u.PasswordHash.Reveal())
	return base64.RawURLEncoding.EncodeToString(h[:9])
}

// errSignedOut says that nobody is signed in.
var errSignedOut = errors.New("waf: nobody is signed in")

// signedIn returns who is signed in. The error is errSignedOut.
func (s *Server) signedIn(r *http.Request) (store.User, error) {
	var in session
	if !s.cookies.get(r, cookieSession, &in) || s.cfg.Now().After(time.Unix(in.At, 0).Add(s.cfg.SessionLife)) {
		return store.User{}, errSignedOut
	}
	if in.Class != "" {
		return store.User{Name: in.User, Class: in.Class}, nil
	}
	u, err := s.user(r.Context(), in.User)
	if err != nil || markOf(u) != in.Mark {
		if err == nil || errors.Is(err, errUnknownUser) {
			return store.User{}, errSignedOut
		}
		return store.User{}, err
	}
	return u, nil
}

// errUnknownUser is for an account that is not there, or disabled.
var errUnknownUser = errors.New("waf: unknown user")

// user returns an account. The error is errUnknownUser.
func (s *Server) user(ctx context.Context, name string) (store.User, error) {
	u, err := s.cfg.Records.User(ctx, name)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) || err == nil && u.Disabled {
		return store.User{}, errUnknownUser
	}
	return u, err
}

// NewUser is an account that is to be made.
type NewUser struct {
	Name     string
	Password turncred.Secret // empty: he signs in by the provider only
	IMPI     turncred.IMPI
	IMPUs    []string
	Class    string // of the pool, where he has no identity of his own
}

// Record checks u and returns what is to be stored.
func (u NewUser) Record(h *Hasher) (store.User, error) {
	rec := store.User{Name: u.Name, IMPI: u.IMPI, IMPUs: u.IMPUs, Class: u.Class}
	if err := checkUserName(u.Name); err != nil {
		return rec, err
	}
	if (u.IMPI == "") != (len(u.IMPUs) == 0) {
		return rec, errors.New("user: IMPI and IMPUs belong together")
	}
	if (u.IMPI == "") == (u.Class == "") {
		return rec, errors.New("user: want an IMPI with its IMPUs, or the class of a pool")
	}
	if u.Password.Len() == 0 {
		return rec, nil
	}
	var err error
	rec.PasswordHash, err = h.Hash(u.Password)
	return rec, err
}

func checkUserName(name string) error {
	if name == "" || len(name) > 128 {
		return errors.New("user name: want 1 to 128 bytes")
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7F || r == 0xFFFD {
			return errors.New("user name: must not have spaces or control characters")
		}
	}
	return nil
}
