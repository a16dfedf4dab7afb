package proxy

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
	"epcscf/turncred"
)

// protectedAs returns the integrity-protected of each Authorization that the core got.
func protectedAs(t *testing.T, req *sip.Request) []string {
	t.Helper()
	var all []string
	for _, h := range sipext.Rows(req, "Authorization") {
		c, err := parseCredentials(h.Value())
		if err != nil {
			t.Fatalf("Authorization %q: %v", h.Value(), err)
		}
		v, there := c.params.Get("integrity-protected")
		if !there {
			v = "none"
		}
		if n := strings.Count(h.Value(), "integrity-protected"); n > 1 {
			t.Errorf("integrity-protected %d times in %q", n, h.Value())
		}
		all = append(all, v)
	}
	return all
}

// TestSecurityMechanism: what the core is told of a REGISTER's protection, before and
// after it has accepted alice's Authorization on this flow.
func TestSecurityMechanism(t *testing.T) {
	const alice = `username="alice@ims.test"`
	for _, tt := range []struct {
		name, clause  string
		auth          string // value of Authorization; "" for none
		to            string // default alice
		before, after string // "-": no Authorization reaches the core
	}{
		{"no Authorization", "33.203 P.3", "", "", "-", "-"},
		{"no response yet", "33.203 O.2.3", "Digest " + alice + `, response=""`, "", "none", "none"},
		{"response left out", "33.203 O.2.3", "Digest " + alice, "", "none", "none"},
		{"digest", "33.203 X.2.2", "Digest " + alice + `, response="1"`, "", protectedPending, protectedYes},
		{"username without @", "33.203 X.2.2", `Digest username="alice", response="1"`, "", protectedPending, protectedYes},
		{"home domain in capitals", "33.203 X.2.2", `Digest username="alice@IMS.TEST", response="1"`, "", protectedPending, protectedYes},
		{"another user name", "33.203 X.2.2", `Digest username="bob@ims.test", response="1"`, "", protectedPending, protectedPending},
		{"another identity", "33.203 X.2.2", "Digest " + alice + `, response="1"`, "sip:bob@ims.test", protectedPending, protectedPending},
		{"implicit identity", "33.203 X.2.2", "Digest " + alice + `, response="1"`, "sip:alias@ims.test", protectedPending, protectedYes},
		{"AKA", "33.203 X.2.3.3", "Digest " + alice + `, algorithm=AKAv2-SHA-256, response="1"`, "", protectedConnected, protectedConnected},
		{"AKA, first", "33.203 X.2.3.3", "Digest " + alice + `, algorithm=akav2-sha-256, response=""`, "", protectedConnected, protectedConnected},
		{"AKAv1 needs IPsec", "33.203 P.3", "Digest " + alice + `, algorithm=AKAv1-MD5, response="1"`, "", protectedPending, protectedYes},
		{"the UE's own word", "33.203 P.3", "Digest " + alice + `, integrity-protected="tls-yes", response="1"`, "", protectedPending, protectedYes},
		{"the UE's word, first", "33.203 P.3", "Digest " + alice + `, INTEGRITY-Protected = yes, response=""`, "", "none", "none"},
		{"tabs for spaces", "33.203 P.3", "Digest\t" + alice + ",\tintegrity-protected=auth-done", "", "none", "none"},
		{"in a quoted string", "33.203 P.3", "Digest " + alice + `, opaque=", integrity-protected=yes, ", response=""`, "", "none", "none"},
		{"a token is for the edge", "RFC 8898 §5", "Bearer eyJhbGciOi", "", "-", "-"},
		{"Bearer with parameters", "24.371 A.3.2", `Bearer access_token="x", integrity-protected=yes`, "", "-", "-"},
		{"unknown scheme", "RFC 4475 §3.3.7", "NoOneKnows integrity-protected=yes", "", "-", "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			r := newRig(t, addr, nil)
			w := r.dial("alice")
			rows := []string{"To: <" + w.aor() + ">"}
			if tt.to != "" {
				rows[0] = "To: <" + tt.to + ">"
			}
			if tt.auth != "" {
				rows = append(rows, "Authorization: "+tt.auth)
			}
			check := func(when, want string) {
				t.Helper()
				w.send(w.request("REGISTER", "sip:"+testDomain, rows...))
				req := core.request(sip.REGISTER)
				got := strings.Join(protectedAs(t, req), " ")
				if got == "" {
					got = "-"
				}
				if got != want {
					t.Errorf("%s, %s: integrity-protected %q, want %q", tt.clause, when, got, want)
				}
				core.respond(r.edge, req, 401, `WWW-Authenticate: Digest realm="ims.test", nonce="n"`)
				w.response(sip.REGISTER)
			}
			check("before", tt.before)
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Authorization: Digest "+alice+`, response="1"`))
			core.accept(r.edge, "P-Associated-URI: <sip:alias@ims.test>")
			w.response(sip.REGISTER)
			check("after", tt.after)

			// Another connection is another matter (33.203 X.2.3.3).
			other := r.dial("alice")
			other.send(other.request("REGISTER", "sip:"+testDomain, rows...))
			got := strings.Join(protectedAs(t, core.request(sip.REGISTER)), " ")
			if want := strings.Trim(tt.before, "-"); got != want {
				t.Errorf("%s, on another flow: integrity-protected %q, want %q", tt.clause, got, want)
			}
		})
	}
}

