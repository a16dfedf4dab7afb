package proxy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// TestIPv6Torture: the twelve messages of RFC 5118, by section.
func TestIPv6Torture(t *testing.T) {
	for _, tt := range []struct {
		section, name string
		want          int      // 0: forwarded
		rows          []string // of what the core gets: the start of a row's value, or of the body
	}{
		{"4.1", "ipv6-good", 0, []string{"REGISTER sip:[2001:db8::10] SIP/2.0", "Via: SIP/2.0/WSS [2001:db8::9:1];", "Contact: <sip:alice@[2001:db8::1]>"}},
		{"4.2", "ipv6-bad", 400, nil},
		{"4.3", "port-ambiguous", 0, []string{"REGISTER sip:[2001:db8::10:5070] SIP/2.0"}},
		{"4.4", "port-unambiguous", 0, []string{"REGISTER sip:[2001:db8::10]:5070 SIP/2.0"}},
		{"4.5", "via-received-param-with-delim", 0, []string{"received=[2001:db8::9:255]"}},
		{"4.5", "via-received-param-no-delim", 0, []string{"received=2001:db8::9:255"}},
		{"4.6", "ipv6-in-sdp", 0, []string{"c=IN IP6 2001:db8::20"}},
		{"4.7", "mult-ip-in-header", 0, []string{"Via: SIP/2.0/UDP 192.0.2.1:5060;", "received=192.0.2.200", "Via: SIP/2.0/UDP [2001:db8::1];", "received=2001:db8::ff"}},
		{"4.8", "mult-ip-in-sdp", 0, []string{"c=IN IP6 2001:db8::20", "c=IN IP4 192.0.2.20"}},
		{"4.9", "ipv4-mapped-ipv6", 0, []string{"INVITE sip:bob@[::ffff:192.0.2.10] SIP/2.0", "Via: SIP/2.0/WSS [::ffff:192.0.2.2]:5060;", "Contact: <sip:alice@[::ffff:192.0.2.2]>"}},
		// "An implementation must tolerate both": it goes as it came, since nothing here looks it up.
		{"4.10", "ipv6-bug-abnf-3-colons", 0, []string{"OPTIONS sip:bob@[2001:db8:::192.0.2.1] SIP/2.0"}},
		{"4.10", "ipv6-correct-abnf-2-colons", 0, []string{"OPTIONS sip:bob@[2001:db8::192.0.2.1] SIP/2.0"}},
	} {
		t.Run(tt.section+"/"+tt.name, func(t *testing.T) {
			r, core, w, _ := registered(t, func(c *Config) { c.Core.Probe = -1 })
			msg, err := os.ReadFile(filepath.Join("testdata", "rfc5118", tt.name+".sip"))
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := sipext.Scan(msg, sipext.Limits{})
			r.proxy.seedDialog(raw)
			if err := w.ws.WriteMessage(websocket.BinaryMessage, msg); err != nil {
				t.Fatal(err)
			}
			if tt.want != 0 {
				next(w, "refusal", func(res *sip.Response) bool { return res.StatusCode == tt.want })
				return
			}
			callID, _ := raw.Get(sipext.CallID)
			req := core.await(t, tt.name, callID)
			bracketMapped(req) // the stub reads with sipgo as well
			m, _, err := parse(r.proxy, msg, sipext.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range tt.rows {
				if !strings.Contains(req.String(), row) || !strings.Contains(string(encode(m)), row) {
					t.Errorf("no %q in\n%s\nor\n%s", row, req, encode(m))
				}
			}
			if !slices.Equal(req.Body(), raw.Body) {
				t.Errorf("body %q, want %q", req.Body(), raw.Body)
			}
			core.respond(r.edge, req, 404)
			next(w, "404", func(res *sip.Response) bool { return res.StatusCode == 404 })
		})
	}
}
