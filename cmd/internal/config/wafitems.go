package config

import (
	"slices"

	"github.com/goccy/go-yaml/ast"

	"epcscf/cmd/internal/node"
	"epcscf/turncred/push"
)

// wafNodesKey is the list of nodes that take the WAF's tokens.
const wafNodesKey = "waf.nodes"

// wafNodeItems are the keys of an item of waf.nodes.
var wafNodeItems = []itemKey{
	{"name", "relay1", "Its name, as its certificate has it: small letters, digits and hyphens."},
	{"role", "relay", "relay or edge."},
	{"address", "relay1.ims.example:8443", "Its credential interface: HOST:PORT."},
	{"server_name", "relay1.ims.example", "What its certificate is for; without it, the host of address."},
}

// setWAFNodes reads waf.nodes.
func setWAFNodes(f *File, v value) error {
	if _, ok := v.node.(*ast.SequenceNode); !ok {
		return v.faultf("want a list of nodes, each with name, role and address, got %s", v.describe())
	}
	f.wafPlace.Nodes = nil
	for _, item := range v.list() {
		n, err := parseWAFNode(item)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(f.wafPlace.Nodes, func(o node.WAFNode) bool { return o.Name == n.Name }) {
			return item.faultf("name %s is there twice: each node has a name of its own", n.Name)
		}
		f.wafPlace.Nodes = append(f.wafPlace.Nodes, n)
	}
	return nil
}

func parseWAFNode(v value) (n node.WAFNode, err error) {
	n.Role = push.RoleRelay
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		return n, v.faultf("want name, role and address, got %s", v.describe())
	}
	for _, entry := range m.Values {
		word := entry.Key.GetToken().Value
		field := value{file: v.file, key: v.key + "." + word, node: entry.Value}
		switch word {
		case "name":
			if n.Name, err = field.text("a name"); err == nil && push.CheckPeerName(n.Name) != nil {
				err = field.want("small letters, digits and hyphens")
			}
		case "role":
			var role string
			role, err = field.text("relay or edge")
			if n.Role = push.Role(role); err == nil && n.Role != push.RoleRelay && n.Role != push.RoleEdge {
				err = field.want("relay or edge")
			}
		case "address":
			n.Address, err = hostPort(field)
		case "server_name":
			n.ServerName, err = hostName(field)
		default:
			err = unknownItem(wafNodeItems, word, field)
		}
		if err != nil {
			return n, err
		}
	}
	if n.Name == "" || n.Address == "" {
		return n, v.faultf("want name and address in each item, such as name: relay1 and address: relay1.ims.example:8443")
	}
	return n, nil
}
