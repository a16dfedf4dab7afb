package proxy

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"epcscf/sipext"
)

// TestRegistrationHeaders: what goes on a REGISTER and what comes on its 200.
func TestRegistrationHeaders(t *testing.T) {
	const instance = `;+sip.instance="<urn:uuid:1>";reg-id=1`
	for _, tt := range []struct {
		name, clause  string
		rows          []string // of the REGISTER
		accept        []string // of the 200
		header        string
		atCore, atWIC string // what the header is on each side
		viaKeep       string // value of the WIC's keep; "-": none
		setAccess     string
	}{
		{name: "access, no Authorization", clause: "33.203 P.3", header: "P-Access-Network-Info", atCore: "Internet;network-provided"},
		{name: "access, configured", clause: "33.203 P.3", setAccess: `IEEE-802.11;i-wlan-node-id="1"`, header: "P-Access-Network-Info",
			atCore: `IEEE-802.11;i-wlan-node-id="1";network-provided`},
		{name: "access beside the UE's", clause: "RFC 7315 §4.4.2.2", rows: []string{"P-Access-Network-Info: IEEE-802.11, x;np"},
			header: "P-Access-Network-Info", atCore: "IEEE-802.11, Internet;network-provided"},
		{name: "access, with Authorization", clause: "33.203 P.3", rows: []string{`Authorization: Digest username="alice", response="1"`},
			header: "P-Access-Network-Info"},
		{name: "Flow-Timer", clause: "RFC 5626 §5.4", accept: []string{"Require: outbound"}, header: "Flow-Timer", atWIC: "50"},
		{name: "Flow-Timer without outbound", clause: "RFC 5626 §5.4", accept: []string{"Supported: outbound", "Flow-Timer: 7"}, header: "Flow-Timer"},
		{name: "Flow-Timer of others", clause: "RFC 5626 §5.4", rows: []string{"Flow-Timer: 1"}, accept: []string{"Require: path, Outbound", "flow-timer: 7"},
			header: "Flow-Timer", atWIC: "50"},
		{name: "keep", clause: "RFC 6223 §4.4", rows: []string{"Via: SIP/2.0/WSS a.invalid;branch=z9hG4bKkeep;keep"}, viaKeep: "50"},
		{name: "keep and Flow-Timer", clause: "RFC 6223 §5", rows: []string{"Via: SIP/2.0/WSS a.invalid;keep;branch=z9hG4bKkeep"},
			accept: []string{"Require: outbound"}, header: "Flow-Timer", atWIC: "50", viaKeep: "50"},
		{name: "no keep", clause: "RFC 6223 §4.4", rows: []string{"Via: SIP/2.0/WSS a.invalid;branch=z9hG4bKkeep"}, viaKeep: "-"},
		{name: "GRUU", clause: "RFC 5627 §5.2", accept: []string{`Contact: <sip:x@y>;pub-gruu="sip:alice@ims.test;gr=1";temp-gruu="sip:t@ims.test;gr"`},
			header: "Contact", atCore: "-", atWIC: `<sip:x@y>;pub-gruu="sip:alice@ims.test;gr=1";temp-gruu="sip:t@ims.test;gr"`},
		{name: "Service-Route", clause: "RFC 3608 §6.2", header: "Service-Route", atWIC: "<sip:orig@scscf.ims.test;lr>, <sip:second.ims.test;lr>"},
		{name: "Path back", clause: "RFC 3327 §5.2", accept: []string{"Path: <sip:x@y;lr>"}, header: "Path", atCore: "-", atWIC: "<sip:x@y;lr>"},
		{name: "charging", clause: "RFC 7315 §4.5", accept: []string{"P-Charging-Function-Addresses: ccf=x"}, header: "P-Charging-Function-Addresses"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			r := newRig(t, addr, func(c *Config) { c.AccessNetwork = tt.setAccess })
			w := r.dial("alice")
			w.send(w.request("REGISTER", "sip:"+testDomain, append([]string{"To: <" + w.aor() + ">", "Contact: <" + w.contact() + ">" + instance}, tt.rows...)...))
			req := core.accept(r.edge, tt.accept...)
			res := w.response(sip.REGISTER)
			if tt.header != "" {
				if got := strings.Join(elements(req, tt.header), ", "); tt.atCore != "-" && got != tt.atCore {
					t.Errorf("%s: %s at the core = %q, want %q", tt.clause, tt.header, got, tt.atCore)
				}
				if got := strings.Join(elements(res, tt.header), ", "); !strings.HasSuffix(got, tt.atWIC) || tt.atWIC == "" && got != "" {
					t.Errorf("%s: %s at the WIC = %q, want %q", tt.clause, tt.header, got, tt.atWIC)
				}
			}
			if v, there := res.Via().Params.Get("keep"); tt.viaKeep != "" && (there != (tt.viaKeep != "-") || there && v != tt.viaKeep) {
				t.Errorf("%s: keep = %q (%v), want %q", tt.clause, v, there, tt.viaKeep)
			}
		})
	}
}

