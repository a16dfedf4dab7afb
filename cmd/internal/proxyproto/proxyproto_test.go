package proxyproto

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// header makes one: version and command, family and transport, and what follows.
func header(command, family byte, rest ...byte) []byte {
	h := append([]byte(signature), command, family)
	return append(binary.BigEndian.AppendUint16(h, uint16(len(rest))), rest...)
}

var (
	tcp4 = []byte{203, 0, 113, 9, 10, 0, 0, 5, 0xC3, 0x50, 0x01, 0xBB}
	tcp6 = slices.Concat(netip.MustParseAddr("2001:db8::9").AsSlice(), netip.MustParseAddr("2001:db8::5").AsSlice(), []byte{0xC3, 0x50, 0x01, 0xBB})
)

// tlv is a type, a length and a value.
func tlv(kind byte, v ...byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(v))), v...)
}

// summed is tcp4 with a checksum, right or wrong.
func summed(off uint32) []byte {
	h := header(commandProxy, familyTCP4, slices.Concat(tcp4, tlv(typeCRC32C, 0, 0, 0, 0))...)
	binary.BigEndian.PutUint32(h[len(h)-4:], off+crc32.Checksum(h, crc32.MakeTable(crc32.Castagnoli)))
	return h
}

func TestRead(t *testing.T) {
	mapped := slices.Concat(netip.MustParseAddr("::ffff:203.0.113.9").AsSlice(), tcp6[16:])
	for _, tt := range []struct {
		name string
		in   []byte
		want string // "": refused
	}{
		{"TCP over IPv4", header(commandProxy, familyTCP4, tcp4...), "203.0.113.9:50000"},
		{"TCP over IPv6", header(commandProxy, familyTCP6, tcp6...), "[2001:db8::9]:50000"},
		{"mapped address", header(commandProxy, familyTCP6, mapped...), "203.0.113.9:50000"},
		{"TLVs", header(commandProxy, familyTCP4, slices.Concat(tcp4, tlv(4), tlv(0xEA, 1, 2, 3))...), "203.0.113.9:50000"},
		{"checksum", summed(0), "203.0.113.9:50000"},
		{"for itself", header(commandLocal, 0), "invalid AddrPort"},
		{"for itself, with a block to discard", header(commandLocal, 0, 1, 2, 3), "invalid AddrPort"},

		{"version 1", []byte("PROXY TCP4 203.0.113.9 10.0.0.5 50000 443\r\n"), ""},
		{"TLS", append([]byte{22, 3, 1, 2, 0, 1}, make([]byte, 40)...), ""},
		{"version 3", header(0x31, familyTCP4, tcp4...), ""},
		{"unknown command", header(0x22, familyTCP4, tcp4...), ""},
		{"UDP", header(commandProxy, 0x12, tcp4...), ""},
		{"Unix socket", header(commandProxy, 0x31, make([]byte, 216)...), ""},
		{"unspecified family", header(commandProxy, 0, tcp4...), ""},
		{"addresses cut short", header(commandProxy, familyTCP4, tcp4[:11]...), ""},
		{"IPv4's length for IPv6", header(commandProxy, familyTCP6, tcp4...), ""},
		{"port 0", header(commandProxy, familyTCP4, 203, 0, 113, 9, 10, 0, 0, 5, 0, 0, 1, 187), ""},
		{"unspecified source", header(commandProxy, familyTCP4, 0, 0, 0, 0, 10, 0, 0, 5, 1, 1, 1, 187), ""},
		{"multicast source", header(commandProxy, familyTCP4, 224, 0, 0, 1, 10, 0, 0, 5, 1, 1, 1, 187), ""},
		{"TLV cut short", header(commandProxy, familyTCP4, append(tcp4[:12:12], 4, 0)...), ""},
		{"TLV longer than the header", header(commandProxy, familyTCP4, append(tcp4[:12:12], 4, 0, 9, 1)...), ""},
		{"wrong checksum", summed(1), ""},
		{"checksum of two bytes", header(commandProxy, familyTCP4, slices.Concat(tcp4, tlv(typeCRC32C, 0, 0))...), ""},
		{"too long", header(commandProxy, familyTCP4, append(tcp4[:12:12], make([]byte, maxRest)...)...), ""},
		{"cut short", header(commandProxy, familyTCP4, tcp4...)[:20], ""},
		{"nothing", nil, ""},
	} {
		r := bytes.NewReader(append(slices.Clone(tt.in), "GET"...))
		if tt.want == "" {
			r = bytes.NewReader(tt.in)
		}
		got, err := Read(r)
		if tt.want == "" {
			if err == nil || got.IsValid() {
				t.Errorf("%s: Read = %v, %v; want an error", tt.name, got, err)
			}
			continue
		}
		rest, _ := io.ReadAll(r)
		if err != nil || got.String() != tt.want || string(rest) != "GET" {
			t.Errorf("%s: Read = %v, %v and leaves %q; want %s and what follows", tt.name, got, err, rest, tt.want)
		}
	}
}

