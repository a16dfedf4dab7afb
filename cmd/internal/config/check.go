package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"epcscf/cmd/internal/node"
	"epcscf/turncred"
	"epcscf/turncred/sharedkey"
)

// check looks at what one key alone does not tell, reads the files that are named, and
// completes f.node.
func (f *File) check() {
	f.checkMissing()
	f.checkEdge()
	f.checkTURNServer()
	f.checkSecrets()
	f.checkTokens(false)
	f.checkBearer()
	f.checkStore()
	f.checkRing()
	f.checkCertificates()
	f.checkCoreTLS()
	f.checkWAF()
	f.checkHearing()
	f.checkSockets()
	if len(f.faults) > 0 {
		return
	}
	// What the parts refuse beyond all this has no line, but must not wait for a start.
	if err := node.Check(f.node); err != nil {
		f.faults = append(f.faults, Fault{File: f.Name, Text: err.Error()})
	}
}

func (f *File) checkMissing() {
	for _, k := range f.form.table {
		if _, ok := f.at[k.name]; !ok && k.kind == must {
			f.addAt(k.name, "is missing: %s Write, such as: %s: %s", k.doc, k.name[strings.LastIndexByte(k.name, '.')+1:], k.value)
		}
	}
}

// checkEdge is proxy and core.
func (f *File) checkEdge() {
	p := &f.node.Proxy
	p.AllowUnauthorized = !f.requireAuthorization
	if p.AllowUnauthorized {
		f.note("turn.require_authorization is off: whoever the core registers without an Authorization may use the relay")
	}
	if len(p.Origins) == 0 && !p.AllowNoOrigin {
		f.addAt("proxy.origins", "is empty, and allow_no_origin is off: nobody could connect. Write the origin of your page, such as https://phone.ims.example")
	}
	if core := f.node.Core; core.IsValid() && core.Addr().IsUnspecified() && p.CoreHost == "" {
		f.addAt("core.listen", "%s stands in Via and Path, where the core could not send to it: write an address of this host, or its name as core.host", core)
	}
	if _, ok := f.at["core.next_hops"]; ok && len(p.NextHops) == 0 {
		f.addAt("core.next_hops", "is empty: where is the core? Write, such as, udp:10.0.0.10:5060")
	}
	if f.node.TURN.Realm == "" {
		f.node.TURN.Realm = turncred.Realm(p.Domain)
	}
	if _, ok := f.at["proxy.listen"]; ok && len(f.node.Listen) == 0 {
		f.addAt("proxy.listen", "is empty: write where WICs connect, such as 203.0.113.5:443")
	}
}

// checkTURNServer is the relay in this process, or those elsewhere.
func (f *File) checkTURNServer() {
	elsewhere := len(f.relayItems) > 0 || f.registry
	if elsewhere && f.notGiven("relay") {
		f.relayOn = false
	}
	switch {
	case elsewhere && f.relayOn:
		f.addAt("relay.enabled", "turn.relays, or the registry, has relays in processes of their own: leave the section relay out, or write enabled: false")
	case elsewhere:
		f.checkFleet()
	case f.relayOn:
		f.checkRelay()
	default:
		f.checkForeign()
	}
}

// checkRelay is the relay of this process.
func (f *File) checkRelay() {
	r := &f.relay
	f.node.Relay = r
	all := slices.Concat(r.UDP, r.TCP, r.TLS)
	if i := slices.IndexFunc(all, isWildcard); i >= 0 && r.PublicName == "" && len(f.node.TURN.URIs) == 0 {
		f.addAt(keyOf(all[i]), "%s would be written into the URIs that WICs get, and nobody can send to it: write an address of this host, or the name that WICs use as relay.public_name", all[i])
	}
	f.checkRelayAddresses()
}

