package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gorilla/websocket"

	"epcscf/internal/realpart"
	"epcscf/proxy/minicore"
	"epcscf/sipext"
	"epcscf/turncred"
)

const testWAF = "https://waf.ims.test"

// wafStub is a TokenVerifier that knows a few tokens.
type wafStub struct {
	// wait, where it is set, holds verdicts up until it is closed.
	wait chan struct{}

	mu     sync.Mutex // guards what follows
	tokens map[string]TokenClaims
	errs   map[string]error
	asked  []string
}

// newWAF knows TOKEN-USER for the users of the miniature core, good for a while.
func newWAF(life time.Duration) *wafStub {
	w := &wafStub{tokens: map[string]TokenClaims{}, errs: map[string]error{}}
	for _, u := range []string{"alice", "bob", "carol"} {
		w.tokens["token-"+u] = claimsOf(u, time.Now().Add(life))
	}
	return w
}

func claimsOf(user string, until time.Time) TokenClaims {
	return TokenClaims{
		ID: "jti-" + user, Grant: "grant-" + user, IMPI: turncred.IMPI(user + "@" + testDomain),
		IMPUs: []IMPU{IMPU("sip:" + user + "@" + testDomain), "tel:+15550123"}, WWSF: "https://wwsf.test", WAF: testWAF, Expires: until,
	}
}

func (w *wafStub) Verify(ctx context.Context, token string) (TokenClaims, error) {
	if w.wait != nil {
		select {
		case <-w.wait:
		case <-ctx.Done():
			return TokenClaims{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, token)
	if err := w.errs[token]; err != nil {
		return TokenClaims{}, err
	}
	c, ok := w.tokens[token]
	if !ok {
		return c, fmt.Errorf("%w: unknown", ErrTokenInvalid)
	}
	return c, nil
}

func (w *wafStub) set(token string, c TokenClaims) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[token] = c
}

// atOnce is a wafStub that waits for nobody.
type atOnce struct{ *wafStub }

func (atOnce) Immediate() bool { return true }

func withBearer(v TokenVerifier) func(*Config) {
	return func(c *Config) {
		c.Bearer = &Bearer{Verifier: v, AuthzServer: testWAF, Scope: "webrtc-ims-client-access-to-ims"}
	}
}

// trustingCore is the miniature core, which takes the word of an edge on this host.
func trustingCore(t *testing.T) netip.AddrPort {
	t.Helper()
	return startMinicore(t, func(c *minicore.Config) { c.TrustedEdges = []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
}

// bearer registers once with those rows and returns the final response.
func (w *wic) bearer(expires string, rows ...string) *sip.Response {
	w.t.Helper()
	all := []string{"To: <" + w.aor() + ">", "Supported: path, outbound", "Contact: <" + w.contact() + ">;+sip.instance=\"" + w.instance + "\";reg-id=1"}
	if expires != "" {
		all = append(all, "Expires: "+expires)
	}
	for _, row := range rows { // a Contact of the test's own replaces the usual one
		if strings.HasPrefix(row, "Contact:") {
			all[2] = row
		} else {
			all = append(all, row)
		}
	}
	w.send(w.request("REGISTER", "sip:"+testDomain, all...))
	return w.response(sip.REGISTER)
}

func (w *wic) mustBearer(rows ...string) *sip.Response {
	w.t.Helper()
	res := w.bearer("600", append(rows, "Authorization: Bearer token-"+w.user)...)
	if res.StatusCode != 200 {
		w.t.Fatalf("%s: REGISTER got %d %s, want 200", w.user, res.StatusCode, res.Reason)
	}
	return res
}

// TestRegisterByToken: both spellings, at once and after waiting; what the core gets (Trusted
// Node Authentication), and that the token is not among it, nor in the log.
func TestRegisterByToken(t *testing.T) {
	for _, tt := range []struct{ name, auth string }{
		{"RFC 6750", "Bearer token-alice"},
		{"24.371 A.3.2", `Bearer access_token="token-alice"`},
		{"lower case, tab", "bearer\ttoken-alice "},
		{"with a realm", `Bearer realm="ims.test", access_token="token-alice"`},
	} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, waits %v", tt.name, waits), func(t *testing.T) {
				var log realpart.Output
				waf := newWAF(time.Hour)
				core, addr := startStub(t)
				r := newRig(t, addr, func(c *Config) {
					if withBearer(waf)(c); !waits {
						c.Bearer.Verifier = atOnce{waf}
					}
					c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				w := r.dial("alice")
				w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Expires: 600", "Authorization: "+tt.auth,
					"Proxy-Authorization: Bearer other-secret"))
				req := core.accept(r.edge)
				if res := w.response(sip.REGISTER); res.StatusCode != 200 {
					t.Fatalf("REGISTER got %d %s, want 200", res.StatusCode, res.Reason)
				}
				const want = `Digest username="alice@ims.test", realm="ims.test", nonce="", uri="sip:ims.test", response="", integrity-protected="auth-done"`
				if got := elements(req, "Authorization"); first(req, "Authorization") != want || len(got) != 6 {
					t.Errorf("Authorization = %q, want %q alone", got, want)
				}
				if strings.Contains(req.String(), "token-alice") || strings.Contains(req.String(), "secret") {
					t.Errorf("a token crosses to the core:\n%s", req)
				}
				if strings.Contains(log.String(), "token-alice") || strings.Contains(log.String(), "secret") {
					t.Errorf("a token stands in the log:\n%s", log.String())
				}
				if first(req, "P-Access-Network-Info") != "" { // TS 33.203 P.3: only where there is no Authorization
					t.Errorf("P-Access-Network-Info = %q", first(req, "P-Access-Network-Info"))
				}
				if got := r.proxy.Flows()[0].Registrations; len(got) != 1 || got[0].IMPI != "alice@ims.test" {
					t.Errorf("registrations %+v, want alice's", got)
				}
			})
		}
	}
}

