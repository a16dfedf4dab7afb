package minicore

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// maxBindings bounds a user's bindings; the oldest goes. Pages that are reloaded leave
// bindings behind until they expire, and must not lock their user out.
const maxBindings = 16

// Binding is one registered contact of a user.
type Binding struct {
	AOR      string // public identity, sip:USER@Domain
	Contact  string // contact URI
	Instance string // +sip.instance without its quotes, or ""
	RegID    int    // reg-id, or 0
	Outbound bool   // RFC 5626 was applied: the key is Instance and RegID
	Path     []string
	CallID   string
	CSeq     uint32
	Expires  time.Time

	contact *sip.ContactHeader // as it came, without expires and q; never changed
	path    []sip.Uri
	seq     uint64 // order of registration; a refresh counts
}

// sameKey reports whether b and o are one binding: by instance and reg-id where
// RFC 5626 §6 applies, by contact otherwise.
func (b Binding) sameKey(o Binding) bool {
	if b.Outbound && o.Outbound {
		return b.Instance == o.Instance && b.RegID == o.RegID
	}
	return b.Contact == o.Contact
}

// location holds the bindings. Expired ones are left out of every answer and dropped
// at the next write of their user.
type location struct {
	now func() time.Time

	mu       sync.Mutex // guards bindings and seq
	bindings map[string][]Binding
	seq      uint64
}

func newLocation(now func() time.Time) *location {
	return &location{now: now, bindings: map[string][]Binding{}}
}

// of returns the live bindings of a user, youngest first.
func (l *location) of(aor string) []Binding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.liveLocked(aor)
}

func (l *location) liveLocked(aor string) []Binding {
	now := l.now()
	live := slices.DeleteFunc(slices.Clone(l.bindings[aor]), func(b Binding) bool { return !now.Before(b.Expires) })
	slices.SortFunc(live, func(a, b Binding) int { return cmp.Compare(b.seq, a.seq) })
	return live
}

// byContact returns the binding of a contact URI, whoever's it is.
func (l *location) byContact(uri string) (Binding, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for aor := range l.bindings {
		for _, b := range l.liveLocked(aor) {
			if b.Contact == uri {
				return b, true
			}
		}
	}
	return Binding{}, false
}

// update applies the contacts of one REGISTER: all or none, as RFC 3261 §10.3 step 7
// wants. A binding that expires now is removed. It reports false where a binding has
// seen this Call-ID with this CSeq or a higher one.
func (l *location) update(aor string, contacts []Binding) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	live := l.liveLocked(aor)
	for _, n := range contacts {
		i := slices.IndexFunc(live, n.sameKey)
		if i >= 0 && live[i].CallID == n.CallID && live[i].CSeq >= n.CSeq {
			return false
		}
		if i >= 0 {
			live = slices.Delete(live, i, i+1)
		}
		if now.Before(n.Expires) {
			l.seq++
			n.seq = l.seq
			live = slices.Insert(live, 0, n)
		}
	}
	l.setLocked(aor, live[:min(len(live), maxBindings)])
	return true
}

// clear removes all bindings of a user. It reports false as update does.
func (l *location) clear(aor, callID string, cseq uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.liveLocked(aor) {
		if b.CallID == callID && b.CSeq >= cseq {
			return false
		}
	}
	l.setLocked(aor, nil)
	return true
}

// shorten makes the bindings of a user end at until, where they would live longer, and
// reports whether one did.
func (l *location) shorten(aor string, until time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	live, shorter := l.liveLocked(aor), false
	for i := range live {
		if until.Before(live[i].Expires) {
			live[i].Expires, shorter = until, true
		}
	}
	l.setLocked(aor, live)
	return shorter
}

// remove drops one binding, unless it was refreshed since b was read.
func (l *location) remove(b Binding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setLocked(b.AOR, slices.DeleteFunc(l.liveLocked(b.AOR), func(o Binding) bool { return o.seq == b.seq }))
}

func (l *location) setLocked(aor string, live []Binding) {
	if len(live) == 0 {
		delete(l.bindings, aor)
		return
	}
	l.bindings[aor] = live
}

func (l *location) snapshot() []Binding {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Binding
	for aor := range l.bindings {
		all = append(all, l.liveLocked(aor)...)
	}
	slices.SortFunc(all, func(a, b Binding) int { return cmp.Or(cmp.Compare(a.AOR, b.AOR), cmp.Compare(a.seq, b.seq)) })
	return all
}
