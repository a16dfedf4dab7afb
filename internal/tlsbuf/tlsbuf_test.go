package tlsbuf

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	if !rawInput.found || !input.found || !handshake.found {
		t.Errorf("%s: tls.Conn has other buffers: look at crypto/tls conn.go, or idle flows take 3.5 KiB more", runtime.Version())
	}
}

// wire is the client's end of the connection under TLS.
type wire struct {
	net.Conn
	held *bytes.Buffer // not nil: it takes what is written
}

func (w *wire) Write(p []byte) (int, error) {
	if w.held != nil {
		return w.held.Write(p)
	}
	return w.Conn.Write(p)
}

// pair returns both ends of a TLS connection after its handshake.
func pair(t *testing.T, version uint16) (server, client *tls.Conn, under *wire) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	cert := srv.TLS.Certificates[0]
	srv.Close()
	a, b := net.Pipe()
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	under = &wire{Conn: b}
	server = tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, SessionTicketsDisabled: true})
	client = tls.Client(under, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	shaken := make(chan error, 1)
	go func() { shaken <- client.HandshakeContext(t.Context()) }()
	if err := errors.Join(server.HandshakeContext(t.Context()), <-shaken); err != nil {
		t.Fatal(err)
	}
	_ = server.SetDeadline(time.Now().Add(10 * time.Second))
	return server, client, under
}

// TestFree: buffers go, and the connection reads on.
func TestFree(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server, client, _ := pair(t, version)
		Free(server)
		if b := at[bytes.Buffer](server, handshake); b.Cap() != 0 {
			t.Errorf("%#x: %d octets kept of the handshake", version, b.Cap())
		}
		sent := bytes.Repeat([]byte("0123456789abcdef"), 3000) // three records
		for range 3 {
			go func() { _, _ = client.Write(sent) }()
			var got []byte
			buf := make([]byte, 1000)
			for len(got) < len(sent) {
				n, err := server.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, buf[:n]...)
				Free(server) // also with octets left in it
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("%#x: what came is not what was sent", version)
			}
			if b := at[bytes.Buffer](server, rawInput); b.Cap() != 0 {
				t.Errorf("%#x: %d octets kept of the records", version, b.Cap())
			}
		}
	}
}

// TestFreeKeepsHalfARecord: what came of a record stays, when a read has timed out.
func TestFreeKeepsHalfARecord(t *testing.T) {
	server, client, under := pair(t, tls.VersionTLS13)
	under.held = &bytes.Buffer{}
	if _, err := client.Write([]byte("whole")); err != nil {
		t.Fatal(err)
	}
	record := under.held.Bytes()
	read := func() (string, error) {
		buf := make([]byte, 100)
		n, err := server.Read(buf)
		return string(buf[:n]), err
	}
	for _, octet := range record[:len(record)-1] {
		go func() { _, _ = under.Conn.Write([]byte{octet}) }()
		_ = server.SetReadDeadline(time.Now().Add(time.Millisecond))
		for {
			before := at[bytes.Buffer](server, rawInput).Len()
			if got, err := read(); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("read %q, %v of half a record, want a timeout", got, err)
			}
			Free(server)
			if at[bytes.Buffer](server, rawInput).Len() > before {
				break
			}
			_ = server.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // it comes yet
		}
	}
	go func() { _, _ = under.Conn.Write(record[len(record)-1:]) }()
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := read(); got != "whole" || err != nil {
		t.Errorf("read %q, %v; want the whole record", got, err)
	}
}
