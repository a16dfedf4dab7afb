package sipext

import (
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// HeaderFields is what *sip.Request and *sip.Response have in common.
type HeaderFields interface {
	Headers() []sip.Header
	AppendHeader(sip.Header)
	RemoveHeader(name string) bool
}

// Named reports whether a header field called name is the one called want, whatever
// the case, also in its compact form (RFC 3261 §7.3.3). It is asked for each row of each
// message, for each field that somebody looks for, so lengths are compared first.
func Named(name, want string) bool {
	if len(name) == 1 && len(want) > 1 {
		name = NameOf(name).String()
	}
	return len(name) == len(want) && strings.EqualFold(name, want)
}

// Rows returns the rows of a header field in order, in every spelling.
func Rows(m HeaderFields, name string) []sip.Header {
	var rows []sip.Header
	for _, h := range m.Headers() {
		if Named(h.Name(), name) {
			rows = append(rows, h)
		}
	}
	return rows
}

// Strip removes every row of each named header field, in every spelling. sipgo's own
// RemoveHeader takes the case as written and the first row only.
func Strip(m HeaderFields, names ...string) {
	for _, name := range names {
		for _, h := range Rows(m, name) {
			m.RemoveHeader(h.Name())
		}
	}
}

// tagHeaders are the header fields that list option tags.
var tagHeaders = []string{"Supported", "Require", "Proxy-Require"}

// List returns the elements of a comma-separated header field over all its rows, for
// fields whose elements are tokens.
func List(m HeaderFields, name string) []string {
	var all []string
	for _, h := range Rows(m, name) {
		for _, e := range strings.Split(h.Value(), ",") {
			if e = trimLWS(e); e != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

func hasOptionTag(m HeaderFields, tag string) bool {
	return slices.ContainsFunc(tagHeaders, func(name string) bool {
		return slices.ContainsFunc(List(m, name), func(t string) bool { return strings.EqualFold(t, tag) })
	})
}

// WithoutOptionTags returns a list of option tags without some; a list that has none of
// them comes back as it is.
func WithoutOptionTags(list string, tags ...string) string {
	unwanted := func(e string) bool {
		return slices.ContainsFunc(tags, func(tag string) bool { return strings.EqualFold(trimLWS(e), tag) })
	}
	found := false
	for e := range strings.SplitSeq(list, ",") {
		found = found || unwanted(e)
	}
	if !found {
		return list
	}
	var kept []string
	for e := range strings.SplitSeq(list, ",") {
		if e = trimLWS(e); e != "" && !unwanted(e) {
			kept = append(kept, e)
		}
	}
	return strings.Join(kept, ", ")
}