// checkRelayAddresses is what any relay of ours must have.
func (f *File) checkRelayAddresses() {
	r := &f.relay
	all := slices.Concat(r.UDP, r.TCP, r.TLS)
	if len(all) == 0 {
		f.addAt("relay.listen", "has no address: write one under udp, tcp or tls, or, at an edge, relay.enabled: false")
		return
	}
	s := &r.Settings
	if !s.RelayIP.IsValid() {
		s.RelayIP = all[0].Addr().Unmap()
		if isWildcard(all[0]) {
			f.addAt("relay.relay_address", "is missing, and relay.listen begins with %s: write the address of this host on which relayed sockets are opened", all[0])
			s.RelayIP = netip.Addr{}
		}
	}
	if s.ExternalIP.IsValid() && s.RelayIP.IsValid() && s.ExternalIP.Unmap().Is4() != s.RelayIP.Unmap().Is4() {
		f.addAt("relay.external_address", "%s and relay_address %s are of different families: a NAT maps one to one", s.ExternalIP, s.RelayIP)
	}
	if s.RelayIP6.IsValid() && (s.RelayIP6.Unmap().Is4() || s.RelayIP.IsValid() && !s.RelayIP.Unmap().Is4()) {
		f.addAt("relay.relay_address6", "%s beside relay_address %s: want IPv6 here and IPv4 there; a relay of IPv6 alone has it as relay_address", s.RelayIP6, s.RelayIP)
	}
	if s.MaxPort < s.MinPort {
		f.addAt("relay.max_port", "%d is below min_port %d", s.MaxPort, s.MinPort)
	}
	f.checkRevocations()
	for _, p := range s.AllowPeers {
		if p.Addr().IsLoopback() {
			f.note("relay.allow_peers opens " + p.String() + ": whoever has a credential reaches what this host keeps to itself")
		}
	}
}

// checkRevocations looks for the folder of the file, which the start makes.
func (f *File) checkRevocations() {
	const key = "relay.revocations_file"
	r := &f.relay.Revocations
	r.From = key
	if p, ok := f.at[key]; ok {
		r.From = from(f.Name, p.line, key)
	}
	if r.File == "" {
		f.note(key + " is empty: a restart takes credentials again that were revoked")
		return
	}
	r.File = f.path(r.File)
	if st, err := os.Stat(filepath.Dir(r.File)); err != nil || !st.IsDir() {
		f.addAt(key, "%s is no folder: make it, and let this user write in it", filepath.Dir(r.File))
	}
}

// checkForeign is a TURN server that is not ours.
func (f *File) checkForeign() {
	if len(f.node.TURN.URIs) == 0 {
		f.addAt("turn.uris", "is empty, and relay.enabled is false: write where the TURN server is, such as turns:turn.ims.example:5349?transport=tcp")
	}
	if f.node.TURN.Approach != turncred.ApproachSharedKey {
		f.addAt("turn.approach", "%s gives credentials to our relay, and relay.enabled is false: use shared-key", f.node.TURN.Approach)
	}
	if f.node.TURN.Hash == sharedkey.HMACSHA256 {
		f.note("turn.password_hash is hmac-sha256, which coturn 4.6 and most others do not know")
	}
	f.note("relay.enabled is false: a revocation reaches nobody; at the TURN server a credential is good until it expires")
}

// checkSockets finds two listeners at one place.
func (f *File) checkSockets() {
	tcp := slices.Concat(f.node.Listen, []node.Address{f.node.Admin, f.node.Core})
	if f.node.CoreTLS != nil {
		tcp = append(tcp, f.node.CoreTLS.Listen)
	}
	if f.node.Hearing != nil {
		tcp = append(tcp, f.hearing.Listen)
	}
	if f.node.WAF != nil {
		tcp = append(tcp, f.node.WAF.Listen)
		if i := f.node.WAF.Interface; i != nil {
			tcp = append(tcp, i.Listen)
		}
	}
	udp := []node.Address{f.node.Core}
	if f.relayOn {
		tcp, udp = slices.Concat(tcp, f.relay.TCP, f.relay.TLS), slices.Concat(udp, f.relay.UDP)
	}
	f.checkOverlaps(tcp, udp)
}

func (f *File) checkOverlaps(tcp, udp []node.Address) {
	for _, all := range [][]node.Address{tcp, udp} {
		for i, a := range all {
			j := slices.IndexFunc(all[:i], func(b node.Address) bool { return overlap(a.AddrPort, b.AddrPort) })
			if a.IsValid() && j >= 0 {
				f.addAt(keyOf(a), "%s is taken already by %s: give one of them another port or address", a, all[j].From)
			}
		}
	}
}

