package proxy

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is what a DNS server on loopback knows: record type and fully qualified name.
type zone map[dnsmessage.Type]map[string][]dnsmessage.ResourceBody

func (z zone) add(t dnsmessage.Type, name string, bodies ...dnsmessage.ResourceBody) zone {
	if z[t] == nil {
		z[t] = map[string][]dnsmessage.ResourceBody{}
	}
	z[t][name+"."] = append(z[t][name+"."], bodies...)
	return z
}

func (z zone) a(name string, ips ...string) zone {
	for _, s := range ips {
		ip := netip.MustParseAddr(s)
		if ip.Is4() {
			z.add(dnsmessage.TypeA, name, &dnsmessage.AResource{A: ip.As4()})
		} else {
			z.add(dnsmessage.TypeAAAA, name, &dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	return z
}

func (z zone) srv(name string, priority, weight, port uint16, target string) zone {
	return z.add(dnsmessage.TypeSRV, name, &dnsmessage.SRVResource{
		Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(strings.TrimSuffix(target, ".") + "."),
	})
}

func (z zone) naptr(name string, order, preference uint16, flags, service, replacement string) zone {
	return z.add(naptrType, name, &dnsmessage.UnknownResource{Type: naptrType, Data: naptrData(order, preference, flags, service, replacement)})
}

func naptrData(order, preference uint16, flags, service, replacement string) []byte {
	b := binary.BigEndian.AppendUint16(nil, order)
	b = binary.BigEndian.AppendUint16(b, preference)
	for _, s := range []string{flags, service, ""} {
		b = append(append(b, byte(len(s))), s...)
	}
	if replacement != "" {
		for l := range strings.SplitSeq(replacement, ".") {
			b = append(append(b, byte(len(l))), l...)
		}
	}
	return append(b, 0)
}

// dnsServer answers from a zone. An answer by UDP over 512 octets is cut.
type dnsServer struct {
	t    *testing.T
	addr netip.AddrPort
	mu   sync.Mutex // guards zone and down
	zone zone
	down bool
}

func startDNS(t *testing.T, z zone) *dnsServer {
	t.Helper()
	pc, ln := socketPair(t)
	s := &dnsServer{t: t, addr: addrOf(pc.LocalAddr()), zone: z}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if b := s.reply(buf[:n], 512); b != nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	})
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err == nil {
				q := make([]byte, binary.BigEndian.Uint16(size[:]))
				_, _ = io.ReadFull(conn, q)
				b := s.reply(q, 65535)
				_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _, _ = pc.Close(), ln.Close(); work.Wait() })
	return s
}

func (s *dnsServer) set(z zone, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone, s.down = z, down
}

func (s *dnsServer) reply(query []byte, room int) []byte {
	var q dnsmessage.Message
	if q.Unpack(query) != nil || len(q.Questions) != 1 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil
	}
	ask := q.Questions[0]
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
	known := false
	for t, names := range s.zone {
		bodies, here := names[strings.ToLower(ask.Name.String())]
		known = known || here
		if t == ask.Type {
			for _, b := range bodies {
				r.Answers = append(r.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: ask.Name, Class: ask.Class, Type: t, TTL: 1}, Body: b})
			}
		}
	}
	if !known {
		r.RCode = dnsmessage.RCodeNameError
	}
	b, err := r.Pack()
	if err != nil {
		s.t.Errorf("DNS server: %v", err)
	}
	if len(b) > room {
		r.Truncated, r.Answers = true, nil
		b, _ = r.Pack()
	}
	return b
}

