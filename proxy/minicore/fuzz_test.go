package minicore

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/turncred"
)

// null is a socket that swallows what is written.
type null struct{ net.PacketConn }

func (null) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (null) LocalAddr() net.Addr                       { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5060} }

// FuzzDatagram feeds a core whatever a socket may read: no message makes it panic.
func FuzzDatagram(f *testing.F) {
	head := "Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1\r\nFrom: <sip:alice@ims.test>;tag=1\r\nTo: <sip:alice@ims.test>\r\nCall-ID: 1\r\n"
	f.Add([]byte("REGISTER sip:ims.test SIP/2.0\r\n" + head + "CSeq: 1 REGISTER\r\nContact: <sip:a@b.invalid>;reg-id=1\r\nPath: <sip:t@127.0.0.1;lr;ob>, <sip:x>\r\n\r\n"))
	f.Add([]byte("REGISTER sip:ims.test SIP/2.0\r\n" + head + "CSeq: 2 REGISTER\r\nContact: *\r\nExpires: 0\r\nAuthorization: Digest username=\"alice\", realm=\"ims.test\", nonce=\"\", uri=\"\", response=\"\", nc=-1\r\n\r\n"))
	f.Add([]byte("INVITE sip:bob@ims.test SIP/2.0\r\n" + head + "CSeq: 1 INVITE\r\nRoute: <sip:orig@127.0.0.1:5060;lr>\r\nP-Asserted-Identity: \"x, y\" <sip:alice@ims.test>\r\n\r\n"))
	f.Add([]byte("ACK sip:bob@ims.test SIP/2.0\r\n" + head + "CSeq: 1 ACK\r\n\r\n"))
	f.Add([]byte("CANCEL sip:bob@ims.test SIP/2.0\r\n" + head + "CSeq: 1 CANCEL\r\n\r\n"))
	f.Add([]byte("SIP/2.0 200 OK\r\n" + head + "CSeq: 1 INVITE\r\n\r\n"))

	core, err := New(Config{Domain: domain, Users: map[string]turncred.Secret{
		"alice": turncred.NewSecret([]byte("x")), "bob": turncred.NewSecret([]byte("y")),
	}})
	if err != nil {
		f.Fatal(err)
	}
	core.ctx = f.Context()
	core.socks.udp = null{}
	if core.self, err = newSelfAddrs("", null{}, nil); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		core.txs.terminateAll()
		core.wg.Wait()
	})
	src := netip.MustParseAddrPort("127.0.0.1:5070")
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := sip.NewParser().ParseSIP(data)
		if err != nil {
			return
		}
		if req, ok := m.(*sip.Request); ok {
			// No name is looked up, and the registrar answers without a password.
			req.RemoveHeader("Route")
			if req.To() != nil && req.CallID() != nil && req.CSeq() != nil {
				_, _ = core.bind(req, "sip:alice@ims.test"), core.registered(req, "sip:alice@ims.test", "alice")
			}
			if !strings.HasSuffix(req.Recipient.Host, domain) {
				return
			}
		}
		m.SetTransport(transportUDP)
		core.dispatch(m, src, udpPeer{null{}, src})
	})
}
