package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"epcscf/sipext"
	"epcscf/turncred"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a server that says what a test wants it to.
type edge struct {
	t   *testing.T
	url string
	cfg Config
}

// newEdge serves each request with answer; a nil response is none.
func newEdge(t *testing.T, answer func(n int, req *sip.Request, ws *websocket.Conn) *sip.Response) *edge {
	t.Helper()
	up := websocket.Upgrader{Subprotocols: []string{"sip"}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = ws.Close() }()
		for n := 1; ; n++ {
			_, raw, err := ws.ReadMessage()
			if err != nil {
				return
			}
			m, err := sip.ParseMessage(raw)
			if err != nil {
				t.Errorf("the client sent %q: %v", raw, err)
				return
			}
			req, ok := m.(*sip.Request)
			if !ok {
				n--
				continue
			}
			if res := answer(n, req, ws); res != nil {
				_ = ws.WriteMessage(websocket.TextMessage, []byte(res.String()))
			}
		}
	}))
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	e := &edge{t: t, url: "wss" + strings.TrimPrefix(srv.URL, "https")}
	e.cfg = Config{URL: e.url, Domain: "ims.test", User: "alice", Password: turncred.NewSecret([]byte("secret")), Roots: roots, Agent: "test"}
	return e
}

func (e *edge) dial() *Client {
	e.t.Helper()
	c, err := Dial(e.t.Context(), e.cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// respond makes a response with rows as "Name: value".
func respond(req *sip.Request, code int, reason string, rows ...string) *sip.Response {
	res := sip.NewResponseFromRequest(req, code, reason, nil)
	for _, r := range rows {
		name, value, _ := strings.Cut(r, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	return res
}

const credential = "kid1-0123456789abcdefghijkl:4000000000:c2VjcmV0"

func bound(req *sip.Request) string { return "Contact: " + req.Contact().Value() }

func TestRegisterRequest(t *testing.T) {
	var got []*sip.Request
	e := newEdge(t, func(n int, req *sip.Request, _ *websocket.Conn) *sip.Response {
		got = append(got, req)
		switch n {
		case 1:
			return respond(req, 401, "Unauthorized",
				`WWW-Authenticate: Digest realm="ims.test", nonce="a", algorithm=AKAv1-MD5, qop="auth"`,
				`WWW-Authenticate: Digest realm="ims.test", nonce="b", algorithm=md5, qop="auth"`)
		case 2:
			return respond(req, 401, "Unauthorized", `WWW-Authenticate: Digest realm="ims.test", nonce="c", algorithm=SHA-256, qop="auth", stale=true`)
		case 3:
			return respond(req, 423, "Interval Too Brief", "Min-Expires: 900")
		}
		return respond(req, 200, "OK", bound(req), "P-Associated-URI: <sip:alice@ims.test>",
			"3GPP-EXT-TURN-CRED: "+credential+`;uris="turn:h"`)
	})
	c := e.dial()
	reg, cred, err := c.Register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if reg.Expires != 900*time.Second || reg.AOR != "sip:alice@ims.test" || len(reg.Associated) != 1 {
		t.Errorf("registration = %+v", reg)
	}
	if cred.Username != "kid1-0123456789abcdefghijkl:4000000000" || cred.Tpwd != "c2VjcmV0" {
		t.Errorf("credential = %v, username %q", cred, cred.Username)
	}
	for i, want := range []string{"", `nonce="b"`, `nonce="c"`, `nonce="c"`} {
		auth := ""
		if h := got[i].GetHeader("Authorization"); h != nil {
			auth = h.Value()
		}
		if want == "" && auth != "" || !strings.Contains(auth, want) {
			t.Errorf("REGISTER %d: Authorization = %q, want %s", i+1, auth, want)
		}
	}
	if auth := got[3].GetHeader("Authorization").Value(); !strings.Contains(auth, "nc=00000002") {
		t.Errorf("the second use of a nonce: %s", auth)
	}
	first := got[0].String()
	for _, want := range []string{
		"REGISTER sip:ims.test SIP/2.0\r\n", "Via: SIP/2.0/WSS " + c.host, ".invalid;transport=ws>;+sip.instance=\"<urn:uuid:",
		";reg-id=1;expires=600", "Supported: path, outbound\r\n", "3gpp-ext-turn-cred: request\r\n", "To: <sip:alice@ims.test>\r\n", "User-Agent: test\r\n",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("the first REGISTER lacks %q:\n%s", want, first)
		}
	}
	if !strings.Contains(got[3].String(), "expires=900") {
		t.Errorf("after a 423 the wish is not longer:\n%s", got[3])
	}
	if err := c.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := got[len(got)-1].String()
	if !strings.Contains(last, "expires=0") || strings.Contains(strings.ToLower(last), "3gpp-ext-turn-cred") {
		t.Errorf("the de-registration:\n%s", last)
	}
}

func TestOptions(t *testing.T) {
	e := newEdge(t, func(_ int, req *sip.Request, _ *websocket.Conn) *sip.Response {
		if req.Method != sip.OPTIONS || req.To().Params.Has("tag") || req.Recipient.String() != "sip:ims.test" {
			t.Errorf("the OPTIONS:\n%s", req)
		}
		return respond(req, 200, "OK", sipext.TurnCredHeader+": "+credential+`;username="4000000000:kid1-0123456789abcdefghijkl"`)
	})
	cred, err := e.dial().Options(t.Context())
	if err != nil || cred.Username != "4000000000:kid1-0123456789abcdefghijkl" {
		t.Errorf("Options() = %v (%s), %v", cred, cred.Username, err)
	}
}

func TestAnswers(t *testing.T) {
	digest401 := `WWW-Authenticate: Digest realm="ims.test", nonce="n", algorithm=MD5, qop="auth"`
	for _, tt := range []struct {
		name   string
		answer func(req *sip.Request) *sip.Response
		want   string
		is     error
	}{
		{"no header", func(r *sip.Request) *sip.Response { return respond(r, 200, "OK", bound(r)) }, "no TURN credentials", ErrNoCredential},
		{"two headers", func(r *sip.Request) *sip.Response {
			return respond(r, 200, "OK", bound(r), sipext.TurnCredHeader+": "+credential, sipext.TurnCredHeader+": "+credential)
		}, "2 rows", sipext.ErrTurnCred},
		{"request", func(r *sip.Request) *sip.Response {
			return respond(r, 200, "OK", bound(r), sipext.TurnCredHeader+": request")
		}, "request", sipext.ErrTurnCred},
		{"unavailable", func(r *sip.Request) *sip.Response {
			return respond(r, 200, "OK", bound(r), sipext.TurnCredHeader+": unavailable;reason=limit;retry-after=7")
		}, "unavailable, reason limit, ask again in 7s", nil},
		{"no contact", func(r *sip.Request) *sip.Response { return respond(r, 200, "OK") }, "does not list our Contact", nil},
		{"wrong password", func(r *sip.Request) *sip.Response { return respond(r, 401, "Unauthorized", digest401) }, "wrong password", nil},
		{"AKA", func(r *sip.Request) *sip.Response {
			return respond(r, 401, "Unauthorized", `WWW-Authenticate: Digest realm="r", nonce="n", algorithm=AKAv1-MD5`)
		}, "knows no AKA", nil},
		{"no core", func(r *sip.Request) *sip.Response { return respond(r, 504, "Server Time-out") }, "does not reach its core", nil},
		{"terminal escapes", func(r *sip.Request) *sip.Response { return respond(r, 486, "\x1b[2JBusy") }, "486 ?[2JBusy", nil},
		{"423 without end", func(r *sip.Request) *sip.Response { return respond(r, 423, "Too Brief", "Min-Expires: 600") }, "423", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t, func(_ int, req *sip.Request, _ *websocket.Conn) *sip.Response { return tt.answer(req) })
			_, _, err := e.dial().Register(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Register() = %v, want an error with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestClosedByServer(t *testing.T) {
	e := newEdge(t, func(_ int, _ *sip.Request, ws *websocket.Conn) *sip.Response {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "no REGISTER in time"), time.Now().Add(time.Second))
		return nil
	})
	c := e.dial()
	if _, _, err := c.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "1008 no REGISTER in time") {
		t.Errorf("Register() = %v, want the server's reason", err)
	}
	<-c.Done()
	if c.Err() == nil {
		t.Error("Err() = nil after Done")
	}
}

func TestSilentServer(t *testing.T) {
	e := newEdge(t, func(int, *sip.Request, *websocket.Conn) *sip.Response { return nil })
	c := e.dial()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := c.Register(ctx); err == nil || !strings.Contains(err.Error(), "no answer") || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("Register() = %v, want that there is no answer", err)
	}
}

// A request of the core is answered, so that it does not wait, and disturbs nothing.
func TestRequestsOfOthers(t *testing.T) {
	e := newEdge(t, func(_ int, req *sip.Request, ws *websocket.Conn) *sip.Response {
		for _, m := range []string{"OPTIONS", "INVITE", "ACK"} {
			_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil,
				"%s sip:alice@x.invalid SIP/2.0\r\nVia: SIP/2.0/WSS e;branch=z9hG4bK%s\r\nFrom: <sip:e>;tag=1\r\nTo: <sip:alice@ims.test>\r\nCall-ID: 1\r\nCSeq: 1 %s\r\n\r\n", m, m, m))
		}
		for _, junk := range []string{"\r\n", "junk", "SIP/2.0 200 OK\r\n\r\n", "OPTIONS sip:x SIP/2.0\r\n\r\n"} {
			_ = ws.WriteMessage(websocket.TextMessage, []byte(junk))
		}
		_ = ws.WriteMessage(websocket.TextMessage, []byte(respond(req, 100, "Trying").String()))
		for _, want := range []string{"SIP/2.0 200 OK", "SIP/2.0 405 Method Not Allowed"} {
			_, raw, err := ws.ReadMessage()
			if err != nil || !strings.HasPrefix(string(raw), want) {
				t.Errorf("got %q, %v; want %s", raw, err, want)
			}
		}
		return respond(req, 200, "OK", bound(req), sipext.TurnCredHeader+": "+credential)
	})
	if _, _, err := e.dial().Register(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDial(t *testing.T) {
	e := newEdge(t, nil)
	t.Run("another name", func(t *testing.T) {
		cfg := e.cfg
		cfg.URL = strings.Replace(e.url, "127.0.0.1", "localhost", 1)
		if _, err := Dial(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "does not speak for localhost") {
			t.Errorf("Dial(%s) = %v", cfg.URL, err)
		}
	})
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"no subprotocol", func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			if ws, err := up.Upgrade(w, r, nil); err == nil {
				_ = ws.Close()
			}
		}, "subprotocol"},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not you", http.StatusForbidden) }, "not you (--origin"},
		{"a page", func(http.ResponseWriter, *http.Request) {}, "no WebSocket at this path"},
		{"full", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "try later", http.StatusServiceUnavailable)
		}, "try later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewTLSServer(tt.handler)
			t.Cleanup(srv.Close)
			cfg := e.cfg
			cfg.URL = "wss" + strings.TrimPrefix(srv.URL, "https")
			if _, err := Dial(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial() = %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := Dial(t.Context(), Config{URL: "ws://127.0.0.1/"}); err == nil || !strings.Contains(err.Error(), "want wss://") {
		t.Errorf("Dial(ws) = %v", err)
	}
}

func TestUUID(t *testing.T) {
	u := newUUID()
	if len(u) != 36 || u[14] != '4' || !strings.ContainsRune("89ab", rune(u[19])) {
		t.Errorf("newUUID() = %s", u)
	}
}