// TestResolve follows RFC 3263 §4, and RFC 3261 and 5922 where it leans on them.
func TestResolve(t *testing.T) {
	hosts := func() zone {
		return zone{}.a("one.ims.test", "192.0.2.1").a("two.ims.test", "192.0.2.2").a("both.ims.test", "192.0.2.3", "2001:db8::3")
	}
	full := func() zone {
		return hosts().
			naptr("ims.test", 50, 50, "s", "SIPS+D2T", "_sips._tcp.ims.test").
			naptr("ims.test", 90, 50, "s", "SIP+D2T", "_sip._tcp.ims.test").
			naptr("ims.test", 100, 50, "S", "sip+d2u", "_sip._udp.ims.test").
			srv("_sips._tcp.ims.test", 0, 1, 5061, "one.ims.test").
			srv("_sip._tcp.ims.test", 0, 1, 5060, "one.ims.test").
			srv("_sip._udp.ims.test", 0, 1, 5060, "one.ims.test")
	}
	long := hosts()
	for i := range uint16(20) {
		long.naptr("ims.test", 10+i, 0, "s", "SIP+D2S", "_sip._sctp."+strings.Repeat("x", 40)+".ims.test")
	}
	long.naptr("ims.test", 9, 0, "s", "SIP+D2T", "_sip._tcp.ims.test").srv("_sip._tcp.ims.test", 0, 0, 5070, "two.ims.test")

	for _, tt := range []struct {
		name, hop string
		zone      zone
		tls       bool
		want      string // none: an error
	}{
		{"RFC 3263 §4.1: numeric and a port, SIP: UDP", "sip:192.0.2.9:5070", nil, false, "udp:192.0.2.9:5070"},
		{"RFC 3263 §4.1: numeric, SIPS: TLS; RFC 3261 §19.1.2: port 5061", "sips:192.0.2.9", nil, true, "tls:192.0.2.9:5061"},
		{"RFC 3263 §4.1: a port and no transport: UDP, no NAPTR", "sip:one.ims.test:5080", full(), false, "udp:192.0.2.1:5080"},
		{"RFC 3263 §4.1: the transport is given", "tcp:192.0.2.9", nil, false, "tcp:192.0.2.9:5060"},
		{"RFC 3263 §4.1: NAPTR, lowest order first, TLS where we have it", "sip:ims.test", full(), true,
			"tls:192.0.2.1:5061 tcp:192.0.2.1:5060 udp:192.0.2.1:5060"},
		{"RFC 3263 §4.1: NAPTR of transports that we lack are left out", "sip:ims.test", full(), false, "tcp:192.0.2.1:5060 udp:192.0.2.1:5060"},
		{"RFC 3263 §4.1: SIPS: only SIPS services", "sips:ims.test", full(), true, "tls:192.0.2.1:5061"},
		{"RFC 3403 §4.1: preference within an order", "sip:ims.test",
			hosts().naptr("ims.test", 1, 20, "s", "SIP+D2U", "u.ims.test").naptr("ims.test", 1, 10, "s", "SIP+D2T", "t.ims.test").
				srv("u.ims.test", 0, 0, 1, "one.ims.test").srv("t.ims.test", 0, 0, 2, "two.ims.test"),
			false, "tcp:192.0.2.2:2 udp:192.0.2.1:1"},
		{"RFC 3263 §4.1: NAPTR of another use", "sip:ims.test", hosts().a("ims.test", "192.0.2.7").naptr("ims.test", 1, 1, "u", "E2U+sip", ""), false, "udp:192.0.2.7:5060"},
		{"RFC 7766 §5: a cut answer is asked for by TCP", "sip:ims.test", long, false, "tcp:192.0.2.2:5070"},
		{"RFC 3263 §4.1: no NAPTR: SRV of what we speak", "sip:ims.test",
			hosts().srv("_sip._tcp.ims.test", 0, 0, 5062, "two.ims.test").srv("_sip._udp.ims.test", 0, 0, 5061, "one.ims.test"), false,
			"udp:192.0.2.1:5061 tcp:192.0.2.2:5062"},
		{"RFC 3263 §4.1: neither NAPTR nor SRV: UDP; §4.2: A, port 5060", "sip:one.ims.test", hosts(), false, "udp:192.0.2.1:5060"},
		{"RFC 3263 §4.2: a transport and no port: its SRV", "tcp:ims.test", full(), false, "tcp:192.0.2.1:5060"},
		{"RFC 3263 §4.2: a transport and no SRV: A and AAAA", "tls:both.ims.test", hosts(), true, "tls:192.0.2.3:5061 tls:[2001:db8::3]:5061"},
		{"RFC 2782: priority before weight", "udp:ims.test",
			hosts().srv("_sip._udp.ims.test", 20, 100, 1, "one.ims.test").srv("_sip._udp.ims.test", 10, 1, 2, "two.ims.test"), false,
			"udp:192.0.2.2:2 udp:192.0.2.1:1"},
		{"RFC 2782: a target of . says no", "udp:ims.test", hosts().srv("_sip._udp.ims.test", 0, 0, 0, "."), false, ""},
		{"one SRV target is unknown", "udp:ims.test",
			hosts().srv("_sip._udp.ims.test", 0, 0, 1, "nowhere.ims.test").srv("_sip._udp.ims.test", 1, 0, 2, "two.ims.test"), false, "udp:192.0.2.2:2"},
		{"nobody knows the name", "sip:nowhere.test", hosts(), false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Core{Nameservers: []netip.AddrPort{startDNS(t, tt.zone).addr}}
			if tt.tls {
				cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			}
			hop, err := ParseNextHop(tt.hop)
			if err != nil {
				t.Fatal(err)
			}
			u, _ := hop.uri()
			found, err := newResolver(&cfg).resolve(t.Context(), u)
			var got []string
			for _, c := range found {
				got = append(got, c.String())
				if c.transport == "tls" && c.name != u.host {
					t.Errorf("%s proves %q, want the name asked for (RFC 5922 §4)", c, c.name)
				}
			}
			// A host's own addresses come in the library's order (RFC 6724).
			if tt.hop == "tls:both.ims.test" {
				slices.Sort(got)
			}
			if s := strings.Join(got, " "); s != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("%s is %q, %v, want %q", tt.hop, s, err, tt.want)
			}
		})
	}
}

