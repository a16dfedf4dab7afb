package config

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"epcscf/cmd/internal/node"
	"epcscf/turncred/push"
)

// relayItems are the keys of an item of turn.relays.
var relayItems = []itemKey{
	{"name", "relay1", "Its name: small letters, digits and hyphens. The choice of a user's relay goes by it."},
	{"address", "relay1.ims.example:8443", "Its credential interface: HOST:PORT."},
	{"server_name", "relay1.ims.example", "What its certificate is for; without it, the host of address."},
	{"uris", "[\"turns:relay1.ims.example:443?transport=tcp\", \"turn:relay1.ims.example:3478?transport=udp\"]", "TURN URIs for WICs, turns: first."},
	{"weight", "100", "Its share of the users; 0 drains it. SIGHUP takes a change of it, a restart takes the rest."},
	{"region", `""`, "Where it is; relays of turn.region come first."},
}

// setRelays reads turn.relays.
func setRelays(f *File, v value) error {
	if _, ok := v.node.(*ast.SequenceNode); !ok {
		return v.faultf("want a list of relays, each with name, address and uris, got %s", v.describe())
	}
	f.fleet.Relays = nil
	for _, item := range v.list() {
		r, err := parseRelay(item)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(f.fleet.Relays, func(o push.RelayConfig) bool { return o.Name == r.Name }) {
			return item.faultf("name %s is there twice: each relay has a name of its own", r.Name)
		}
		f.fleet.Relays = append(f.fleet.Relays, r)
	}
	return nil
}

func parseRelay(v value) (push.RelayConfig, error) {
	r := push.RelayConfig{Weight: 100}
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		return r, v.faultf("want name, address and uris, got %s", v.describe())
	}
	for _, entry := range m.Values {
		word := entry.Key.GetToken().Value
		if err := setRelayItem(&r, word, value{file: v.file, key: v.key + "." + word, node: entry.Value, example: relayExample(word)}); err != nil {
			return r, err
		}
	}
	if r.Name == "" || r.Address == "" || len(r.URIs) == 0 {
		return r, v.faultf("want name, address and uris in each item, such as name: relay1, address: relay1.ims.example:8443 and uris: turns:relay1.ims.example:443?transport=tcp")
	}
	return r, nil
}

func relayExample(word string) string {
	for _, i := range relayItems {
		if i.name == word && word != "uris" {
			return i.value
		}
	}
	return ""
}

func setRelayItem(r *push.RelayConfig, word string, v value) (err error) {
	switch word {
	case "name":
		if r.Name, err = v.text("a name"); err == nil && push.CheckPeerName(r.Name) != nil {
			return v.want("small letters, digits and hyphens")
		}
	case "address":
		r.Address, err = hostPort(v)
	case "server_name":
		if r.ServerName, err = v.text("a host name"); err == nil && r.ServerName != "" && node.CheckDomain(r.ServerName) != nil && net.ParseIP(r.ServerName) == nil {
			return v.want("a host name")
		}
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

// changedBeyondWeights reports whether a restart is needed for what differs.
func (f *File) changedBeyondWeights(old *File) bool {
	return !slices.EqualFunc(f.fleet.Relays, old.fleet.Relays, func(a, b push.RelayConfig) bool {
		return a.Name == b.Name && a.Address == b.Address && a.ServerName == b.ServerName && a.Region == b.Region && strings.Join(a.URIs, " ") == strings.Join(b.URIs, " ")
	})
}