// TestBadTokens: each with its answer; nothing reaches the core.
func TestBadTokens(t *testing.T) {
	waf := newWAF(time.Hour)
	waf.errs["scope"] = fmt.Errorf("%w: too little", ErrTokenScope)
	waf.errs["asleep"] = errors.New("the WAF does not answer")
	waf.set("over", claimsOf("alice", time.Now()))
	waf.set("nobody", TokenClaims{ID: "x", IMPUs: []IMPU{"sip:alice@ims.test"}, Expires: time.Now().Add(time.Hour)})
	challenge := func(problem string) string {
		return `Bearer realm="ims.test", authz_server="https://waf.ims.test", scope="webrtc-ims-client-access-to-ims", error="` + problem + `"`
	}
	const digest = `Authorization: Digest username="alice@ims.test", response="1"`
	for _, tt := range []struct {
		name      string
		rows      []string
		want      int
		challenge string
		result    string
	}{
		{"unknown", []string{"Authorization: Bearer x.y.z"}, 401, challenge("invalid_token"), tokenInvalid},
		{"ends now", []string{"Authorization: Bearer over"}, 401, challenge("invalid_token"), tokenInvalid},
		{"another scope", []string{"Authorization: Bearer scope"}, 401, challenge("invalid_scope"), tokenScope},
		{"nobody knows", []string{"Authorization: Bearer asleep"}, 503, "", tokenUnavailable},
		{"another's", []string{"Authorization: Bearer token-bob"}, 403, "", tokenForeign},
		{"no private identity", []string{"Authorization: Bearer nobody"}, 403, "", tokenForeign},
		{"another From", []string{"Authorization: Bearer token-alice", "From: <sip:bob@ims.test>;tag=1"}, 403, "", tokenForeign},
		{"no token", []string{"Authorization: Bearer"}, 400, "", tokenMalformed},
		{"empty", []string{`Authorization: Bearer access_token=""`}, 400, "", tokenMalformed},
		{"only dots", []string{"Authorization: Bearer " + strings.Repeat(".", 4000)}, 401, challenge("invalid_token"), tokenInvalid},
		{"a list", []string{"Authorization: Bearer token-alice, Bearer token-bob"}, 400, "", tokenMalformed},
		{"a list with Digest", []string{`Authorization: Bearer token-alice, Digest username="bob"`}, 400, "", tokenMalformed},
		{"two rows", []string{"Authorization: Bearer token-alice", "Authorization: Bearer token-bob"}, 400, "", tokenMalformed},
		{"beside Digest", []string{"Authorization: Bearer token-alice", digest}, 400, "", tokenMalformed},
		{"after Digest", []string{digest, "Authorization: Bearer token-alice"}, 400, "", tokenMalformed},
		{"token twice in a row", []string{`Authorization: Bearer access_token="token-alice", access_token="token-bob"`}, 400, "", tokenMalformed},
		{"escaped", []string{`Authorization: Bearer access_token="token\-alice"`}, 200, "", tokenAccepted}, // a quoted-pair is its character
		{"Contact that could be read otherwise", []string{"Authorization: Bearer token-alice", `Contact: <sip:a@b.invalid>;expires=7;expires="99`}, 400, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			r := newRig(t, addr, withBearer(waf))
			w := r.dial("alice")
			if tt.want == 200 {
				go func() { core.accept(r.edge) }()
			}
			res := w.bearer("600", tt.rows...)
			if res.StatusCode != tt.want || first(res, "WWW-Authenticate") != tt.challenge {
				t.Errorf("got %d %s, challenge %q, want %d, %q", res.StatusCode, res.Reason, first(res, "WWW-Authenticate"), tt.want, tt.challenge)
			}
			if tt.want == 503 && first(res, "Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if tt.result != "" && r.metric("epcscf_tokens_total", "result="+tt.result) != 1 {
				t.Errorf("%s not counted", tt.result)
			}
			select {
			case m := <-core.in:
				t.Errorf("the core got\n%s", m)
			default:
			}
		})
	}
}

