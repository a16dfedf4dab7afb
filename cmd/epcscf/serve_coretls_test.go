package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"epcscf/cmd/internal/testpki"
)

const register = "REGISTER sip:ims.test SIP/2.0\r\n" +
	"Via: SIP/2.0/WSS wic.invalid;branch=z9hG4bKcoretls\r\nMax-Forwards: 70\r\n" +
	"From: <sip:alice@ims.test>;tag=1\r\nTo: <sip:alice@ims.test>\r\nCall-ID: coretls@wic.invalid\r\nCSeq: 1 REGISTER\r\n" +
	"Contact: <sip:alice@wic.invalid;transport=ws>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"

// The core over TLS, both ways: either end must show a certificate of the authority.
func TestCoreOverTLS(t *testing.T) {
	pki := t.TempDir()
	authority := testpki.NewCA(t, pki)
	authority.Issue(t, pki, "core", time.Now().Add(time.Hour), "127.0.0.1")
	authority.Issue(t, pki, "edge-for-core", time.Now().Add(30*24*time.Hour), "127.0.0.1")
	core := tlsSide(t, pki, authority)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", core)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	heard := make(chan string, 1)
	go hear(ln, heard)

	ours := freeAddr(t)
	_, port, err := net.SplitHostPort(ours)
	if err != nil {
		t.Fatal(err)
	}
	s := operate(t, func(y string) string {
		_, end, _ := strings.Cut(y, "next_hops: ")
		_, end, _ = strings.Cut(end, "}")
		begin, _, _ := strings.Cut(y, "next_hops: ")
		return begin + `next_hops: "tls:` + ln.Addr().String() + `", tls: {port: ` + port + ", ca_file: " + authority.File +
			", cert_file: " + filepath.Join(pki, "edge-for-core.pem") + ", key_file: " + filepath.Join(pki, "edge-for-core.key") + "}}" + end
	})
	ws, err := s.dial(t, serveOrigin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte(register)); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-heard:
		if !strings.HasPrefix(got, "edge-for-core: ") || !strings.Contains(got, "SIP/2.0") {
			t.Errorf("the core hears %q, want SIP from edge-for-core", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the core hears nothing\n%s", s.log)
	}

	if !admitted(t, ours, core) {
		t.Error("the core with its certificate is refused")
	}
	stranger := core.Clone()
	stranger.Certificates = nil
	if admitted(t, ours, stranger) {
		t.Error("whoever has no certificate of the authority is taken for the core")
	}
	if _, m := s.get("/metrics"); !strings.Contains(m, `epcscf_certificate_expires_days{part="core"}`) {
		t.Errorf("metrics:\n%s", grep(m, "certificate"))
	}
}

// tlsSide is the core's configuration in either direction.
func tlsSide(t *testing.T, dir string, authority *testpki.CA) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "core.pem"), filepath.Join(dir, "core.key"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(authority.File)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, RootCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// hear says who comes first, and what with.
func hear(ln net.Listener, heard chan<- string) {
	c, err := ln.Accept()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		heard <- strconv.Quote(line) + ": " + err.Error()
		return
	}
	heard <- c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName + ": " + line
}

// admitted reports whether the edge keeps a connection of the core's: in TLS 1.3 a client
// learns by its first read that its certificate was refused.
func admitted(t *testing.T, addr string, cfg *tls.Config) bool {
	t.Helper()
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("\r\n\r\n")); err != nil { // RFC 5626 §3.5.1: the answer is CRLF
		return false
	}
	buf := make([]byte, 2)
	_, err = c.Read(buf)
	return err == nil && string(buf) == "\r\n"
}
