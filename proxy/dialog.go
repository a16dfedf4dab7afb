package proxy

import (
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// dialogID names a dialog as the WIC sees it (RFC 3261 §12): local is the WIC's tag. The two
// legs of a call between two WICs are two dialogs here, with the tags exchanged.
type dialogID struct{ callID, local, remote string }

// idFromWIC is the dialog that a request of a WIC belongs to.
func idFromWIC(req *sip.Request) dialogID {
	return dialogID{req.CallID().Value(), partyTag(req, "From"), toTag(req)}
}

// idToWIC is the dialog that a request toward a WIC belongs to.
func idToWIC(req *sip.Request) dialogID {
	return dialogID{req.CallID().Value(), toTag(req), partyTag(req, "From")}
}

// dialog is what the edge keeps of a WIC's dialog (TS 24.229 5.2.6.3.4, known to us by
// digests): who takes part in it, by which route, and what a BYE in its name must hold.
//
// All its fields but the first group are guarded by dialogTable.mu.
type dialog struct {
	id        dialogID
	home      uint64     // the flow whose token stands in the dialog's route set
	binding   bindingKey // the device, which may come back on another flow
	local     string     // From or To of the WIC, with its tag
	remote    string     // of the other side
	emergency bool       // its next hop is the emergency route

	flow      *Flow    // where the WIC speaks now
	route     []string // the WIC's route set beyond our own two entries
	target    string   // URI of the other side's Contact
	contact   string   // of the WIC's
	localSeq  uint32   // the highest CSeq of the WIC
	remoteSeq uint32   // of the other side
	usages    []usage
	expires   time.Time // of an early dialog, which has no usage yet
}

// usage is what keeps a dialog: the session of its INVITE, or a subscription (RFC 5057 §3).
type usage struct {
	event   string // of a subscription; "" is the session
	expires time.Time
}

const (
	sessionUsage = ""
	// sessionLife bounds a session without a session timer that has been silent: its BYE
	// has been lost somewhere.
	sessionLife = 24 * time.Hour
	// subscriptionLife is that of a subscription whose length nobody has told (RFC 6665
	// §4.1.2.4 leaves it to the event package; a REFER's is a minute, RFC 3515 §2.4.4).
	subscriptionLife = time.Hour
	// expiryGrace lets the message that ends or renews a usage arrive.
	expiryGrace = 32 * time.Second
	// maxUsages bounds the subscriptions within one dialog.
	maxUsages = 8
	// earlyLife is how long an early dialog lasts after its INVITE was answered (RFC 3261
	// §13.2.2.4: 64*T1).
	earlyLife = 64 * time.Second
)

// keep adds a usage or gives it a new end.
func (d *dialog) keep(event string, until time.Time) {
	i := slices.IndexFunc(d.usages, func(u usage) bool { return u.event == event })
	switch {
	case i >= 0:
		d.usages[i].expires = until
	case len(d.usages) < maxUsages:
		d.usages = append(d.usages, usage{event, until})
	}
}

// finish ends a usage and reports whether it was the last.
func (d *dialog) finish(event string) bool {
	d.usages = slices.DeleteFunc(d.usages, func(u usage) bool { return u.event == event })
	return len(d.usages) == 0
}

// over reports whether nothing keeps the dialog any more.
func (d *dialog) over(now time.Time) bool {
	if len(d.usages) == 0 {
		return now.After(d.expires)
	}
	return !slices.ContainsFunc(d.usages, func(u usage) bool { return now.Before(u.expires) })
}

// inSession reports whether the dialog holds a session that a BYE would end.
func (d *dialog) inSession() bool {
	return slices.ContainsFunc(d.usages, func(u usage) bool { return u.event == sessionUsage })
}

// sees notes the number of a request within the dialog.
func (d *dialog) sees(seq uint32, fromWIC bool) {
	if fromWIC {
		d.localSeq = max(d.localSeq, seq)
	} else {
		d.remoteSeq = max(d.remoteSeq, seq)
	}
}

// refresh takes the remote target from a Contact (RFC 3261 §12.2).
func (d *dialog) refresh(m sipext.HeaderFields, ofWIC bool) {
	uri := contactURI(m)
	switch {
	case uri == "":
	case ofWIC:
		d.contact = uri
	default:
		d.target = uri
	}
}

// contactURI is the URI of the first Contact, or "".
func contactURI(m sipext.HeaderFields) string {
	if all := sipext.Addresses(m, "Contact"); len(all) > 0 && all[0].URI != "*" {
		return all[0].URI
	}
	return ""
}

// eventOf names the subscription that a message is about (RFC 6665 §4.5.2): the event type
// and its id. A REFER subscribes to its own outcome.
func eventOf(m sipext.HeaderFields, method sip.RequestMethod) string {
	if method == sip.REFER {
		return "refer"
	}
	name, params, _ := strings.Cut(first(m, "Event"), ";")
	name = strings.ToLower(strings.Trim(name, " \t"))
	for p := range strings.SplitSeq(params, ";") {
		if k, v, _ := strings.Cut(strings.Trim(p, " \t"), "="); strings.EqualFold(k, "id") {
			return name + ";id=" + v
		}
	}
	return name
}

// terminates reports whether a NOTIFY ends its subscription (RFC 6665 §4.1.3), and else how
// long it goes on.
func terminates(notify *sip.Request) (bool, time.Duration) {
	state, params, _ := strings.Cut(first(notify, "Subscription-State"), ";")
	if strings.EqualFold(strings.Trim(state, " \t"), "terminated") {
		return true, 0
	}
	for p := range strings.SplitSeq(params, ";") {
		if k, v, _ := strings.Cut(strings.Trim(p, " \t"), "="); strings.EqualFold(k, "expires") && seconds(v) >= 0 {
			return false, time.Duration(seconds(v)) * time.Second
		}
	}
	return false, subscriptionLife
}

// sessionEnd is when a session ends by itself: RFC 4028 §10, or sessionLife.
func sessionEnd(m sipext.HeaderFields, now time.Time) time.Time {
	v, _, _ := strings.Cut(first(m, "Session-Expires"), ";")
	if n := seconds(v); n > 0 {
		return now.Add(time.Duration(n)*time.Second + expiryGrace)
	}
	return now.Add(sessionLife)
}

// sameRoutes compares two route sets URI by URI (TS 24.229 5.2.6.3.3; RFC 3261 §19.1.4).
func sameRoutes(a, b []string) bool { return slices.EqualFunc(a, b, sameRoute) }

func sameRoute(a, b string) bool {
	if a == b {
		return true
	}
	u, ok1 := parseURI(a)
	v, ok2 := parseURI(b)
	return ok1 && ok2 && u.Scheme == v.Scheme && u.User == v.User && u.Password == v.Password && u.Raw() == v.Raw() &&
		strings.EqualFold(u.Host, v.Host) && u.Port == v.Port && sameParams(u, v)
}

// sameParams compares URI parameters. Stricter than §19.1.4, which lets some be absent in
// one of the two: a route set is copied, never composed.
func sameParams(u, v sip.Uri) bool {
	if u.UriParams.Length() != v.UriParams.Length() {
		return false
	}
	for _, a := range u.UriParams {
		if !slices.ContainsFunc(v.UriParams, func(b sip.HeaderKV) bool {
			return strings.EqualFold(a.K, b.K) && strings.EqualFold(a.V, b.V)
		}) {
			return false
		}
	}
	return true
}
