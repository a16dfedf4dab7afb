package proxy

import (
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// TestOwnRequestsFailOver: what the edge asks in its own name goes to the next hop as a WIC's
// request does (RFC 3263 §4.3).
func TestOwnRequestsFailOver(t *testing.T) {
	for _, tt := range []struct {
		clause, transport string
		fail              func(*testCore)
	}{
		{"no answer", "udp", func(c *testCore) { c.set(silence) }},
		{"no connection", "tcp", (*testCore).kill},
		{"503", "udp", func(c *testCore) { c.set(unavailableHere) }},
		{"the connection ends under the request", "tcp", func(c *testCore) {
			c.set(func(*sip.Request, string) *sip.Response { go c.kill(); return nil })
		}},
	} {
		t.Run(tt.clause, func(t *testing.T) {
			r, a, b := twoCores(t, tt.transport, nil)
			tt.fail(a)
			req := sip.NewRequest(sip.BYE, sip.Uri{Scheme: "sip", User: "bob", Host: "ims.test"})
			for name, value := range map[string]string{
				"From": "<sip:alice@ims.test>;tag=1", "To": "<sip:bob@ims.test>;tag=2", "Call-ID": "own", "CSeq": "2 BYE", "Max-Forwards": "70",
			} {
				setRows(req, name, value)
			}
			req.SetBody(nil)
			res, err := r.proxy.ask(t.Context(), req, r.proxy.core.hops, 0)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%v, %v, want 200", res, err)
			}
			if bye := b.request(sip.BYE); len(bye.GetHeaders("Via")) != 1 {
				t.Errorf("Via rows at the second hop: %v, want one", bye.GetHeaders("Via"))
			}
		})
	}
	t.Run("all are silent", func(t *testing.T) {
		r, a, b := twoCores(t, "udp", func(c *Config) { c.Core.Failover = 20 * time.Millisecond })
		a.kill()
		b.kill()
		r.proxy.core.hops.lists[0].found[0].aside(time.Hour, hopSilent, nil)
		r.proxy.core.hops.lists[1].found[0].aside(time.Hour, hopSilent, nil)
		req := sip.NewRequest(sip.OPTIONS, sip.Uri{Scheme: "sip", Host: "ims.test"})
		if _, err := r.proxy.ask(t.Context(), req, r.proxy.core.hops, 0); err == nil {
			t.Error("no error where every hop is down")
		}
	})
}