// accept sends bytes over a loopback connection and returns what the server sees.
func accept(t *testing.T, trusted, send string) (remote string, read []byte, refused int, err error) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	ln := &Listener{Listener: plain, Trusted: []netip.Prefix{netip.MustParsePrefix(trusted)}, Refused: func(net.Addr, error) { refused++ }}
	c, err := net.Dial("tcp", plain.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(send)); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	remote = s.RemoteAddr().String()
	read, err = io.ReadAll(s)
	if strings.HasPrefix(remote, "127.0.0.1:") && remote == c.LocalAddr().String() {
		remote = "the peer"
	}
	return remote, read, refused, err
}

func TestListener(t *testing.T) {
	greeting := string(header(commandProxy, familyTCP4, tcp4...))
	if remote, read, _, err := accept(t, "127.0.0.0/8", greeting+"hello"); remote != "203.0.113.9:50000" || string(read) != "hello" || err != nil {
		t.Errorf("listed, with a greeting: %s, %q, %v", remote, read, err)
	}
	if remote, read, _, err := accept(t, "127.0.0.0/8", string(header(commandLocal, 0))+"hello"); remote != "the peer" || string(read) != "hello" || err != nil {
		t.Errorf("listed, for itself: %s, %q, %v", remote, read, err)
	}
	if remote, read, refused, err := accept(t, "127.0.0.0/8", "hello, this is no greeting"); remote != "the peer" || len(read) > 0 || !errors.Is(err, ErrMalformed) || refused != 1 {
		t.Errorf("listed, without a greeting: %s, %q, %v, told %d times; want ErrMalformed", remote, read, err, refused)
	}
	if remote, read, refused, err := accept(t, "192.0.2.0/24", greeting+"hello"); remote != "the peer" || string(read) != greeting+"hello" || err != nil || refused != 0 {
		t.Errorf("a stranger's greeting: %s, %q, %v; want it to be bytes like others", remote, read, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(header(commandProxy, familyTCP4, tcp4...))
	f.Add(header(commandProxy, familyTCP6, tcp6...))
	f.Add(header(commandLocal, 0))
	f.Add(summed(0))
	noise := make([]byte, 64)
	_, _ = rand.Read(noise)
	f.Add(noise)
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		source, err := Read(r)
		if err != nil {
			if source.IsValid() {
				t.Fatalf("Read(%x) = %v with %v", in, source, err)
			}
			return
		}
		want := headerLen + int(binary.BigEndian.Uint16(in[14:]))
		if used := len(in) - r.Len(); used != want {
			t.Fatalf("Read(%x) took %d bytes, want %d", in, used, want)
		}
		if source.IsValid() && (source.Port() == 0 || source.Addr().IsUnspecified() || source.Addr().Is4In6()) {
			t.Fatalf("Read(%x) = %v", in, source)
		}
	})
}

// TestDescriptor: who waits for a connection by its descriptor gets that of the socket, and
// of a connection that did not greet none.
func TestDescriptor(t *testing.T) {
	for greeting, want := range map[string]bool{string(header(commandProxy, familyTCP4, tcp4...)): true, "GET / HTTP/1.1\r\n\r\n": false} {
		ours, theirs := net.Pipe()
		go func() { _, _ = theirs.Write([]byte(greeting)) }()
		raw, err := (&conn{Conn: withDescriptor{ours}}).SyscallConn()
		if err != nil == want || raw != nil {
			t.Errorf("greeted with %q: %v, %v; want a descriptor: %v", greeting, raw, err, want)
		}
		_, _ = ours.Close(), theirs.Close()
	}
}

// withDescriptor has a descriptor, of nothing.
type withDescriptor struct{ net.Conn }

func (withDescriptor) SyscallConn() (syscall.RawConn, error) { return nil, nil }
