package minicore

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"epcscf/turncred"
)

func TestRegister(t *testing.T) {
	core := start(t, nil)
	for _, network := range []string{"udp", "tcp"} {
		for _, alg := range []string{"MD5", "SHA-256"} {
			for _, username := range []string{"alice", "alice@ims.test"} {
				t.Run(network+"/"+alg+"/"+username, func(t *testing.T) {
					addr := core.udp
					if network == "tcp" {
						addr = core.tcp
					}
					p := newPhone(t, "alice", network, addr)
					p.params = `;+sip.instance="<urn:uuid:` + p.callID + `>";reg-id=1`
					rows := p.registerRows(p.bound() + ";expires=120")
					ch := p.challenge(alg, rows...)
					p.request("REGISTER", "sip:"+domain, append(rows, p.authorization(ch, username, "alice-password", 1))...)
					res := p.response("REGISTER", 200)

					if got := expires(t, res, p.contact); got != 120 {
						t.Errorf("expires = %d, want 120", got)
					}
					if got, want := value(res, "P-Associated-URI"), "<sip:alice@ims.test>"; got != want {
						t.Errorf("P-Associated-URI = %q, want %q", got, want)
					}
					want := "<sip:orig@" + addr + ";lr>"
					if network == "tcp" {
						want = "<sip:orig@" + addr + ";transport=tcp;lr>"
					}
					if got := value(res, "Service-Route"); got != want {
						t.Errorf("Service-Route = %q, want %q", got, want)
					}
					if got := value(res, "Require"); got != "outbound" {
						t.Errorf("Require = %q, want outbound", got)
					}
					if got := value(res, "Path"); got != p.path {
						t.Errorf("Path = %q, want %q", got, p.path)
					}
					if !strings.Contains(res.String(), p.params[1:]) {
						t.Errorf("Contact does not echo %q:\n%s", p.params, res)
					}
				})
			}
		}
	}
	if got := len(core.Bindings()); got != 8 {
		t.Errorf("Bindings: %d, want 8", got)
	}
}

// The strongest first (RFC 8760 §2.3); browsers' SIP stacks take the last row and know MD5 only.
func TestChallengeRows(t *testing.T) {
	p := newPhone(t, "alice", "udp", start(t, nil).udp)
	p.request("REGISTER", "sip:"+domain, p.registerRows(p.bound())...)
	res := p.response("REGISTER", 401)
	rows := res.GetHeaders("WWW-Authenticate")
	if len(rows) != 2 || !strings.Contains(rows[0].Value(), "algorithm=SHA-256") || !strings.Contains(rows[1].Value(), "algorithm=MD5") {
		t.Errorf("WWW-Authenticate rows = %v", rows)
	}
	if !strings.Contains(rows[0].Value(), `qop="auth"`) || !strings.Contains(rows[0].Value(), `realm="ims.test"`) {
		t.Errorf("challenge = %s", rows[0].Value())
	}
}

// TestTrustedEdge: an eP-CSCF's word that it has authenticated a user (TS 33.203 X.3) counts
// where it comes from a listed address, whole and for a user of this domain. Else: challenge.
func TestTrustedEdge(t *testing.T) {
	const done = `Authorization: Digest username="alice@ims.test", realm="ims.test", nonce="", uri="sip:ims.test", response="", integrity-protected="auth-done"`
	here := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		name    string
		trusted []netip.Addr
		row     string
		want    int
	}{
		{"trusted", []netip.Addr{here}, done, 200},
		{"nobody is trusted", nil, done, 401},
		{"another is trusted", []netip.Addr{netip.MustParseAddr("127.0.0.2")}, done, 401},
		{"another word", []netip.Addr{here}, strings.Replace(done, "auth-done", "tls-yes", 1), 401},
		{"another realm", []netip.Addr{here}, strings.Replace(done, `realm="ims.test"`, `realm="other.test"`, 1), 401},
		{"an unknown user", []netip.Addr{here}, strings.Replace(done, "alice@", "mallory@", 1), 401},
		{"another scheme", []netip.Addr{here}, strings.Replace(done, "Digest", "Bearer", 1), 400},
		{"a parameter twice", []netip.Addr{here}, done + `, realm="ims.test"`, 401},
		{"another user's identity", []netip.Addr{here}, strings.Replace(done, "alice@", "bob@", 1), 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPhone(t, "alice", "udp", start(t, func(c *Config) { c.TrustedEdges = tt.trusted }).udp)
			p.request("REGISTER", "sip:"+domain, p.registerRows(p.bound(), tt.row)...)
			p.response("REGISTER", tt.want)
		})
	}
}