// TestAsserted: P-Preferred-Identity against the implicit set of sip:alice, tel:+15551234
// and sip:alias.
func TestAsserted(t *testing.T) {
	for _, tt := range []struct {
		name, clause string
		rows         []string
		want         string
	}{
		{"none: the default", "24.229 5.2.6.3.1", nil, "<sip:alice@ims.test>"},
		{"From is not used", "24.229 5.2.6.3.1", []string{"From: <sip:alias@ims.test>;tag=1"}, "<sip:alice@ims.test>"},
		{"one that is registered", "24.229 5.2.6.3.1", []string{"P-Preferred-Identity: Al <sip:alias@IMS.test;x=y>"}, "<sip:alias@ims.test>"},
		{"a tel URI", "RFC 3325 §9.2", []string{"P-Preferred-Identity: tel:+15551234"}, "<tel:+15551234>"},
		{"one of each", "RFC 3325 §9.1", []string{"P-Preferred-Identity: <sip:alias@ims.test>", "P-Preferred-Identity: <tel:+15551234>"},
			"<sip:alias@ims.test>, <tel:+15551234>"},
		{"two SIP URIs", "RFC 3325 §9.1", []string{"P-Preferred-Identity: <sip:alias@ims.test>, <sip:alice@ims.test>"}, "<sip:alias@ims.test>"},
		{"one that is not", "RFC 3325 §5", []string{"P-Preferred-Identity: <sip:bob@ims.test>"}, "<sip:alice@ims.test>"},
		{"no URI", "RFC 3325 §9.2", []string{"P-Preferred-Identity: president"}, "<sip:alice@ims.test>"},
		{"the UE's own assertion", "RFC 3325 §5", []string{"P-Asserted-Identity: <sip:alias@ims.test>"}, "<sip:alice@ims.test>"},
		{"Privacy is the core's to honour", "RFC 3325 §7", []string{"Privacy: id"}, "<sip:alice@ims.test>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			r := newRig(t, addr, nil)
			w := r.dial("alice")
			w.send(w.request("REGISTER", "sip:"+testDomain, "To: <"+w.aor()+">"))
			core.accept(r.edge, "P-Associated-URI: <sip:alias@ims.test>", "P-Charging-Function-Addresses: ccf=one;ecf=two")
			w.response(sip.REGISTER)
			w.send(w.request("MESSAGE", "sip:bob@ims.test", append([]string{"P-Charging-Function-Addresses: ccf=evil"}, tt.rows...)...))
			req := core.request(sip.MESSAGE)
			if got := strings.Join(elements(req, "P-Asserted-Identity"), ", "); got != tt.want {
				t.Errorf("%s: P-Asserted-Identity = %q, want %q", tt.clause, got, tt.want)
			}
			if got := len(sipext.Rows(req, "P-Preferred-Identity")); got != 0 {
				t.Errorf("RFC 3325 §9.2: %d P-Preferred-Identity went on", got)
			}
			if got := strings.Join(elements(req, "P-Charging-Function-Addresses"), ", "); got != "ccf=one;ecf=two" {
				t.Errorf("RFC 7315 §4.5.2.2: P-Charging-Function-Addresses = %q, want the registration's", got)
			}
		})
	}
}

