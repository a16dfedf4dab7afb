package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
)

func TestUpgradeRefusals(t *testing.T) {
	_, addr := startStub(t)
	r := newRig(t, addr, nil)
	for _, tt := range []struct {
		name, origin, sub string
		want              int
		says, reason      string
	}{
		{"wrong subprotocol", testOrigin, "xmpp", 400, "Sec-WebSocket-Protocol: sip", refusedSubprotocol},
		{"no subprotocol", testOrigin, "", 400, "Sec-WebSocket-Protocol: sip", refusedSubprotocol},
		{"bad Origin", "https://evil.example", "sip", 403, testOrigin, refusedOrigin},
		{"Origin with a prefix of ours", testOrigin + ".evil", "sip", 403, testOrigin, refusedOrigin},
		{"no Origin", "", "sip", 403, "Origin", refusedNoOrigin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, h := dialer(), http.Header{}
			if d.Subprotocols = nil; tt.sub != "" {
				d.Subprotocols = []string{tt.sub}
			}
			if tt.origin != "" {
				h.Set("Origin", tt.origin)
			}
			before := r.metric("epcscf_upgrades_refused_total", "reason="+tt.reason)
			_, res, err := d.Dial(r.url, h)
			if err == nil || res == nil {
				t.Fatalf("dial: %v, want a refusal", err)
			}
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.want || !strings.Contains(string(body), tt.says) {
				t.Errorf("got %d %q, want %d that says %q", res.StatusCode, body, tt.want, tt.says)
			}
			if got := r.metric("epcscf_upgrades_refused_total", "reason="+tt.reason); got != before+1 {
				t.Errorf("refused{%s} = %v, want %v", tt.reason, got, before+1)
			}
		})
	}
	t.Run("not TLS", func(t *testing.T) {
		plain := httptest.NewServer(r.proxy)
		defer plain.Close()
		_, res, err := dialer().Dial("ws"+strings.TrimPrefix(plain.URL, "http"), http.Header{"Origin": {testOrigin}})
		if err == nil || res.StatusCode != 403 {
			t.Errorf("ws:// got %v, want 403", err)
		}
	})
	t.Run("not a WebSocket", func(t *testing.T) {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "https://edge/", nil)
		if r.proxy.ServeHTTP(rec, req); rec.Code != 400 {
			t.Errorf("GET got %d, want 400", rec.Code)
		}
	})
}

func TestNativeClientWithoutOrigin(t *testing.T) {
	_, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.AllowNoOrigin = true })
	ws, _, err := dialer().Dial(r.url, nil)
	if err != nil {
		t.Fatalf("dial without Origin: %v", err)
	}
	defer func() { _ = ws.Close() }()
	if ws.Subprotocol() != "sip" {
		t.Errorf("subprotocol %q, want sip", ws.Subprotocol())
	}
}

func TestFlowLimit(t *testing.T) {
	_, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Limits.Flows = 1 })
	r.dial("alice")
	_, res, err := dialer().Dial(r.url, http.Header{"Origin": {testOrigin}})
	if err == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("second flow: %v, want 503 with Retry-After", err)
	}
}

// closeCode waits for the close frame.
func (w *wic) closeCode() int {
	w.t.Helper()
	select {
	case end := <-w.closed:
		var ce *websocket.CloseError
		if errors.As(end.err, &ce) {
			return ce.Code
		}
		w.t.Fatalf("connection ended without a close frame: %v", end.err)
	case <-time.After(patience):
		w.t.Fatalf("connection not closed in %v", patience)
	}
	return 0
}

