package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"epcscf/cmd/internal/node"
	"epcscf/turncred/push"
)

// checkFleet is relays in processes of their own.
func (f *File) checkFleet() {
	if len(f.node.TURN.URIs) > 0 {
		f.addAt("turn.uris", "is of no use beside turn.relays: each relay has its own uris there")
	}
	f.checkRelays()
	f.fleet.Registry = f.registry
	if n := len(f.fleet.Relays); f.fleet.Spare >= n && !f.registry {
		f.addAt("turn.spare", "%d beyond the chosen relay, and turn.relays has %d: want %d or fewer", f.fleet.Spare, n, n-1)
	}
	f.fleet.Interface = f.place
	if f.fleet.Domain == "" {
		f.fleet.Domain = f.node.Proxy.Domain
	}
	if f.registry || slices.ContainsFunc(f.relayItems, func(r relayItem) bool { return !r.foreign }) {
		f.checkPlace("turn.interface", &f.fleet.Interface, f.placeFiles(), push.RoleEdge)
	} else {
		f.checkStateDir("turn.interface.state_dir", &f.fleet.Interface)
	}
	f.node.Fleet = &f.fleet
}

// checkHearing is where WAFs elsewhere reach the edge.
func (f *File) checkHearing() {
	h := &f.hearing
	if !h.Listen.IsValid() {
		return
	}
	if f.node.Bearer == nil {
		f.addAt("turn.interface.listen", "is for revoked tokens, and none are taken: write proxy.bearer.issuer, or leave it out")
	}
	if h.Interface = f.fleet.Interface; h.Certificate == nil { // or else turn.relays has wanted it, and it is checked
		h.Interface = f.place
		if h.Domain == "" {
			h.Domain = f.node.Proxy.Domain
		}
		f.checkPlace("turn.interface", &h.Interface, f.placeFiles(), push.RoleEdge)
	}
	f.node.Hearing = h
}

// placeFiles are what a place at the credential interface names.
type placeFiles struct {
	pair pairFiles
	ca   string
}

func (f *File) placeFiles() placeFiles { return placeFiles{f.interfaceTLS, f.interfaceCA} }

// checkPlace is a node's place at the credential interface, whose keys stand in section.
func (f *File) checkPlace(section string, i *node.Interface, files placeFiles, role push.Role) {
	const remedy = "epcscf pki makes a certificate and says what to write here"
	for _, k := range []struct{ word, value string }{{"name", i.Name}, {"cert_file", files.pair.cert}, {"key_file", files.pair.key}, {"ca_file", files.ca}} {
		if _, there := f.at[section+"."+k.word]; k.value == "" && (there || role != push.RoleRelay) {
			f.addAt(section+"."+k.word, "is not set: %s", remedy)
		}
	}
	if i.Name != "" && push.CheckPeerName(i.Name) != nil {
		f.addAt(section+".name", "%v", push.CheckPeerName(i.Name))
		return
	}
	i.Certificate = f.certificate(section, files.pair)
	if files.ca != "" {
		var err error
		if i.Authorities, err = node.LoadAuthorities(f.path(files.ca)); err != nil {
			f.addAt(section+".ca_file", "%v", err)
		}
	}
	if i.Certificate != nil && i.Name != "" && i.Domain != "" {
		if err := i.CheckCertificate(role); err != nil {
			f.addAt(section+".cert_file", "%v", err)
		}
	}
	f.checkStateDir(section+".state_dir", i)
}

// checkStateDir looks for the folder above, in which the start makes the directory.
func (f *File) checkStateDir(key string, i *node.Interface) {
	i.From = key
	if p, ok := f.at[key]; ok {
		i.From = from(f.Name, p.line, key)
	}
	if i.StateDir == "" {
		f.addAt(key, "is empty: name a directory, such as state")
		return
	}
	i.StateDir = f.path(i.StateDir)
	st, err := os.Stat(i.StateDir)
	if err == nil && !st.IsDir() {
		f.addAt(key, "%s is no directory", i.StateDir)
	}
	if err != nil {
		if above, err := os.Stat(filepath.Dir(i.StateDir)); err != nil || !above.IsDir() {
			f.addAt(key, "%s is no directory: make it, and let this user write in it", filepath.Dir(i.StateDir))
		}
	}
}

// checkRelayNode is the file of a relay by itself.
func (f *File) checkRelayNode() {
	f.checkMissing()
	f.checkRelayAddresses()
	f.checkSecrets()
	n := &f.relayNode
	f.checkTokens(n.TokenKeys != "")
	n.Relay, n.TURN, n.Admin = &f.relay, f.node.TURN, f.node.Admin
	n.WaitForEdge = f.startAlone == "wait"
	n.Interface = f.place
	if n.Interface.Domain == "" {
		n.Interface.Domain = string(n.TURN.Realm)
	}
	f.checkPlace("interface", &n.Interface, f.placeFiles(), push.RoleRelay)
	f.checkStore()
	f.checkRelayRing()
	if len(f.relay.TLS) > 0 {
		if f.relayTLS == (pairFiles{}) {
			f.addAt("relay.tls", "is missing, and relay.listen.tls has an address: write cert_file and key_file")
		}
		f.relay.Certificate = f.certificate("relay.tls", f.relayTLS)
	}
	f.checkTokenKeysURL()
	tcp := append([]node.Address{n.Listen, n.Admin}, append(f.relay.TCP, f.relay.TLS...)...)
	f.checkOverlaps(tcp, f.relay.UDP)
	if len(f.faults) > 0 {
		return
	}
	if err := node.CheckRelay(f.relayNode); err != nil {
		f.faults = append(f.faults, Fault{File: f.Name, Text: err.Error()})
	}
}

// LoadRelay reads and checks the file of a relay by itself, and all that it names. The
// error is Faults.
func LoadRelay(name string) (*File, error) { return load(name, "", &relayForm) }

// Relay is what the file of a relay asks of a node. Logger is the caller's to set.
func (f *File) Relay() node.RelayConfig { return f.relayNode }

// notGiven reports whether the file has no key of a section.
func (f *File) notGiven(section string) bool {
	for name := range f.at {
		if strings.HasPrefix(name, section+".") {
			return false
		}
	}
	return true
}
