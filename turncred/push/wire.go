package push

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"epcscf/turncred"
)

// Paths of the interface, below the relay's address.
const (
	basePath        = "/turn-cred/v1"
	credentialsPath = basePath + "/credentials/" // {tid}
	subjectsPath    = basePath + "/subjects/"    // {subject}
	batchPath       = basePath + "/batch"
	snapshotPath    = basePath + "/snapshot"
	digestPath      = basePath + "/digest"
	eventsPath      = basePath + "/events"
)

// Header fields of a write. The node stands there beside its certificate so that what was
// captured from one node is refused from another.
const (
	nodeHeader  = "Turn-Cred-Node"  // the name in the certificate
	epochHeader = "Turn-Cred-Epoch" // of the node's life
)

// Bounds of a body. A credential has some 400 bytes.
const (
	maxSingle = 4 << 10
	maxBody   = 1 << 20
	maxItems  = 500
	maxText   = 508 // of a user name (RFC 8489 §14.3), and of a realm
)

// credentialBody is a Record but for its Tid, which the path has.
type credentialBody struct {
	Username string  `json:"username"`
	Realm    string  `json:"realm"`
	MD5      []byte  `json:"md5"`
	SHA256   []byte  `json:"sha256"`
	Texp     int64   `json:"texp"` // seconds since 1970
	Subject  string  `json:"subject"`
	Issued   *uint64 `json:"issued"`
	Binding  *uint16 `json:"binding"`
}

// namedCredential is a Record where several stand in a body.
type namedCredential struct {
	Tid string `json:"tid"`
	credentialBody
}

func bodyOf(r Record) credentialBody {
	issued, binding := uint64(r.Identity.Issued), uint16(r.Identity.Binding)
	return credentialBody{
		Username: r.Username, Realm: string(r.Realm), MD5: r.Key.MD5.Reveal(), SHA256: r.Key.SHA256.Reveal(),
		Texp: r.Texp.Unix(), Subject: r.Identity.Subject.String(), Issued: &issued, Binding: &binding,
	}
}

func named(r Record) *namedCredential { return &namedCredential{string(r.Tid), bodyOf(r)} }

// record checks what came in; the error says which member is wrong, and no value of a key.
func (b credentialBody) record(tid string) (Record, error) {
	t, texp, err := turncred.ParseUsername(b.Username)
	switch {
	case turncred.Tid(tid).KeyID() == "":
		return Record{}, errors.New("tid: not of the form KID-22BASE64URL")
	case len(b.Username) > maxText || err != nil || string(t) != tid || texp.Unix() != b.Texp:
		return Record{}, errors.New("username: not made of the tid and texp")
	case b.Realm == "" || len(b.Realm) > maxText:
		return Record{}, errors.New("realm: empty or too long")
	case len(b.MD5) != 16:
		return Record{}, errors.New("md5: want 16 bytes in base64")
	case len(b.SHA256) != 32:
		return Record{}, errors.New("sha256: want 32 bytes in base64")
	case b.Issued == nil || *b.Issued >= 1<<40:
		return Record{}, errors.New("issued: missing or beyond 40 bits")
	case b.Binding == nil:
		return Record{}, errors.New("binding: missing")
	}
	subject, err := parseSubject(b.Subject)
	if err != nil {
		return Record{}, err
	}
	return Record{
		Tid: t, Username: b.Username, Realm: turncred.Realm(b.Realm), Texp: texp,
		Key:      turncred.LongTermKey{MD5: turncred.NewSecret(b.MD5), SHA256: turncred.NewSecret(b.SHA256)},
		Identity: turncred.Identity{Subject: subject, Issued: turncred.IssueTime(*b.Issued), Binding: turncred.Binding(*b.Binding)},
	}, nil
}

func parseSubject(s string) (turncred.Subject, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || turncred.Subject(n).String() != s {
		return 0, errors.New("subject: want 16 small hexadecimal digits")
	}
	return turncred.Subject(n), nil
}

// revocationBody is a revocation where several stand in a body. It has one of tid, kid and
// subject.
type revocationBody struct {
	Tid         string  `json:"tid,omitempty"`
	KeyID       string  `json:"kid,omitempty"`
	Subject     string  `json:"subject,omitempty"`
	Binding     *uint16 `json:"binding,omitempty"`
	IssuedUntil *uint64 `json:"issued_until,omitempty"`
	KeepLive    bool    `json:"keep_live,omitempty"`
	Until       int64   `json:"until"` // seconds since 1970
}

func revocationOf(r turncred.Revocation) *revocationBody {
	b := &revocationBody{Tid: string(r.Tid), KeepLive: r.KeepLive, Until: r.Until.Unix()}
	if r.Tid != "" {
		return b
	}
	issued := uint64(r.IssuedUntil)
	b.IssuedUntil = &issued
	if b.KeyID = string(r.KeyID); b.KeyID != "" {
		return b
	}
	b.Subject = r.Subject.String()
	if r.Binding != nil {
		n := uint16(*r.Binding)
		b.Binding = &n
	}
	return b
}