// TestRegisterRefused: an Authorization that two readers could read differently.
func TestRegisterRefused(t *testing.T) {
	for _, tt := range []struct{ name, auth string }{
		{"no parameters", "Digest"},
		{"repeated parameter", `Digest username="alice", Username="bob", response="1"`},
		{"open quote", `Digest username="alice, response="1"`},
		{"no name", `Digest ="x"`},
		{"semicolon", `Digest username="alice";integrity-protected=yes`},
		{"empty element", `Digest username="alice",,response="1"`},
		{"two users", `Digest username="alice", response="1"` + "\r\nAuthorization: " + `Digest username="bob", response="1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, addr := startStub(t)
			w := newRig(t, addr, nil).dial("alice")
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">", "Authorization: "+tt.auth))
			if res := w.response(sip.REGISTER); res.StatusCode != 400 {
				t.Errorf("%s: %d, want 400", tt.auth, res.StatusCode)
			}
		})
	}
}

// TestSecAgree: Security-Client and sec-agree are removed, not refused (33.203 P.3: no
// other mechanism where TLS is there already).
func TestSecAgree(t *testing.T) {
	_, _, _, req := registered(t, nil, "Security-Client: ipsec-3gpp; alg=hmac-sha-1-96; spi-c=1; spi-s=2; port-c=3; port-s=4",
		"Security-Verify: tls", "Proxy-Require: sec-agree", "Require: sec-agree", "Supported: path, Sec-Agree")
	for name, want := range map[string]string{
		"Security-Client": "", "Security-Verify": "", "Proxy-Require": "", "Require": "path", "Supported": "path",
	} {
		if got := first(req, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestIMPI(t *testing.T) {
	cfg := Config{Domain: "IMS.test"}
	for _, tt := range []struct {
		username string
		want     turncred.IMPI
	}{
		{"", ""}, {"alice", "alice@ims.test"}, {"alice@ims.test", "alice@ims.test"}, {"Alice@IMS.Test", "Alice@ims.test"},
		{"a@b@Other.Example", "a@b@other.example"}, {"+15551234", "+15551234@ims.test"},
	} {
		if got := cfg.impi(tt.username); got != tt.want {
			t.Errorf("impi(%q) = %q, want %q (TS 23.003 §13.3)", tt.username, got, tt.want)
		}
	}
}

// FuzzCredentials: what is written re-parses to the same, and integrity-protected is gone.
func FuzzCredentials(f *testing.F) {
	f.Add(`Digest username="alice@ims.test", realm="ims.test", nonce="a,b", uri="sip:x", response="00", qop=auth, nc=00000001`)
	f.Add("Digest\tintegrity-protected=yes")
	f.Add(`Bearer a.b-c~d+/==`)
	f.Fuzz(func(t *testing.T, value string) {
		c, err := parseCredentials(value)
		if err != nil {
			return
		}
		c = c.without("integrity-protected")
		again, err := parseCredentials(c.String())
		if len(c.params) > 0 && (err != nil || again.String() != c.String()) {
			t.Fatalf("%q was written as %q, which reads as %q (%v)", value, c, again, err)
		}
		if _, there := again.params.Get("integrity-protected"); there {
			t.Fatalf("integrity-protected survives in %q", c)
		}
	})
}