func TestRegisterRefused(t *testing.T) {
	core := start(t, nil)
	for _, tt := range []struct {
		name, username, password string
		mend                     func(string) string
		want                     int
	}{
		{name: "wrong password", username: "alice", password: "bob-password", want: 401},
		{name: "unknown user", username: "mallory", password: "x", want: 401},
		{name: "another user", username: "bob", password: "bob-password", want: 403},
		{name: "foreign nonce", username: "alice", password: "alice-password", want: 401,
			mend: func(s string) string { return strings.Replace(s, `nonce="`, `nonce="AAAA`, 1) }},
		{name: "no nonce count", username: "alice", password: "alice-password", want: 400,
			mend: func(s string) string { return strings.Replace(s, "nc=00000001", "nc=00000000", 1) }},
		{name: "another digest URI", username: "alice", password: "alice-password", want: 400,
			mend: func(s string) string { return strings.Replace(s, `uri="sip:ims.test"`, `uri="sip:other.test"`, 1) }},
		{name: "another realm", username: "alice", password: "alice-password", want: 401,
			mend: func(s string) string { return strings.Replace(s, `realm="ims.test"`, `realm="other.test"`, 1) }},
		{name: "no digest", username: "alice", password: "alice-password", want: 400,
			mend: func(string) string { return "Authorization: Basic YTpi" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPhone(t, "alice", "udp", core.udp)
			rows := p.registerRows(p.bound())
			ch := p.challenge("MD5", rows...)
			auth := p.authorization(ch, tt.username, tt.password, 1)
			if tt.mend != nil {
				auth = tt.mend(auth)
			}
			p.request("REGISTER", "sip:"+domain, append(rows, auth)...)
			res := p.response("REGISTER", tt.want)
			if challenged := len(res.GetHeaders("WWW-Authenticate")) > 0; challenged != (tt.want == 401) {
				t.Errorf("%d: challenged = %v", tt.want, challenged)
			}
			if strings.Contains(res.String(), "stale") {
				t.Errorf("a refusal says stale:\n%s", res)
			}
		})
	}
	if b := core.Bindings(); len(b) != 0 {
		t.Errorf("Bindings = %v, want none", b)
	}
}

func TestNonceCount(t *testing.T) {
	var clk clock
	core := start(t, func(c *Config) { c.Now = clk.now })
	p := newPhone(t, "alice", "udp", core.udp)
	rows := p.registerRows(p.bound())
	ch := p.challenge("MD5", rows...)
	try := func(count, want int) *sip.Response {
		t.Helper()
		p.request("REGISTER", "sip:"+domain, append(rows, p.authorization(ch, "alice", "alice-password", count))...)
		return p.response("REGISTER", want)
	}
	try(1, 200)
	if res := try(1, 401); !challengeOf(t, res, "MD5").Stale {
		t.Error("a used count: the challenge does not say stale")
	}
	try(2, 200)
	try(5, 200)
	try(4, 401)
	clk.advance(5 * time.Minute)
	if res := try(6, 401); !challengeOf(t, res, "MD5").Stale {
		t.Error("an old nonce: the challenge does not say stale")
	}
}

func TestExpiry(t *testing.T) {
	var clk clock
	core := start(t, func(c *Config) {
		c.Now, c.MinExpires, c.MaxExpires = clk.now, time.Minute, 10*time.Minute
		c.NonceLife = time.Hour
	})
	p := newPhone(t, "alice", "udp", core.udp)
	if got := expires(t, p.register(), p.contact); got != 600 {
		t.Errorf("no wish: expires = %d, want 600", got)
	}
	if got := expires(t, p.registerWith(200, p.registerRows(p.bound(), "Expires: 3600")...), p.contact); got != 600 {
		t.Errorf("a long wish: expires = %d, want 600", got)
	}
	res := p.registerWith(423, p.registerRows(p.bound()+";expires=59")...)
	if got := value(res, "Min-Expires"); got != "60" {
		t.Errorf("Min-Expires = %q, want 60", got)
	}
	p.registerWith(400, p.registerRows(p.bound()+";expires=soon")...)

	clk.advance(9 * time.Minute)
	if got := expires(t, p.registerWith(200, p.registerRows("")...), p.contact); got != 60 {
		t.Errorf("after 9 min a query says expires = %d, want 60", got)
	}
	if n := len(core.Bindings()); n != 1 {
		t.Fatalf("Bindings: %d, want 1", n)
	}
	clk.advance(time.Minute)
	if b := core.Bindings(); len(b) != 0 {
		t.Errorf("after 10 min Bindings = %v, want none", b)
	}
	if res := p.registerWith(200, p.registerRows("")...); len(res.GetHeaders("Contact")) != 0 {
		t.Errorf("after 10 min a query shows a contact:\n%s", res)
	}
}

