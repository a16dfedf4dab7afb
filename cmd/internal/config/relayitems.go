package config

import (
	"net"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"epcscf/cmd/internal/node"
	"epcscf/store/coturn"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

// relayItems are the keys of an item of turn.relays.
var relayItems = []itemKey{
	{"name", "relay1", "Its name: small letters, digits and hyphens. The choice of a user's relay goes by it."},
	{"kind", "relay", "What it is: relay, one of ours, or coturn. The latter has none of address and server_name, and the three keys at the end."},
	{"address", "relay1.ims.example:8443", "Its credential interface: HOST:PORT."},
	{"server_name", "relay1.ims.example", "What its certificate is for; without it, the host of address."},
	{"uris", "[\"turns:relay1.ims.example:443?transport=tcp\", \"turn:relay1.ims.example:3478?transport=udp\"]", "TURN URIs for WICs, turns: first."},
	{"weight", "100", "Its share of the users; 0 drains it. SIGHUP takes a change of it, a restart takes the rest."},
	{"region", `""`, "Where it is; relays of turn.region come first."},
	{"database_url_file", "secrets/coturn.url", "Of a coturn: the connection string of its PostgreSQL database (psql-userdb), in a file of mode 0600. Without it approach push fails, and keys are changed in coturn's own file."},
	{"admin", "10.0.0.8:5766", "Of a coturn: its admin interface (cli-ip, cli-port). Without it a revocation ends no live session."},
	{"admin_password_file", "secrets/coturn-admin.pw", "Of a coturn: its cli-password, in a file of mode 0600."},
}

// relayItem is an item of turn.relays, before its files are read.
type relayItem struct {
	node.FleetRelay
	foreign                    bool // a coturn
	databaseURL, adminPassword string
	admin                      string
	at                         value // where it stands
}

// setRelays reads turn.relays.
func setRelays(f *File, v value) error {
	if _, ok := v.node.(*ast.SequenceNode); !ok {
		return v.faultf("want a list of relays, each with name, address and uris, got %s", v.describe())
	}
	f.relayItems = nil
	for _, item := range v.list() {
		r, err := parseRelay(item)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(f.relayItems, func(o relayItem) bool { return o.Name == r.Name }) {
			return item.faultf("name %s is there twice: each relay has a name of its own", r.Name)
		}
		f.relayItems = append(f.relayItems, r)
	}
	return nil
}

func parseRelay(v value) (relayItem, error) {
	r := relayItem{at: v}
	r.Weight = 100
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		return r, v.faultf("want name, address and uris, got %s", v.describe())
	}
	for _, entry := range m.Values {
		word := entry.Key.GetToken().Value
		if err := r.set(word, value{file: v.file, key: v.key + "." + word, node: entry.Value, example: relayExample(word)}); err != nil {
			return r, err
		}
	}
	return r, r.check()
}

// check reports what does not go together.
func (r *relayItem) check() error {
	v := r.at
	switch {
	case r.foreign && (r.Name == "" || len(r.URIs) == 0):
		return v.faultf("want name and uris of a coturn, such as name: coturn1 and uris: turn:coturn1.ims.example:3478?transport=udp")
	case r.foreign && (r.Address != "" || r.ServerName != ""):
		return v.faultf("a coturn has no credential interface: leave address and server_name out")
	case r.foreign && (r.admin == "") != (r.adminPassword == ""):
		return v.faultf("admin and admin_password_file stand together: coturn's admin interface wants cli-password")
	case !r.foreign && (r.databaseURL != "" || r.admin != "" || r.adminPassword != ""):
		return v.faultf("database_url_file, admin and admin_password_file are a coturn's: write kind: coturn")
	case !r.foreign && (r.Name == "" || r.Address == "" || len(r.URIs) == 0):
		return v.faultf("want name, address and uris in each item, such as name: relay1, address: relay1.ims.example:8443 and uris: turns:relay1.ims.example:443?transport=tcp")
	}
	return nil
}

func relayExample(word string) string {
	for _, i := range relayItems {
		if i.name == word && word != "uris" {
			return i.value
		}
	}
	return ""
}