// TestMegabyteOfDots: what is over the limit of a message or of a header field gets no further.
func TestMegabyteOfDots(t *testing.T) {
	waf := newWAF(time.Hour)
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(waf)(c)
		c.Limits.MessageSize = 2 << 20
	})
	w := r.dial("alice")
	if res := w.bearer("600", "Authorization: Bearer "+strings.Repeat(".", 1<<20)); res.StatusCode != 513 {
		t.Errorf("got %d, want 513 (RFC 3261 §21.5.14)", res.StatusCode)
	}
	waf.mu.Lock()
	defer waf.mu.Unlock()
	if len(waf.asked) != 0 {
		t.Error("the verifier was asked")
	}
}

// TestCloseOnBadToken: TS 33.203 X.3.2.3 closes the WebSocket, which is the operator's choice.
func TestCloseOnBadToken(t *testing.T) {
	waf := newWAF(time.Hour)
	waf.errs["asleep"] = errors.New("the WAF does not answer")
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(waf)(c)
		c.Bearer.CloseOnBad = true
	})
	w := r.dial("alice")
	if res := w.bearer("600", "Authorization: Bearer asleep"); res.StatusCode != 503 {
		t.Fatalf("got %d, want 503", res.StatusCode)
	}
	w.mustBearer() // nobody's fault, so it is still open
	if res := w.bearer("600", "Authorization: Bearer bad"); res.StatusCode != 401 {
		t.Fatalf("got %d, want 401 before the end", res.StatusCode)
	}
	var closed *websocket.CloseError
	if end := w.ended(); !errors.As(end.err, &closed) || closed.Code != websocket.ClosePolicyViolation {
		t.Errorf("closed with %v, want %d", end.err, websocket.ClosePolicyViolation)
	}
	eventually(t, "the end counted", func() bool { return r.metric("epcscf_flows_closed_total", "reason="+closedToken) == 1 })
}

// TestTokenBoundsExpires: whatever a REGISTER asks for, and wherever, the core is asked for no
// more than the token's rest; and what the core grants beyond it does not count here.
func TestTokenBoundsExpires(t *testing.T) {
	const rest = 90
	for _, tt := range []struct {
		name, expires, contact string
		wantExpires            string
		wantContact            string // expires of the Contact
	}{
		{"header", "600", "", "90", ""},
		{"less than the rest", "60", "", "60", ""},
		{"nothing said", "", "", "90", ""},
		{"parameter", "60", ";expires=3600", "60", "90"},
		{"parameter, less", "600", ";Expires=30", "90", "30"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clk := newClock()
			waf := newWAF(time.Hour)
			waf.set("token-alice", claimsOf("alice", clk.Now().Add(rest*time.Second)))
			core, addr := startStub(t)
			r := newRig(t, addr, func(c *Config) { withBearer(waf)(c); c.Now = clk.Now })
			w := r.dial("alice")
			rows := []string{"To: <" + w.aor() + ">", "Authorization: Bearer token-alice", "Contact: <" + w.contact() + ">" + tt.contact}
			if tt.expires != "" {
				rows = append(rows, "Expires: "+tt.expires)
			}
			w.send(w.request("REGISTER", "sip:"+testDomain, rows...))
			req := core.request(sip.REGISTER)
			contact := elements(req, "Contact")
			core.respond(r.edge, req, 200, "Contact: <"+w.contact()+">;expires=600")
			if res := w.response(sip.REGISTER); res.StatusCode != 200 {
				t.Fatalf("got %d %s", res.StatusCode, res.Reason)
			}
			want := "<" + w.contact() + ">"
			if tt.wantContact != "" {
				want += ";expires=" + tt.wantContact
			}
			if first(req, "Expires") != tt.wantExpires || len(contact) != 1 || contact[0] != want {
				t.Errorf("the core was asked for Expires %q, Contact %q, want %q, %q", first(req, "Expires"), contact, tt.wantExpires, want)
			}
			if got := r.proxy.Flows()[0].Registrations[0].Expires.Sub(clk.Now()); got > rest*time.Second {
				t.Errorf("registered for %v, want %d s at most", got, rest)
			}
		})
	}
}

