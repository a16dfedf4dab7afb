package proxy

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// TestKamailioTrustsTheEdge: the documentation's registrar takes the word of a listed edge
// that it has authenticated a user (TS 33.203 X.3), and challenges everyone else.
func TestKamailioTrustsTheEdge(t *testing.T) {
	const done = `Authorization: Digest username="alice@ims.test", realm="ims.test", nonce="", uri="sip:ims.test", response="", integrity-protected="auth-done"`
	for _, tt := range []struct {
		name, trusted, row string
		want               int
	}{
		{"listed", "127.0.0.1/32", done, 200},
		{"not listed", "192.0.2.0/24", done, 401},
		{"another user", "127.0.0.1/32", strings.Replace(done, "alice@", "bob@", 1), 401},
		{"another word", "127.0.0.1/32", strings.Replace(done, "auth-done", "tls-yes", 1), 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKamailio(t)
			k.args = []string{"-A", `TRUSTED_EDGES="` + tt.trusted + `"`}
			k.start()
			conn, err := net.Dial("udp", k.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, err = conn.Write([]byte(lines("REGISTER sip:ims.test SIP/2.0", "Via: SIP/2.0/UDP "+conn.LocalAddr().String()+";branch="+newBranch(),
				"From: <sip:alice@ims.test>;tag=1", "To: <sip:alice@ims.test>", "Call-ID: "+newTag(), "CSeq: 1 REGISTER",
				"Contact: <sip:alice@alice.invalid;transport=ws>", "Max-Forwards: 70", tt.row, "Content-Length: 0")))
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 4096)
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			m, err := sip.ParseMessage(buf[:n])
			if err != nil {
				t.Fatal(err)
			}
			if got := m.(*sip.Response).StatusCode; got != tt.want {
				t.Errorf("%d, want %d\n%s", got, tt.want, buf[:n])
			}
		})
	}
}