func (r *relayItem) set(word string, v value) (err error) {
	switch word {
	case "name":
		if r.Name, err = v.text("a name"); err == nil && push.CheckPeerName(r.Name) != nil {
			return v.want("small letters, digits and hyphens")
		}
	case "kind":
		var kind string
		kind, err = v.text("relay or coturn")
		if r.foreign = kind == "coturn"; err == nil && kind != "coturn" && kind != "relay" {
			return v.want("relay or coturn")
		}
	case "address":
		r.Address, err = hostPort(v)
	case "admin":
		r.admin, err = hostPort(v)
	case "admin_password_file":
		r.adminPassword, err = v.text("a file's name")
	case "database_url_file":
		r.databaseURL, err = v.text("a file's name")
	case "server_name":
		r.ServerName, err = hostName(v)
	case "uris":
		for _, item := range v.list() {
			uri, err := parseTURNURI(item)
			if err != nil {
				return err
			}
			r.URIs = append(r.URIs, uri)
		}
	case "weight":
		w, err := v.integer(0, 1_000_000)
		r.Weight = int(w)
		return err
	case "region":
		r.Region, err = v.text("a name")
	default:
		return unknownItem(relayItems, word, v)
	}
	return err
}

// hostName reads a host's name or address, or "".
func hostName(v value) (string, error) {
	s, err := v.text("a host name")
	if err == nil && s != "" && node.CheckDomain(s) != nil && net.ParseIP(s) == nil {
		return "", v.want("a host name")
	}
	return s, err
}

// hostPort reads HOST:PORT.
func hostPort(v value) (string, error) {
	const what = "HOST:PORT"
	s, err := v.text(what)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || n == 0 || host == "" || node.CheckDomain(host) != nil && net.ParseIP(host) == nil {
		return "", v.want(what)
	}
	return s, nil
}

// checkRelays reads the files that items of turn.relays name.
func (f *File) checkRelays() {
	f.fleet.Relays = nil
	for _, r := range f.relayItems {
		if r.foreign {
			r.Coturn = f.coturn(r)
		}
		f.fleet.Relays = append(f.fleet.Relays, r.FleetRelay)
	}
}

func (f *File) coturn(r relayItem) *node.Coturn {
	c := &node.Coturn{}
	if r.databaseURL != "" {
		url, err := node.ReadDatabaseURL(f.path(r.databaseURL))
		if err == nil {
			err = node.CheckDatabaseURL(url, false)
		}
		if err != nil {
			f.addAt(relaysKey, "relay %s: database_url_file: %v", r.Name, err)
		}
		c.DatabaseURL = turncred.NewSecret([]byte(url))
	} else if f.node.TURN.Approach == turncred.ApproachPush {
		f.addAt(relaysKey, "relay %s: turn.approach push writes credentials into coturn's database: name it as database_url_file, or choose shared-key", r.Name)
	}
	if r.admin != "" {
		password, err := node.ReadPassword(f.path(r.adminPassword))
		if err != nil {
			f.addAt(relaysKey, "relay %s: admin_password_file: %v", r.Name, err)
		}
		c.Admin = &coturn.Admin{Addr: r.admin, Password: password}
	}
	if f.node.TURN.Hash == sharedkey.HMACSHA256 {
		f.addAt("turn.password_hash", "hmac-sha256, and relay %s is a coturn, which knows hmac-sha1 only", r.Name)
	}
	return c
}

// changedBeyondWeights reports whether a restart is needed for what differs.
func (f *File) changedBeyondWeights(old *File) bool {
	return !slices.EqualFunc(f.relayItems, old.relayItems, func(a, b relayItem) bool {
		return a.Name == b.Name && a.foreign == b.foreign && a.Address == b.Address && a.ServerName == b.ServerName && a.Region == b.Region &&
			a.admin == b.admin && a.adminPassword == b.adminPassword && a.databaseURL == b.databaseURL && slices.Equal(a.URIs, b.URIs)
	})
}
