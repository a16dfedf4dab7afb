package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// startQuickCore runs the least that a core is to an edge: it answers each REGISTER with 200
// at once, whatever the Digest response in it, and no other request. It returns its address.
func startQuickCore(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(4 << 20) // what is tested is not this socket
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(in)
			if err != nil {
				return
			}
			if bytes.HasPrefix(in[:n], []byte("REGISTER ")) {
				_, _ = conn.WriteToUDPAddrPort([]byte(accepted(string(in[:n]))), from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

// accepted is the 200 to a REGISTER. A Contact that was taken back is not in it.
func accepted(register string) string {
	var b strings.Builder
	b.WriteString("SIP/2.0 200 OK\r\n")
	for _, row := range strings.Split(register, "\r\n")[1:] {
		name, value, _ := strings.Cut(row, ":")
		switch strings.ToLower(name) {
		case "contact":
			if !strings.HasSuffix(value, ";expires=0") {
				b.WriteString(row + "\r\n")
			}
		case "via", "from", "call-id", "cseq", "path":
			b.WriteString(row + "\r\n")
		case "to":
			b.WriteString(row + ";tag=core\r\nP-Associated-URI:" + value + "\r\n")
		}
	}
	b.WriteString("Service-Route: <sip:scscf.ims.test;lr>\r\nContent-Length: 0\r\n\r\n")
	return b.String()
}