func TestDeregister(t *testing.T) {
	core := start(t, nil)
	a, b := newPhone(t, "alice", "udp", core.udp), newPhone(t, "alice", "udp", core.udp)
	a.register()
	res := b.register()
	expires(t, res, a.contact) // both are shown
	expires(t, res, b.contact)

	a.registerWith(200, a.registerRows(a.bound()+";expires=0")...)
	if got := core.Bindings(); len(got) != 1 || got[0].Contact != b.contact {
		t.Fatalf("after Expires 0 Bindings = %v, want b's alone", got)
	}
	a.registerWith(400, a.registerRows("*")...)
	a.registerWith(400, append(a.registerRows("*", "Expires: 0"), "Contact: "+a.bound())...)
	a.registerWith(200, a.registerRows("*", "Expires: 0")...)
	if got := core.Bindings(); len(got) != 0 {
		t.Errorf("after * Bindings = %v, want none", got)
	}
}

func TestBindingKey(t *testing.T) {
	core := start(t, nil)
	p := newPhone(t, "alice", "udp", core.udp)
	p.params = `;+sip.instance="<urn:uuid:1>";reg-id=1`
	p.register()
	p.contact = "sip:alice@moved.invalid;transport=ws"
	p.register() // the same device with a new contact
	if got := core.Bindings(); len(got) != 1 || got[0].Contact != p.contact || got[0].Instance != "<urn:uuid:1>" || got[0].RegID != 1 {
		t.Errorf("Bindings = %+v, want one with the new contact", got)
	}
	// RFC 3261 §10.3 step 7: a CSeq that is not above the binding's.
	p.cseq = 0
	p.registerWith(500, p.registerRows(p.bound())...)

	p.path = "<sip:edge@127.0.0.1:9;lr>"
	p.cseq = 100
	p.registerWith(439, p.registerRows(p.bound())...)
	p.params = `;+sip.instance="<urn:uuid:1>";reg-id=0`
	p.registerWith(400, p.registerRows(p.bound())...)
}

func TestBindingsAreBounded(t *testing.T) {
	core := start(t, nil)
	p := newPhone(t, "alice", "udp", core.udp)
	rows := p.registerRows("")
	ch := p.challenge("MD5", rows...)
	for i := 1; i <= maxBindings+3; i++ {
		p.request("REGISTER", "sip:"+domain, append(p.registerRows(fmt.Sprintf("<sip:a%d@a.invalid>", i)), p.authorization(ch, "alice", "alice-password", i))...)
		p.response("REGISTER", 200)
	}
	got := core.Bindings()
	if len(got) != maxBindings || got[0].Contact != "sip:a4@a.invalid" {
		t.Errorf("%d bindings, the oldest %s; want %d and a4", len(got), got[0].Contact, maxBindings)
	}
}

func TestRegisterForm(t *testing.T) {
	core := start(t, nil)
	p := newPhone(t, "alice", "udp", core.udp)
	p.request("REGISTER", "sip:other.test", p.registerRows(p.bound())...)
	p.response("REGISTER", 404)
	p.request("REGISTER", "sip:"+domain, append(p.registerRows(p.bound()), "Require: gruu")...)
	if got := value(p.response("REGISTER", 420), "Unsupported"); got != "gruu" {
		t.Errorf("Unsupported = %q, want gruu", got)
	}
	p.path = "<sip:;;"
	p.registerWith(400, p.registerRows(p.bound())...)
	p.path = `<sip:b@127.0.0.1:2;lr>, "x, y" <sip:a@127.0.0.1:1;lr;ob>`
	p.register()
	want := []string{"<sip:b@127.0.0.1:2;lr>", "<sip:a@127.0.0.1:1;lr;ob>"}
	if got := core.Bindings()[0].Path; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Path = %v, want %v", got, want)
	}
}

func TestConfig(t *testing.T) {
	users := map[string]turncred.Secret{"alice": turncred.NewSecret([]byte("x"))}
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Users: users}, "Domain"},
		{Config{Domain: domain}, "Users"},
		{Config{Domain: domain, Users: map[string]turncred.Secret{"a@b": users["alice"]}}, "Users"},
		{Config{Domain: domain, Users: map[string]turncred.Secret{"alice": {}}}, "Users"},
		{Config{Domain: domain, Users: users, MinExpires: time.Hour}, "MinExpires"},
		{Config{Domain: domain, Users: users, Algorithms: []string{"AKAv1-MD5"}}, "Algorithms"},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%+v) = %v, want an error that names %s", tt.cfg, err, tt.want)
		}
	}
}