// A name server that is silent is passed over; one that fails is no absence of records.
func TestNAPTRServers(t *testing.T) {
	z := zone{}.naptr("ims.test", 1, 1, "s", "SIP+D2U", "x.ims.test")
	good, silent := startDNS(t, z), startDNS(t, nil)
	silent.set(nil, true)
	ctx, cancel := context.WithCancel(t.Context())
	c := &naptrClient{servers: []netip.AddrPort{good.addr}}
	if got, err := c.lookup(ctx, "IMS.test"); err != nil || len(got) != 1 || got[0].replacement != "x.ims.test" {
		t.Errorf("lookup = %v, %v", got, err)
	}
	cancel()
	c.servers = []netip.AddrPort{silent.addr}
	if _, err := c.lookup(ctx, "ims.test"); err == nil {
		t.Error("a silent server answered")
	}
}

func TestParseNAPTR(t *testing.T) {
	sound := naptrData(1, 2, "s", "SIP+D2U", "_sip._udp.ims.test")
	if n, ok := parseNAPTR(sound); !ok || n != (naptr{1, 2, "s", "SIP+D2U", "_sip._udp.ims.test"}) {
		t.Errorf("parseNAPTR = %+v, %v", n, ok)
	}
	for i := range sound {
		if _, ok := parseNAPTR(sound[:i]); ok {
			t.Errorf("%d of %d octets were enough", i, len(sound))
		}
	}
	for name, b := range map[string][]byte{
		"an octet more":              append(slices.Clone(sound), 0),
		"a compressed name":          append(naptrData(1, 2, "s", "x", "")[:8], 0, 0xc0, 0x0c),
		"a name that is no host":     naptrData(1, 2, "s", "x", "a b"),
		"a text longer than its row": {0, 1, 0, 2, 255, 's'},
	} {
		if n, ok := parseNAPTR(b); ok {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

// FuzzNAPTRAnswer: what is taken from any answer is bounded and names hosts alone.
func FuzzNAPTRAnswer(f *testing.F) {
	r := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("ims.test."), Type: naptrType, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("ims.test."), Type: naptrType, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.UnknownResource{Type: naptrType, Data: naptrData(1, 2, "s", "SIP+D2U", "_sip._udp.ims.test")},
		}},
	}
	seed, err := r.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		found, _, _ := parseNAPTRAnswer(b, 7, "ims.test")
		if len(found) > maxCandidates {
			t.Errorf("%d records", len(found))
		}
		for _, n := range found {
			if n.replacement != "" && !isHost(strings.ReplaceAll(n.replacement, "_", "-")) {
				t.Errorf("replacement %q", n.replacement)
			}
		}
	})
}