// overlap reports whether two sockets would be in each other's way.
func overlap(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() || !a.IsValid() || !b.IsValid() || a.Addr().Is4() != b.Addr().Is4() {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

func isWildcard(a node.Address) bool { return a.Addr().IsUnspecified() }

// checkSecrets reads the keys.
func (f *File) checkSecrets() {
	t := &f.node.TURN
	t.Deployment = f.secret("turn.deployment_secret_file", f.deploymentSecret)
	f.node.Proxy.FlowKey = f.secret("proxy.flow_key_file", f.flowKey)
	now, signing := time.Now(), false
	for _, k := range f.keys {
		s, err := node.ReadSecret(f.path(k.file))
		if err != nil {
			f.faults = append(f.faults, k.at.faultf("file: %v", err))
			continue
		}
		k.Secret = s
		t.Keys = append(t.Keys, k.Key)
		signing = signing || !now.Before(k.NotBefore) && (k.NotAfter.IsZero() || now.Before(k.NotAfter))
	}
	switch {
	case t.Approach != turncred.ApproachSharedKey || f.store.Kind != node.StoreMemory: // the ring has some
	case len(f.keys) == 0:
		f.addAt("keys", "is missing, and turn.approach is shared-key: write an item with kid and file, such as - {kid: k1, file: secrets/k1.key}")
	case !signing && len(t.Keys) == len(f.keys):
		f.addAt("keys", "no key is valid now: see not_before and not_after")
	}
}

// secret reads the file of a key; a name that is empty is no mistake here.
func (f *File) secret(key, name string) turncred.Secret {
	if name == "" {
		return turncred.Secret{}
	}
	s, err := node.ReadSecret(f.path(name))
	if err != nil {
		f.addAt(key, "%v", err)
	}
	return s
}

// checkCertificates reads the certificates, and whether turns has the right one.
func (f *File) checkCertificates() {
	f.node.Certificate = f.certificate("proxy.tls", f.proxyTLS)
	if !f.relayOn || len(f.relay.TLS) == 0 {
		return
	}
	where := "relay.tls"
	if f.relayTLS == (pairFiles{}) {
		f.relay.Certificate, where = f.node.Certificate, "proxy.tls"
	} else {
		f.relay.Certificate = f.certificate("relay.tls", f.relayTLS)
	}
	if f.relay.Certificate == nil {
		return
	}
	hosts := map[string]bool{}
	for _, uri := range f.node.TURN.URIs {
		if u, err := splitTURNURI(uri); err == nil && u.secure {
			hosts[u.host] = true
		}
	}
	if len(f.node.TURN.URIs) == 0 {
		for _, a := range f.relay.TLS {
			if hosts[f.relay.PublicName] = true; f.relay.PublicName == "" {
				delete(hosts, "")
				hosts[a.Addr().String()] = true
			}
		}
	}
	for h := range hosts {
		if f.relay.Certificate.Leaf().VerifyHostname(h) != nil {
			f.addAt(where+".cert_file", "the certificate is not for %s, which WICs get in their turns: URI: no browser would connect. Have one made for that name, or give the name that it has as relay.public_name", h)
		}
	}
}

func (f *File) certificate(section string, files pairFiles) *node.Certificate {
	if files.cert == "" || files.key == "" {
		if files != (pairFiles{}) {
			f.addAt(section, "want cert_file and key_file, both")
		}
		return nil
	}
	missing := false
	for word, name := range map[string]string{"cert_file": files.cert, "key_file": files.key} {
		if _, err := os.Stat(f.path(name)); err != nil {
			f.addAt(section+"."+word, "%v", node.FileError(f.path(name), err))
			missing = true
		}
	}
	if missing {
		return nil
	}
	c, err := node.LoadCertificate(f.path(files.cert), f.path(files.key), time.Now())
	if err != nil {
		which := ".cert_file"
		if strings.HasPrefix(err.Error(), f.path(files.key)+":") {
			which = ".key_file"
		}
		f.addAt(section+which, "%v", err)
		return nil
	}
	if c.ExpiresSoon(time.Now()) {
		f.note(section + ": the certificate expires on " + c.Leaf().NotAfter.UTC().Format(time.DateTime))
	}
	return c
}

func (f *File) note(s string) { f.notes = append(f.notes, s) }

// from is what an error about a socket names.
func from(file string, line int, key string) string {
	if file == "" { // a default
		return key
	}
	return fmt.Sprintf("%s:%d: %s", file, line, key)
}

// keyOf reads the key back.
func keyOf(a node.Address) string { return a.From[strings.LastIndexByte(a.From, ' ')+1:] }