func (b revocationBody) revocation() (r turncred.Revocation, err error) {
	r = turncred.Revocation{KeepLive: b.KeepLive, Until: time.Unix(b.Until, 0)}
	scopes := 0
	for _, s := range []string{b.Tid, b.KeyID, b.Subject} {
		if s != "" {
			scopes++
		}
	}
	switch {
	case scopes != 1:
		return r, errors.New("want one of tid, kid and subject")
	case b.Until <= 0 || b.Until > maxUntil:
		return r, errors.New("until: missing or out of range")
	case b.Binding != nil && b.Subject == "":
		return r, errors.New("binding: only a subject has one")
	case b.Tid != "" && b.IssuedUntil != nil:
		return r, errors.New("issued_until: a tid has none")
	case b.Tid == "" && (b.IssuedUntil == nil || *b.IssuedUntil >= 1<<40):
		return r, errors.New("issued_until: missing or beyond 40 bits")
	}
	if b.Tid != "" {
		if r.Tid = turncred.Tid(b.Tid); r.Tid.KeyID() == "" {
			return r, errors.New("tid: not of the form KID-22BASE64URL")
		}
		return r, nil
	}
	r.IssuedUntil = turncred.IssueTime(*b.IssuedUntil)
	if b.KeyID != "" {
		r.KeyID, err = turncred.ParseKeyID(b.KeyID)
		return r, err
	}
	if b.Binding != nil {
		n := turncred.Binding(*b.Binding)
		r.Binding = &n
	}
	r.Subject, err = parseSubject(b.Subject)
	return r, err
}

// maxUntil is the last second of the year 9999, beyond which times have no text.
const maxUntil = 253402300799

// query is a revocation in the query of a DELETE, whose path has the scope.
func (b revocationBody) query() url.Values {
	q := url.Values{"until": {strconv.FormatInt(b.Until, 10)}}
	if b.IssuedUntil != nil {
		q.Set("issued_until", strconv.FormatUint(*b.IssuedUntil, 10))
	}
	if b.Binding != nil {
		q.Set("binding", strconv.Itoa(int(*b.Binding)))
	}
	if b.KeepLive {
		q.Set("keep_live", "true")
	}
	return q
}

// parseQuery reads what query wrote: known names, each once.
func (b *revocationBody) parseQuery(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return errors.New("query: malformed")
	}
	for name, v := range q {
		if len(v) != 1 {
			return fmt.Errorf("query: %.20q is there twice", name)
		}
		switch name {
		case "until":
			b.Until, err = strconv.ParseInt(v[0], 10, 64)
		case "issued_until":
			var n uint64
			n, err = strconv.ParseUint(v[0], 10, 40)
			b.IssuedUntil = &n
		case "binding":
			var n uint64
			n, err = strconv.ParseUint(v[0], 10, 16)
			small := uint16(n)
			b.Binding = &small
		case "keep_live":
			b.KeepLive = v[0] == "true"
			if v[0] != "true" && v[0] != "false" {
				err = errors.New("no boolean")
			}
		default:
			return fmt.Errorf("query: unknown parameter %.20q", name)
		}
		if err != nil {
			return fmt.Errorf("query: %s: out of range or malformed", name)
		}
	}
	return nil
}

// batchBody is what waited together.
type batchBody struct {
	Items []itemBody `json:"items"`
}

// itemBody has one of both.
type itemBody struct {
	Credential *namedCredential `json:"credential,omitempty"`
	Revocation *revocationBody  `json:"revocation,omitempty"`
}

// batchAnswer has a result for each item, in its order.
type batchAnswer struct {
	Results []itemResult `json:"results"`
}

type itemResult struct {
	Status int    `json:"status"` // 204: done
	Cause  Cause  `json:"cause,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// snapshotBody is all that a node has written and is still good, or a part of it.
type snapshotBody struct {
	Credentials []namedCredential `json:"credentials,omitempty"`
	Revocations []revocationBody  `json:"revocations,omitempty"`
}

// snapshotAnswer names the credentials that the relay has with another body.
type snapshotAnswer struct {
	Conflicts []string `json:"conflicts"`
}

// State is what a relay says of itself and of what the asking node has written.
type State struct {
	Relay       string // its name
	Epoch       uint64 // the asking node's, as the relay knows it; 0: none
	Time        time.Time
	Draining    bool             // it wants no new users
	Ready       bool             // clients may come
	Keys        []turncred.KeyID // of approach 1
	Credentials Sum
	Revocations Sum
}

type stateBody struct {
	Relay       string    `json:"relay"`
	Epoch       uint64    `json:"epoch"`
	Time        time.Time `json:"time"`
	Draining    bool      `json:"draining"`
	Ready       bool      `json:"ready"`
	Keys        []string  `json:"keys"`
	Credentials sumBody   `json:"credentials"`
	Revocations sumBody   `json:"revocations"`
}

func (s State) body() stateBody {
	b := stateBody{s.Relay, s.Epoch, s.Time.UTC(), s.Draining, s.Ready, []string{}, s.Credentials.body(), s.Revocations.body()}
	for _, k := range s.Keys {
		b.Keys = append(b.Keys, string(k))
	}
	return b
}

func (b stateBody) state() (s State, err error) {
	s = State{Relay: b.Relay, Epoch: b.Epoch, Time: b.Time, Draining: b.Draining, Ready: b.Ready}
	for _, k := range b.Keys {
		kid, err := turncred.ParseKeyID(k)
		if err != nil {
			return s, err
		}
		s.Keys = append(s.Keys, kid)
	}
	if s.Credentials, err = b.Credentials.sum(); err != nil {
		return s, err
	}
	s.Revocations, err = b.Revocations.sum()
	return s, err
}
