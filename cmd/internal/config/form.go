package config

import (
	"slices"
	"strings"

	"epcscf/cmd/internal/node"
)

// form is what one kind of file may hold.
type form struct {
	print    string // what prints it
	check    string // what lists all that is wrong with it
	head     string
	sections []section
	table    []key
	lists    []keyList
}

// serveForm is the file of epcscf serve.
var serveForm = form{
	print: "epcscf config", check: "epcscf check", sections: sections, table: table, lists: keyLists,
	head: `# Configuration of epcscf serve: every key with its default and what it is for.
# "Must be set": the key has no default, the value here is an example.
# "Without it": the value here is an example too; leave the key out for what is said.
# The names of files are relative to this file's folder. epcscf check -c FILE checks all.
`,
}

// relayForm is the file of epcscf relay: what of serveForm is the relay's, and its place at
// the credential interface.
var relayForm = form{
	print: "epcscf config --relay", check: "epcscf check --relay",
	head: `# Configuration of epcscf relay: every key with its default and what it is for.
# "Must be set": the key has no default, the value here is an example.
# "Without it": the value here is an example too; leave the key out for what is said.
# The names of files are relative to this file's folder. epcscf check --relay -c FILE checks all.
`,
	sections: relaySections(), table: relayTable(), lists: keyLists[:2],
}

func relaySections() []section {
	all := []section{{"interface", "The credential interface, at which edges give this relay credentials. epcscf pki makes its certificates."}}
	for _, s := range sections {
		switch root, _, _ := strings.Cut(s.name, "."); {
		case s.name == "turn":
			s.doc = "The TURN credentials that this relay takes."
			all = append(all, s)
		case s.name == "relay":
			s.doc = "The TURN relay."
			all = append(all, s)
		case s.name == "store":
			s.doc = "The store of the edges, whose key ring is taken beside keys and tokens.keys, as it changes: epcscf keys."
			all = append(all, s)
		case slices.Contains([]string{"keys", "tokens", "relay", "admin", "log"}, root):
			all = append(all, s)
		}
	}
	return all
}

// relayOnly are the keys that only a relay's file has.
var relayOnly = []key{
	{name: "interface.listen", value: "10.0.0.6:8443", kind: must, doc: "Where edges reach it, an address of the inner network: IP:PORT.",
		set: address(func(f *File) *node.Address { return &f.relayNode.Listen })},
	{name: "interface.name", value: "relay1", kind: must, doc: "This relay's name, as its certificate has it: small letters, digits and hyphens.",
		set: text("a name", func(f *File) *string { return &f.place.Name })},
	{name: "interface.domain", value: "ims.example", kind: sample, missing: "turn.realm", doc: "The deployment's domain, as all certificates have it.",
		set: domain(func(f *File) *string { return &f.place.Domain })},
	{name: "interface.cert_file", value: "pki/relay-relay1.pem", kind: must, doc: "Its certificate and the chain, PEM. A file that changes is read again, without a drop.",
		set: text("a file name", func(f *File) *string { return &f.interfaceTLS.cert })},
	{name: "interface.key_file", value: "pki/relay-relay1.key", kind: must, doc: "The key, PEM, readable by this user, or by its group, only.",
		set: text("a file name", func(f *File) *string { return &f.interfaceTLS.key })},
	{name: "interface.ca_file", value: "pki/ca.pem", kind: must, doc: "The authorities of the edges' certificates, PEM. While they change, list old and new.",
		set: text("a file name", func(f *File) *string { return &f.interfaceCA })},
	{name: "interface.state_dir", value: "state", doc: "Keeps credentials over a restart; made if missing. What it holds is sealed under a key made of the deployment secret.",
		set: text("a directory", func(f *File) *string { return &f.place.StateDir })},
	{name: "tokens.keys_url", value: `""`, doc: "The WAF that this relay fetches keys of tokens from, beside tokens.keys (RFC 7635 4.1.1): its waf.interface.listen, such as https://waf1.ims.example:8444.",
		set: text("an https URL", func(f *File) *string { return &f.relayNode.TokenKeys })},
	{name: "relay.start_alone", value: "serve", doc: "After a start: serve clients at once, with what was kept, or wait until an edge has spoken.",
		set: choice(func(f *File) *string { return &f.startAlone }, "serve", "wait")},
	{name: "relay.draining", value: "false", onHUP: true, doc: "true: edges give it no new users; who has an allocation or a credential goes on.",
		set: boolean(func(f *File) *bool { return &f.relayNode.Draining })},
}

func relayTable() []key {
	all := slices.Clone(relayOnly)
	for _, k := range table {
		section, _, _ := strings.Cut(k.name, ".")
		switch k.name {
		case "turn.realm":
			k.kind, k.missing, k.doc = must, "", "The realm of TURN, the same as at the edges: their turn.realm, or else their proxy.domain."
		case "turn.max_ttl":
			k.doc = "Longest life of a credential of approach shared-key, as at the edges. 5s to 24h."
		case "turn.deployment_secret_file", "turn.password_hash":
		case "relay.enabled", "relay.public_name", "store.file":
			continue
		case "store.kind":
			k.doc = "The store: memory (none) or postgres (a database; see epcscf migrate)."
		case "relay.tls.cert_file", "relay.tls.key_file":
			k.missing = "no TURN over TLS"
		default:
			if !slices.Contains([]string{"tokens", "relay", "store", "admin", "log"}, section) {
				continue
			}
		}
		all = append(all, k)
	}
	return all
}

func (f *form) isSection(name string) bool {
	return slices.ContainsFunc(f.sections, func(s section) bool { return s.name == name })
}

// list returns the list of items that has a name, or nil.
func (f *form) list(name string) *keyList {
	i := slices.IndexFunc(f.lists, func(l keyList) bool { return l.name == name })
	if i < 0 {
		return nil
	}
	return &f.lists[i]
}

// onHUP reports whether SIGHUP takes a change of a key or list.
func (f *form) onHUP(name string) bool {
	if l := f.list(name); l != nil {
		return !l.fixed
	}
	return slices.ContainsFunc(f.table, func(k key) bool { return k.name == name && k.onHUP })
}