func TestFrames(t *testing.T) {
	r, core, w, _ := registered(t, nil)
	drain := func() {
		for len(w.frames) > 0 {
			<-w.frames
		}
	}
	t.Run("keep-alive", func(t *testing.T) {
		drain()
		w.send("\r\n\r\n")
		if got := <-w.frames; got != -2 {
			t.Errorf("CRLFCRLF got frame %d, want one CRLF", got)
		}
	})
	t.Run("binary", func(t *testing.T) {
		drain()
		msg := w.request("MESSAGE", "sip:bob@ims.test", "Content-Type: text/plain", "\nb\xc3\xa4\xff")
		if err := w.ws.WriteMessage(websocket.BinaryMessage, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		req := core.request(sip.MESSAGE)
		if string(req.Body()) != "b\xc3\xa4\xff" {
			t.Errorf("body %q, want it octet by octet", req.Body())
		}
		res := newReply(req).response(200, "OK", sip.NewHeader("Subject", "not UTF-8: \xff"))
		core.send(r.edge, encode(res))
		w.response(sip.MESSAGE)
		if got := <-w.frames; got != websocket.BinaryMessage {
			t.Errorf("reply with an octet that is not UTF-8 came in frame %d, want binary", got)
		}
	})
	t.Run("bad UTF-8 in text", func(t *testing.T) {
		w := r.dial("bob")
		w.send("MESSAGE sip:x@y SIP/2.0\r\nSubject: \xff\r\n\r\n")
		if got := w.closeCode(); got != websocket.CloseInvalidFramePayloadData {
			t.Errorf("close %d, want 1007", got)
		}
	})
}

func TestBadMessages(t *testing.T) {
	_, addr := startStub(t)
	r := newRig(t, addr, nil)
	for _, tt := range []struct {
		name, msg    string
		status, code int
		reason       string
	}{
		{"oversize", "MESSAGE sip:x@y SIP/2.0\r\nSubject: " + strings.Repeat("x", 65<<10), 0, websocket.CloseMessageTooBig, closedOversize},
		{"no SIP", "hello\r\n\r\n", 0, websocket.CloseProtocolError, closedMalformed},
		{"two lengths", lines("MESSAGE sip:x@y SIP/2.0", "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK1", "CSeq: 1 MESSAGE",
			"Content-Length: 0", "Content-Length: 5"), 400, websocket.CloseProtocolError, closedMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := r.dial("alice")
			w.send(tt.msg)
			if tt.status != 0 {
				w.status(tt.status)
			}
			if got := w.closeCode(); got != tt.code {
				t.Errorf("close %d, want %d", got, tt.code)
			}
			eventually(t, "the reason counted", func() bool { return r.metric("epcscf_flows_closed_total", "reason="+tt.reason) >= 1 })
		})
	}
	w := r.dial("alice")
	for _, tt := range []struct {
		name, msg string
		want      int
	}{
		{"bare LF", w.request("MESSAGE", "sip:x@y", "Subject: a\nP-Asserted-Identity: <sip:evil@x>"), 400},
		{"NUL in a name", w.request("MESSAGE", "sip:x@y", "P-Asserted-Identity\x00: <sip:evil@x>"), 400},
		{"wrong version", strings.Replace(w.request("MESSAGE", "sip:x@y"), "SIP/2.0\r\n", "SIP/7.0\r\n", 1), 505},
		{"wrong length", w.request("MESSAGE", "sip:x@y", "Content-Length: 7"), 400},
	} {
		w.send(tt.msg)
		if res := w.response(sip.MESSAGE); res.StatusCode != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, res.StatusCode, tt.want)
		}
	}
}

func TestNoRegisterInTime(t *testing.T) {
	_, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Limits.Register = 20 * time.Millisecond })
	if got := r.dial("alice").closeCode(); got != websocket.ClosePolicyViolation {
		t.Errorf("close %d, want 1008", got)
	}
}

func TestPingKeepsFlow(t *testing.T) {
	r, _, w, _ := registered(t, func(c *Config) { c.Limits.Ping = 200 * time.Millisecond })
	for range 6 { // twice the idle limit, which a busy machine must not pass by itself
		select {
		case <-w.pings:
		case <-time.After(patience):
			t.Fatal("no ping")
		}
	}
	if got := r.metric("epcscf_flows"); got != 1 {
		t.Errorf("flows = %v, want the pinged one", got)
	}
}

func TestShutdown(t *testing.T) {
	r, _, w, _ := registered(t, nil)
	if flows := r.proxy.Flows(); len(flows) != 1 || len(flows[0].Registrations) != 1 || flows[0].Registrations[0].IMPU != "sip:alice@ims.test" {
		t.Errorf("Flows = %+v, want alice's", flows)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.proxy.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if got := w.closeCode(); got != websocket.CloseGoingAway {
		t.Errorf("close %d, want 1001", got)
	}
	_, res, err := dialer().Dial(r.url, http.Header{"Origin": {testOrigin}})
	if err == nil || res.StatusCode != 503 {
		t.Errorf("dial after Shutdown: %v, want 503", err)
	}
}

// TestSlowReader: a WIC that does not read is cut off, not waited for.
func TestSlowReader(t *testing.T) {
	core, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { c.Limits.Queue = 4 })
	ws, _, err := dialer().Dial(r.url, http.Header{"Origin": {testOrigin}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	w := &wic{t: t, user: "alice", ws: ws, host: "a.invalid", callID: "1", fromTag: "1"}
	w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
	path := elements(core.accept(r.edge), "Path")[0]
	body := strings.Repeat("x", 60_000)
	eventually(t, "the flow cut off", func() bool {
		msg := string(core.ask("MESSAGE", w.contact(), "Route: "+path, "Content-Type: text/plain"))
		core.send(r.edge, []byte(strings.Replace(msg, "Content-Length: 0", "Content-Length: 60000", 1)+body))
		return r.metric("epcscf_flows_closed_total", "reason="+closedSlow) == 1
	})
}