// TestCalledParty: a WIC's responses say who was called, in our words.
func TestCalledParty(t *testing.T) {
	for _, tt := range []struct{ name, called, want string }{
		{"an identity of the user", "P-Called-Party-ID: <sip:alice@ims.test>", "<sip:alice@ims.test>"},
		{"another of the set", "p-called-party-id: \"A\" <tel:+15551234>", "<tel:+15551234>"},
		{"of nobody on this flow", "P-Called-Party-ID: <sip:bob@ims.test>", ""},
		{"not said", "Subject: x", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, core, w, req := registered(t, nil)
			core.send(r.edge, core.ask("MESSAGE", w.contact(), "Route: "+first(req, "Path"), tt.called))
			w.respond(w.incoming(sip.MESSAGE), 200, "OK", "P-Preferred-Identity: <sip:bob@ims.test>", "P-Asserted-Identity: <sip:bob@ims.test>")
			res := core.response(200)
			for res.CSeq().MethodName != sip.MESSAGE {
				res = core.response(200)
			}
			if got := strings.Join(elements(res, "P-Asserted-Identity"), ", "); got != tt.want {
				t.Errorf("RFC 7315 §4.2: P-Asserted-Identity = %q, want %q", got, tt.want)
			}
			if got := first(res, "P-Preferred-Identity"); got != "" {
				t.Errorf("RFC 3325 §9.2: P-Preferred-Identity = %q went on", got)
			}
		})
	}
}

// TestSameDeviceOnNewFlow: the registrar has replaced the binding (RFC 5626 §6), so the old
// flow speaks for it no more; another reg-id or instance is another binding.
func TestSameDeviceOnNewFlow(t *testing.T) {
	for _, tt := range []struct {
		name     string
		contact  string // of the second REGISTER
		oldKeeps bool
	}{
		{"same instance and reg-id", `<sip:a@new.invalid>;+sip.instance="<urn:uuid:1>";reg-id=1`, false},
		{"another reg-id", `<sip:a@new.invalid>;+sip.instance="<urn:uuid:1>";reg-id=2`, true},
		{"another instance", `<sip:a@new.invalid>;+sip.instance="<urn:uuid:2>";reg-id=1`, true},
		{"no instance", `<sip:a@new.invalid>`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, addr := startStub(t)
			r := newRig(t, addr, nil)
			old, fresh := r.dial("alice"), r.dial("alice")
			for _, on := range []struct {
				w       *wic
				contact string
			}{{old, `<sip:a@old.invalid>;+sip.instance="<urn:uuid:1>";reg-id=1`}, {fresh, tt.contact}} {
				on.w.send(on.w.request("REGISTER", "sip:"+testDomain, "To: <"+on.w.aor()+">", "Contact: "+on.contact))
				core.accept(r.edge)
				on.w.response(sip.REGISTER)
			}
			old.send(old.request("OPTIONS", "sip:"+testDomain))
			want := 403
			if tt.oldKeeps {
				want = 200
			}
			if got := old.response(sip.OPTIONS).StatusCode; got != want {
				t.Errorf("OPTIONS on the old flow got %d, want %d", got, want)
			}
			if got, want := r.metric("epcscf_registrations"), map[bool]float64{true: 2, false: 1}[tt.oldKeeps]; got != want {
				t.Errorf("registrations = %v, want %v", got, want)
			}
			fresh.send(fresh.request("OPTIONS", "sip:"+testDomain))
			if got := fresh.response(sip.OPTIONS).StatusCode; got != 200 {
				t.Errorf("OPTIONS on the new flow got %d, want 200", got)
			}
		})
	}
}

// TestFlowSpeaksForItself: identities that are registered on another flow are no way in.
func TestFlowSpeaksForItself(t *testing.T) {
	r, core, _, req := registered(t, nil)
	stranger := r.dial("alice") // says so, and has not registered
	for _, method := range []string{"MESSAGE", "INVITE", "SUBSCRIBE", "OPTIONS", "NOSUCH"} {
		stranger.send(stranger.request(method, "sip:bob@"+testDomain))
		if got := stranger.response(sip.RequestMethod(method)).StatusCode; got != 403 {
			t.Errorf("%s got %d, want 403", method, got)
		}
	}
	// Nor does the path of another's flow, put into Route.
	stranger.send(stranger.request("MESSAGE", "sip:bob@"+testDomain, "Route: "+first(req, "Path")))
	if got := stranger.response(sip.MESSAGE).StatusCode; got != 403 {
		t.Errorf("MESSAGE by another's path got %d, want 403", got)
	}
	for len(core.in) > 0 {
		if m, ok := (<-core.in).(*sip.Request); ok && m.Method != sip.REGISTER {
			t.Errorf("a stranger's request reached the core:\n%s", m)
		}
	}
}
