package proxy

import (
	"bytes"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/turncred"
)

// TestNodesBehindOneName: two nodes share a name and the key of their flow tokens. What
// leads to the one's flow and comes to the other gets 430, so that the core tries another
// flow of the device (RFC 5626 §5.3.1); the node that holds it delivers. A stranger's token
// is forged for both.
func TestNodesBehindOneName(t *testing.T) {
	key := turncred.NewSecret(bytes.Repeat([]byte{7}, turncred.MinSecretLen))
	shared := func(c *Config) { c.FlowKey = key }
	named := func(c *Config) { c.FlowKey, c.CoreHost = key, "edge.ims.test" }
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"each by its own address", shared},
		{"both by the name", named},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			a, b := newRig(t, addr, tt.change), newRig(t, addr, tt.change)
			w := a.dial("alice")
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
			path := elements(core.accept(a.edge), "Path")[0]
			w.response(sip.REGISTER)

			core.send(b.edge, core.ask("MESSAGE", w.contact(), "Route: "+path))
			core.response(430)
			core.send(a.edge, core.ask("MESSAGE", w.contact(), "Route: "+path))
			w.respond(w.incoming(sip.MESSAGE), 200, "OK")
			core.response(200)

			// Within a dialog the token stands in the second of our two Record-Route entries.
			core.send(a.edge, core.ask("INVITE", w.contact(), "Route: "+path))
			inv := w.incoming(sip.INVITE)
			recorded := elements(inv, "Record-Route")
			core.send(b.edge, core.ask("INFO", w.contact(), "Route: "+recorded[1]+", "+recorded[0]))
			core.response(430)
			w.respond(inv, 486, "Busy Here")
			core.response(486)

			stranger := newTokenSealer(turncred.Secret{}).seal(1)
			core.send(b.edge, core.ask("MESSAGE", w.contact(), "Route: <sip:"+string(stranger)+"@"+b.edge.String()+";lr>"))
			core.response(403)
		})
	}
}
