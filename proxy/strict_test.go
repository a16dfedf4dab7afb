package proxy

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/sipext"
)

// torture returns the 49 messages of RFC 4475 that sipgo's module holds, by name.
func torture(t testing.TB) map[string]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatalf("where is sipgo? %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "sip", "testdata", "torture", "*", "*.dat"))
	all := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".dat")] = string(b)
	}
	delete(all, "test")
	if len(all) != 49 {
		t.Fatalf("%d torture messages, want 49", len(all))
	}
	return all
}

// refusedTorture are the requests that the edge answers itself, and with what; dropped
// ones have 0. Everything else is forwarded.
var refusedTorture = map[string]int{
	"intmeth": 400, "dblreq": 400, "badinv01": 400, "clerr": 400, "ncl": 400, "scalar02": 400,
	"quotbal": 400, "ltgtruri": 400, "lwsruri": 400, "lwsstart": 400, "trws": 400, "escruri": 400,
	"regbadct": 400, "badaspec": 400, "baddn": 400, "badvers": 505, "mismatch01": 400, "mismatch02": 400,
	"badbranch": 400, "insuf": 400, "unkscm": 416, "novelsc": 416, "bext01": 420, "multi01": 400,
	"mcl01": 400, "zeromf": 483, "inv2543": 400,
	"scalarlg": 0, "bigcode": 0, "bcast": 0, "unreason": 0, "noreason": 0, // responses to nothing
}

