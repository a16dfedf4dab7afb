package proxy

import (
	"bytes"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// typicalHeader is the size of a header block that most messages stay below: a REGISTER of
// JsSIP with its credential takes 1,500 octets.
const typicalHeader = 2 << 10

// bufferPool lends buffers in which a message is written, for as long as it takes to send it.
type bufferPool struct{ pool sync.Pool }

var messageBuffers bufferPool

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, typicalHeader)
	return &b
}

// put takes a buffer back, emptied; one that an odd message has grown goes.
func (p *bufferPool) put(b *[]byte) {
	if cap(*b) <= 4*typicalHeader {
		*b = (*b)[:0]
		p.pool.Put(b)
	}
}

// encode writes a message for the wire, Content-Length computed from the real body.
func encode(m sip.Message) []byte {
	if m.ContentLength() == nil || int(*m.ContentLength()) != len(m.Body()) {
		sipext.Strip(m.(sipext.HeaderFields), "Content-Length")
		m.SetBody(m.Body())
	}
	var b bytes.Buffer
	b.Grow(typicalHeader + len(m.Body()))
	m.StringWrite(&b)
	return b.Bytes()
}

func newBranch() string { return sip.RFC3261BranchMagicCookie + rand.Text() }

func newTag() string { return rand.Text()[:16] }

// toTag returns the tag of To; a request that has one is within a dialog.
func toTag(m sipext.HeaderFields) string { return partyTag(m, "To") }

// partyTag reads the tag from the text: sipgo splits parameters within quotes too.
func partyTag(m sipext.HeaderFields, name string) string { return tagOf(first(m, name)) }

// tagOf returns the tag of a From or To.
func tagOf(party string) string {
	tag, _ := sipext.AddressParam(party, "tag")
	return tag
}

// first returns the first row's value, or "".
func first(m sipext.HeaderFields, name string) string {
	if rows := sipext.Rows(m, name); len(rows) > 0 {
		return rows[0].Value()
	}
	return ""
}

// elements returns the elements of an address list over all its rows, as written.
func elements(m sipext.HeaderFields, name string) []string {
	var all []string
	for _, h := range sipext.Rows(m, name) {
		for _, e := range sipext.SplitList(h.Value()) {
			if e != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

// setRows replaces a header field by one row for each value.
func setRows(m sipext.HeaderFields, name string, values ...string) {
	sipext.Strip(m, name)
	for _, v := range values {
		m.AppendHeader(sip.NewHeader(name, v))
	}
}

// decrementHops does RFC 3261 §16.6 step 3. The header is replaced, not changed: sipgo's
// clones share it.
func decrementHops(req *sip.Request) {
	hops := sip.MaxForwardsHeader(70)
	if old := req.MaxForwards(); old != nil {
		hops = *old - 1 // the check in proceed refused 0
	}
	sipext.Strip(req, "Max-Forwards")
	req.AppendHeader(&hops)
}

// decrementRow is decrementHops of a message that was scanned.
func decrementRow(req *sipext.Message) {
	hops := 70
	if v := req.First(sipext.MaxForwards); v != "" {
		hops = seconds(v) - 1 // checkProxied has refused 0
	}
	req.Remove(sipext.MaxForwards)
	req.Add(sipext.MaxForwards, strconv.Itoa(hops))
}

// parseURI reads the URI of a name-addr or addr-spec.
func parseURI(address string) (sip.Uri, bool) {
	var u sip.Uri
	a, err := sipext.ParseAddress(address)
	if err != nil || a.URI == "*" || sip.ParseUri(a.URI, &u) != nil {
		return u, false
	}
	return u, true
}

// sameURI compares scheme, user, host and port of two SIP URIs (RFC 3261 §19.1.4), which
// is enough to find one's own contact among those of a 200.
func sameURI(a, b string) bool {
	var u, v sip.Uri
	if sip.ParseUri(a, &u) != nil || sip.ParseUri(b, &v) != nil {
		return a == b
	}
	return u.Scheme == v.Scheme && u.User == v.User && strings.EqualFold(u.Host, v.Host) && u.Port == v.Port && u.Raw() == v.Raw()
}

// aor is the address of record in a From or To: the URI without parameters.
func aor(u *sip.Uri) IMPU {
	if u.Scheme != "sip" && u.Scheme != "sips" {
		return IMPU(u.String())
	}
	at, colon, port := "", "", ""
	if u.User != "" {
		at = "@"
	}
	if u.Port > 0 {
		colon, port = ":", strconv.Itoa(u.Port)
	}
	return IMPU(u.Scheme + ":" + u.User + at + strings.ToLower(u.Host) + colon + port)
}
