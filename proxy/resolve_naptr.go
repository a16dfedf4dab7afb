package proxy

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// naptr is a NAPTR record (RFC 3403 §4.1), as far as RFC 3263 §4.1 uses it.
type naptr struct {
	order, preference uint16
	flags, service    string
	replacement       string
}

func (n naptr) compare(o naptr) int {
	return cmp.Or(cmp.Compare(n.order, o.order), cmp.Compare(n.preference, o.preference))
}

// transport is what the record leads to by SRV; "" where we do not speak it.
func (n naptr) transport() string {
	if !strings.EqualFold(n.flags, "s") || n.replacement == "" {
		return ""
	}
	switch strings.ToUpper(n.service) {
	case "SIPS+D2T":
		return "tls"
	case "SIP+D2T":
		return "tcp"
	case "SIP+D2U":
		return "udp"
	}
	return ""
}

// parseNAPTR reads the RDATA of RFC 3403 §4.1:
//
//	order (2) | preference (2) | flags | services | regexp (each length (1), octets) | replacement
//
// The replacement is a name that is never compressed.
func parseNAPTR(b []byte) (n naptr, ok bool) {
	if len(b) < 4 {
		return n, false
	}
	n.order, n.preference = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	b = b[4:]
	var text [3]string
	for i := range text {
		if len(b) == 0 || len(b) <= int(b[0]) {
			return n, false
		}
		end := 1 + int(b[0])
		text[i], b = string(b[1:end]), b[end:]
	}
	n.flags, n.service = text[0], text[1]
	var labels []string
	for len(b) > 0 && b[0] > 0 && b[0] < 64 && len(b) > int(b[0]) {
		end := 1 + int(b[0])
		label := string(b[1:end])
		if !isHost(strings.ReplaceAll(label, "_", "-")) || strings.Contains(label, ".") {
			return n, false
		}
		labels, b = append(labels, label), b[end:]
	}
	n.replacement = strings.Join(labels, ".")
	return n, len(b) == 1 && b[0] == 0 && len(n.replacement) < 254
}

// naptrType is NAPTR (RFC 3403 §4), which dnsmessage leaves to its users.
const naptrType dnsmessage.Type = 35

// naptrClient asks name servers for NAPTR records, and nothing else: one record type is
// not worth a DNS library beside dnsmessage, whose parser the standard library uses too.
type naptrClient struct {
	servers []netip.AddrPort // none: those of /etc/resolv.conf
}

const (
	dnsTimeout = 2 * time.Second // for each server
	dnsUDPSize = 1232            // what fits any path (RFC 9715 §3.1)
)

var (
	errNoNameserver = errors.New("no name server in /etc/resolv.conf")
	errBadAnswer    = errors.New("malformed answer")
)

// lookup returns the NAPTR records of a name; none is no error.
func (c *naptrClient) lookup(ctx context.Context, name string) ([]naptr, error) {
	servers := c.servers
	if len(servers) == 0 {
		servers = systemNameservers()
	}
	err := errNoNameserver
	for _, s := range servers {
		var found []naptr
		if found, err = c.ask(ctx, s, name); err == nil {
			return found, nil
		}
	}
	return nil, err
}

func systemNameservers() (servers []netip.AddrPort) {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && fields[0] == "nameserver" {
			if ip, err := netip.ParseAddr(fields[1]); err == nil {
				servers = append(servers, netip.AddrPortFrom(ip, 53))
			}
		}
	}
	return servers
}

// ask asks one server by UDP, and by TCP where the answer was cut (RFC 7766 §5).
func (c *naptrClient) ask(ctx context.Context, server netip.AddrPort, name string) ([]naptr, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	id := uint16(rand.Uint32()) //nolint:gosec // G404: the socket's random port guards it too, as with any stub resolver
	query, err := naptrQuery(id, name)
	if err != nil {
		return nil, err
	}
	found, cut, err := exchangeDNS(ctx, "udp", server, id, name, query)
	if cut && err == nil {
		found, _, err = exchangeDNS(ctx, "tcp", server, id, name, query)
	}
	if err != nil {
		return nil, fmt.Errorf("name server %s: %w", server, err)
	}
	return found, nil
}

func naptrQuery(id uint16, name string) ([]byte, error) {
	q, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, err
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	var edns dnsmessage.ResourceHeader
	for _, step := range []func() error{
		b.StartQuestions,
		func() error {
			return b.Question(dnsmessage.Question{Name: q, Type: naptrType, Class: dnsmessage.ClassINET})
		},
		b.StartAdditionals,
		func() error { return edns.SetEDNS0(dnsUDPSize, dnsmessage.RCodeSuccess, false) },
		func() error { return b.OPTResource(edns, dnsmessage.OPTResource{}) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// exchangeDNS sends a query and waits for its answer.
func exchangeDNS(ctx context.Context, network string, server netip.AddrPort, id uint16, name string, query []byte) (found []naptr, cut bool, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	read := func() ([]byte, error) {
		buf := make([]byte, dnsUDPSize)
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	if network == "tcp" { // RFC 1035 §4.2.2: the length goes before
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
		read = func() ([]byte, error) {
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return nil, err
			}
			buf := make([]byte, binary.BigEndian.Uint16(size[:]))
			_, err := io.ReadFull(conn, buf)
			return buf, err
		}
	}
	if _, err := conn.Write(query); err != nil {
		return nil, false, err
	}
	for {
		answer, err := read()
		if err != nil {
			return nil, false, err
		}
		found, cut, err = parseNAPTRAnswer(answer, id, name)
		if network == "udp" && errors.Is(err, errBadAnswer) {
			continue // a stranger's datagram does not end the wait
		}
		return found, cut, err
	}
}

// parseNAPTRAnswer reads the answer to our question; errBadAnswer says that it is none.
func parseNAPTRAnswer(b []byte, id uint16, name string) (found []naptr, cut bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != id || !h.Response {
		return nil, false, errBadAnswer
	}
	q, err := p.AllQuestions()
	if err != nil || len(q) != 1 || q[0].Type != naptrType || !strings.EqualFold(strings.TrimSuffix(q[0].Name.String(), "."), strings.TrimSuffix(name, ".")) {
		return nil, false, errBadAnswer
	}
	switch h.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeServerFailure:
		return nil, false, errors.New("server failure")
	default:
		return nil, false, nil // no such name, or a server that does not know the type
	}
	for len(found) < maxCandidates {
		a, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return nil, h.Truncated, unlessCut(h)
		}
		if a.Type != naptrType {
			if p.SkipAnswer() != nil {
				return nil, h.Truncated, unlessCut(h)
			}
			continue
		}
		r, err := p.UnknownResource()
		if err != nil {
			return nil, h.Truncated, unlessCut(h)
		}
		if n, ok := parseNAPTR(r.Data); ok {
			found = append(found, n)
		}
	}
	return found, h.Truncated, nil
}

func unlessCut(h dnsmessage.Header) error {
	if h.Truncated {
		return nil
	}
	return errBadAnswer
}