// TestCapExpires: what sipext.Scan would not let pass is capped too.
func TestCapExpires(t *testing.T) {
	for in, want := range map[string]string{
		`<sip:a@b>;expires="3600"`:                      "<sip:a@b>;expires=90",
		"<sip:a@b>;expires=10;q=1;EXPIRES=3600":         "<sip:a@b>;q=1;expires=10",
		"<sip:a@b>;expires=soon, sip:c@d":               "<sip:a@b>;expires=90, sip:c@d",
		`"A, B" <sip:a@b>;expires=18446744073709551617`: `"A, B" <sip:a@b>;expires=90`,
		"*": "*",
	} {
		m := &sipext.Message{Fields: []sipext.Field{{ID: sipext.Contact, Name: "Contact", Value: in}, {ID: sipext.Expires, Name: "Expires", Value: "-1"}}}
		if ok := capExpires(m, 90); !ok || m.First(sipext.Contact) != want || m.First(sipext.Expires) != "90" {
			t.Errorf("%s became %s, Expires %s, %v; want %s, 90", in, m.First(sipext.Contact), m.First(sipext.Expires), ok, want)
		}
	}
	m := &sipext.Message{Fields: []sipext.Field{{ID: sipext.Contact, Value: `<sip:a@b>;expires="9`}}}
	if capExpires(m, 90) {
		t.Error("a Contact that cannot be read passes")
	}
}

// TestTokenCredential: an accepted token is an Authorization that the core has accepted, its
// private identity the subject of the credential, whose life ends with the token.
func TestTokenCredential(t *testing.T) {
	prov, table := pushed(t, &relayStub{})
	r := newRig(t, trustingCore(t), func(c *Config) {
		withBearer(newWAF(2 * time.Minute))(c)
		c.Provisioner = prov
	})
	w := r.dial("alice")
	cred := w.credential(w.mustBearer(askHeader))
	if cred.TTL > 2*time.Minute || cred.TTL < time.Minute {
		t.Errorf("a credential for %v, want what is left of the token", cred.TTL)
	}
	if table.Len() != 1 {
		t.Errorf("%d records, want 1", table.Len())
	}
	w.send(w.request("OPTIONS", "sip:"+testDomain, askHeader))
	w.credential(w.response(sip.OPTIONS))
}

// TestTokenIsNoDigest: over a flow that has registered by token, a Digest response gets no
// tls-yes, which a core might take at its word, and a REGISTER without credentials that the
// core takes all the same does not outlive the token.
func TestTokenIsNoDigest(t *testing.T) {
	clk := newClock()
	waf := newWAF(time.Hour)
	waf.set("token-alice", claimsOf("alice", clk.Now().Add(100*time.Second)))
	core, addr := startStub(t)
	r := newRig(t, addr, func(c *Config) { withBearer(waf)(c); c.Now = clk.Now })
	w := r.dial("alice")
	register := func(rows ...string) *sip.Request {
		t.Helper()
		w.send(w.request("REGISTER", "sip:"+testDomain, append(rows, "To: <"+w.aor()+">", "Expires: 600")...))
		req := core.accept(r.edge)
		if res := w.response(sip.REGISTER); res.StatusCode != 200 {
			t.Fatalf("REGISTER got %d", res.StatusCode)
		}
		return req
	}
	ends := func() time.Duration { return r.proxy.Flows()[0].Registrations[0].Expires.Sub(clk.Now()) }
	register("Authorization: Bearer token-alice")
	register()
	if got := ends(); got > 100*time.Second {
		t.Errorf("a refresh without credentials lives for %v, want the token's 100 s at most", got)
	}
	req := register(`Authorization: Digest username="alice@ims.test", response="1"`)
	if got := protectedAs(t, req); len(got) != 1 || got[0] != protectedPending {
		t.Errorf("integrity-protected = %q, want %s: the core has seen no response of alice's", got, protectedPending)
	}
	if got := ends(); got < 500*time.Second {
		t.Errorf("registered by Digest for %v, want what the core granted", got)
	}
}

// TestTokenWithoutVerifier: an edge that takes none removes them, as RFC 4475 §3.3.7 has it for
// unknown schemes.
func TestTokenWithoutVerifier(t *testing.T) {
	_, _, _, req := registered(t, nil, "Authorization: Bearer token-alice")
	if got := elements(req, "Authorization"); len(got) != 0 {
		t.Errorf("Authorization = %q, want none", got)
	}
}

func TestBearerConfig(t *testing.T) {
	good := Bearer{Verifier: newWAF(time.Hour), AuthzServer: testWAF}
	if err := good.check(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for want, bad := range map[string]Bearer{
		"Bearer.Verifier":    {AuthzServer: testWAF},
		"Bearer.AuthzServer": {Verifier: good.Verifier, AuthzServer: "http://waf.ims.test"},
		"Bearer.Scope":       {Verifier: good.Verifier, AuthzServer: testWAF, Scope: `a"b`},
	} {
		if err := bad.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error that names %s", bad, err, want)
		}
	}
}
