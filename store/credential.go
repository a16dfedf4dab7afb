package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Credentials are those of approach 2: keys, never a password. Each is written once.
type Credentials interface {
	// PutCredentials writes all of rs or, where it returns an error, none. A record that is
	// there already with the same body is no error; with another body the error is
	// ErrConflict. A Tid's record is forgotten some time after its Texp.
	PutCredentials(ctx context.Context, rs []push.Record) error
	// Credential returns the record of tid, expired or not. The error is ErrNotFound.
	Credential(ctx context.Context, tid turncred.Tid) (push.Record, error)
	// EachCredential calls f with each record that has not expired, in no order, until f
	// returns an error, which it returns. f must not call the store.
	EachCredential(ctx context.Context, f func(push.Record) error) error
}

// maxField bounds a text field of a record. RFC 8489 §14.3 allows a USERNAME 508 bytes, and
// §14.9 a REALM 763.
const maxField = 1024

// CheckCredential reports what of r cannot be stored. The error is ErrInvalid.
func CheckCredential(r push.Record) error {
	switch {
	case r.Tid == "" || len(r.Tid) > maxField:
		return fmt.Errorf("credential: %w: a Tid of %d bytes, want 1 to %d", ErrInvalid, len(r.Tid), maxField)
	case len(r.Username) > maxField || len(r.Realm) > maxField:
		return fmt.Errorf("credential %s: %w: user name or realm is longer than %d bytes", r.Tid, ErrInvalid, maxField)
	case r.Key.MD5.Len() != md5Len || r.Key.SHA256.Len() != sha256Len:
		return fmt.Errorf("credential %s: %w: keys of %d and %d bytes, want %d and %d", r.Tid, ErrInvalid, r.Key.MD5.Len(), r.Key.SHA256.Len(), md5Len, sha256Len)
	case r.Texp.Unix() < 0 || r.Texp.Unix() > maxUnix:
		return fmt.Errorf("credential %s: %w: it expires at %v", r.Tid, ErrInvalid, r.Texp)
	case r.Identity.Issued > maxIssued:
		return fmt.Errorf("credential %s: %w: its issue time has more than 40 bits", r.Tid, ErrInvalid)
	}
	return nil
}

const (
	md5Len    = 16
	sha256Len = 32
	maxUnix   = 1 << 40   // a Texp of seconds: the year 36812
	maxIssued = 1<<40 - 1 // an IssueTime has 40 bits
)

// ConflictError returns the error of a credential that exists with another body.
func ConflictError(tid turncred.Tid) error {
	return fmt.Errorf("credential %s: %w: %w", tid, ErrConflict, push.ErrConflict)
}

// SameRecord reports whether two records say the same, keys compared in constant time and
// the expiry by whole seconds, as it is stored.
func SameRecord(a, b push.Record) bool {
	return a.Tid == b.Tid && a.Username == b.Username && a.Realm == b.Realm &&
		a.Texp.Unix() == b.Texp.Unix() && a.Identity == b.Identity && a.Key.Equal(b.Key)
}

// SealRecord seals the keys of r; all its other fields are associated data.
func (k *KEKs) SealRecord(r push.Record) (Sealed, error) {
	secret := make([]byte, 0, md5Len+sha256Len)
	secret = append(append(secret, r.Key.MD5.Reveal()...), r.Key.SHA256.Reveal()...)
	s, err := k.Seal(TableCredentials, string(r.Tid), appendClear(nil, r), secret)
	clear(secret)
	return s, err
}

// OpenRecord fills the keys of r, whose other fields are as they were sealed. The error is
// ErrKEK or ErrCorrupt.
func (k *KEKs) OpenRecord(r *push.Record, s Sealed) error {
	secret, err := k.Open(TableCredentials, string(r.Tid), appendClear(nil, *r), s)
	if err != nil {
		return err
	}
	if len(secret) != md5Len+sha256Len {
		return fmt.Errorf("credential %s: %w", r.Tid, ErrCorrupt)
	}
	r.Key = turncred.LongTermKey{MD5: turncred.NewSecret(secret[:md5Len]), SHA256: turncred.NewSecret(secret[md5Len:])}
	clear(secret)
	return nil
}

// appendClear appends what of r is not secret, in the form that files hold:
//
//	Texp (8) | subject (8) | issue time (8) | binding (2) | length (2), user name | length (2), realm
func appendClear(b []byte, r push.Record) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Texp.Unix()))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Identity.Subject))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Identity.Issued))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Identity.Binding))
	b = appendText(b, r.Username)
	return appendText(b, string(r.Realm))
}

const clearFixed = 8 + 8 + 8 + 2

// EncodeRecord seals r and returns it as files hold it, without its Tid: a version, what
// appendClear says, the KEK's id and the box.
func (k *KEKs) EncodeRecord(r push.Record) ([]byte, error) {
	s, err := k.SealRecord(r)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 1+clearFixed+len(r.Username)+len(r.Realm)+2*3+len(s.KEK)+len(s.Box))
	b = appendClear(append(b, recordVersion), r)
	return append(appendText(b, string(s.KEK)), s.Box...), nil
}

const recordVersion = 1

// DecodeRecord is the reverse of EncodeRecord. The error is ErrKEK or ErrCorrupt.
func (k *KEKs) DecodeRecord(tid turncred.Tid, b []byte) (push.Record, error) {
	r, s, err := SplitRecord(tid, b)
	if err != nil {
		return push.Record{}, err
	}
	return r, k.OpenRecord(&r, s)
}

// SplitRecord reads what EncodeRecord wrote and leaves the keys sealed.
func SplitRecord(tid turncred.Tid, b []byte) (push.Record, Sealed, error) {
	r, s := push.Record{Tid: tid}, Sealed{}
	corrupt := fmt.Errorf("credential %s: %w", tid, ErrCorrupt)
	if len(b) < 1+clearFixed || b[0] != recordVersion {
		return r, s, corrupt
	}
	b = b[1:]
	r.Texp = time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	r.Identity = turncred.Identity{
		Subject: turncred.Subject(binary.BigEndian.Uint64(b[8:])),
		Issued:  turncred.IssueTime(binary.BigEndian.Uint64(b[16:])),
		Binding: turncred.Binding(binary.BigEndian.Uint16(b[24:])),
	}
	b = b[clearFixed:]
	var texts [3]string
	for i := range texts {
		var err error
		if texts[i], b, err = cutText(b); err != nil {
			return r, s, corrupt
		}
	}
	r.Username, r.Realm, s.KEK = texts[0], turncred.Realm(texts[1]), turncred.KeyID(texts[2])
	s.Box = append([]byte(nil), b...)
	return r, s, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

var errShort = errors.New("text is cut off")

func cutText(b []byte) (string, []byte, error) {
	if len(b) < 2 {
		return "", nil, errShort
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return "", nil, errShort
	}
	return string(b[:n]), b[n:], nil
}