// TestTorture sends each message over a registered flow: the refused ones are answered,
// and never reach the core.
func TestTorture(t *testing.T) {
	r, core, w, _ := registered(t, nil)
	for name, msg := range torture(t) {
		want, refused := refusedTorture[name]
		raw, _ := sipext.Scan([]byte(msg), sipext.Limits{})
		callID, _ := raw.Get(sipext.CallID)
		r.proxy.seedDialog(raw)
		ours := func(m sip.Message) bool { return callID == "" || m.CallID() != nil && m.CallID().Value() == callID }
		if err := w.ws.WriteMessage(websocket.BinaryMessage, []byte(msg)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !refused {
			req := core.await(t, name, callID)
			if mf := req.MaxForwards(); mf == nil || strings.Contains(req.Recipient.String(), "?") {
				t.Errorf("%s: forwarded as\n%s", name, req)
			}
			if req.Method != sip.ACK {
				core.respond(r.edge, req, 404)
				want = 404
			}
		}
		if _, via := raw.Get(sipext.Via); want != 0 && via {
			next(w, strconv.Itoa(want)+" to "+name, func(res *sip.Response) bool { return res.StatusCode == want && ours(res) })
		}
		if w.gone() { // closed for its message: a new flow for the next
			w = r.dial("alice")
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
			core.accept(r.edge)
			w.response(sip.REGISTER)
		}
	}
	for len(core.in) > 0 {
		if req, ok := (<-core.in).(*sip.Request); ok && req.Method != sip.ACK {
			t.Errorf("more reached the core:\n%s", req)
		}
	}
}

// seedDialog makes the dialog that a message claims to be of, for the newest flow: several
// of the messages are requests within one.
func (p *Proxy) seedDialog(raw *sipext.Message) {
	m, err := sip.ParseMessage(raw.Bytes())
	req, ok := m.(*sip.Request)
	if err != nil || !ok || req.To() == nil || req.From() == nil || req.CallID() == nil || toTag(req) == "" {
		return
	}
	flows := p.flows.all()
	f := slices.MaxFunc(flows, func(a, b *Flow) int { return cmp.Compare(a.id, b.id) })
	p.dialogs.mu.Lock()
	defer p.dialogs.mu.Unlock()
	p.dialogs.addLocked(&dialog{id: idFromWIC(req), flow: f, expires: time.Now().Add(time.Hour)})
}

// await returns the next request at the core, which must have that Call-ID.
func (s *stub) await(t *testing.T, name, callID string) *sip.Request {
	t.Helper()
	for {
		req, ok := s.next().(*sip.Request)
		if !ok || req.Method == sip.ACK && len(sipext.Rows(req, "Via")) == 1 {
			continue // the edge's own ACK of a 404
		}
		if req.CallID().Value() != callID {
			t.Errorf("%s: the core got another message:\n%s", name, req)
			continue
		}
		return req
	}
}

// gone reports whether the edge has closed, or is closing, the connection.
func (w *wic) gone() bool {
	select {
	case <-w.closed:
		return true
	default:
	}
	// A request that is answered at once shows that the flow is there.
	if w.ws.WriteMessage(websocket.TextMessage, []byte("\r\n\r\n")) != nil {
		return true
	}
	for {
		select {
		case kind := <-w.frames:
			if kind == -2 {
				return false
			}
		case <-w.closed:
			return true
		}
	}
}

// fuzzEdge is an edge with one registered flow and no sockets.
func fuzzEdge(t testing.TB) (*Proxy, *Flow) {
	t.Helper()
	p, err := New(Config{
		Domain: testDomain, CoreAddr: mustAddr("127.0.0.1:5060"), NextHops: []NextHop{{"udp", "127.0.0.1:5070"}}, AllowNoOrigin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &Flow{p: p}
	p.flows.add(f, p.tokens.seal)
	f.regs = []*Registration{{p: p, flow: f, aor: "sip:alice@ims.test", serviceRoute: []string{"<sip:orig@scscf.ims.test;lr>"}}}
	p.dialogs.addLocked(&dialog{id: dialogID{"1", "1", "2"}, flow: f, route: []string{"<sip:scscf.ims.test;lr>"}, expires: time.Now().Add(time.Hour)})
	return p, f
}

// sentFor returns what goes to the core for a message of a WIC; nil: nothing.
func (p *Proxy) sentFor(f *Flow, raw []byte) []byte {
	m, err := sipext.Scan(raw, sipext.Limits{})
	if err != nil {
		return nil
	}
	if m.Method == "REGISTER" {
		id, ok := registeredParty(m)
		r := p.newRegistering(m, f, txKey{})
		r.aor = id
		if !ok || p.prepareRegister(r) != nil {
			return nil
		}
		return r.append(nil, &attempt{hop: &hop{hopAddr: hopAddr{transport: "udp"}}, to: peer{transport: "UDP"}, branch: newBranch()})
	}
	full, err := p.fullParse(m)
	if err != nil {
		return nil
	}
	req, ok := full.(*sip.Request)
	if !ok {
		fromUE(full.(*sip.Response))
		return nil
	}
	if _, r := p.checkProxied(m, peer{flow: f}); r != nil {
		return nil
	}
	on, r := p.prepareFromWIC(f, req)
	if on.watch != nil {
		on.watch.unanswered()
	}
	if r != nil {
		return nil
	}
	p.pushVia(req, peer{transport: "UDP"}, "")
	return encode(req)
}

// parse reads a message as the edge does.
func parse(p *Proxy, raw []byte, l sipext.Limits) (sip.Message, *sipext.Message, error) {
	scanned, err := sipext.Scan(raw, l)
	if err != nil {
		return nil, scanned, err
	}
	m, err := p.fullParse(scanned)
	return m, scanned, err
}

// FuzzInbound: whatever a WIC sends, what goes to the core re-parses to the same header
// list, and no header that only the trust domain may say survives but ours.
func FuzzInbound(f *testing.F) {
	for _, msg := range torture(f) {
		f.Add([]byte(msg))
	}
	f.Add([]byte(lines("INVITE sip:b@c SIP/2.0", "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1", "From: <sip:a@c>;tag=1", "To: <sip:b@c>;tag=2",
		"Call-ID: 1", "CSeq: 1 INVITE", "Route: <sip:x@127.0.0.1:5060;transport=ws;lr>,<sip:127.0.0.1;lr>", "P-Asserted-Identity: <sip:x@y>",
		"k: 3gpp-ext-turn-cred,x", `Authorization: Digest username="a", integrity-protected=yes`)))
	f.Add([]byte(lines("REGISTER sip:c SIP/2.0", "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1", "From: <sip:a@c>;tag=1", "To: <sip:a@c>",
		"Call-ID: 1", "CSeq: 1 REGISTER", "m: <sip:a@b>;expires=7", "Path: <sip:x@y;lr>", "Supported: 3gpp-ext-turn-cred, sec-agree", "Require: path",
		"P-Access-Network-Info: x;np,y", `Authorization: Digest username="a", integrity-protected=yes`)))
	p, flow := fuzzEdge(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		out := p.sentFor(flow, raw)
		if out == nil {
			return
		}
		again, scanned, err := parse(p, out, sipext.Limits{Headers: 256, Line: 32 << 10})
		if err != nil {
			t.Fatalf("what was sent does not parse: %v\n%q", err, out)
		}
		// Scan moves Content-Length to the end.
		length := "Content-Length: " + strconv.Itoa(len(scanned.Body)) + "\r\n"
		got, want := strings.Replace(string(encode(again)), length, "", 1), strings.Replace(string(out), length, "", 1)
		if got != want {
			t.Fatalf("another header list:\n%q\n%q", want, got)
		}
		count := 0
		for _, fld := range scanned.Fields {
			l := rules[fld.ID]
			switch {
			case fld.ID == sipext.PAssertedIdentity && fld.Value == "<sip:alice@ims.test>", fld.ID == sipext.PChargingVector,
				scanned.Method == "REGISTER" && (fld.ID == sipext.Path || fld.ID == sipext.PVisitedNetworkID):
				count++
			case l != nil && l.at&asked != 0 && l.left == nil:
				t.Fatalf("%s survives in\n%q", fld.Name, out)
			}
		}
		if count > 3 {
			t.Fatalf("%d rows of ours in\n%q", count, out)
		}
	})
}
