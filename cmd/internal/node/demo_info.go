package node

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"epcscf/proxy"
	"epcscf/turncred"
)

// User is one who may sign in to a demo.
type User struct {
	User     string `json:"user"`
	Password string `json:"password"`
	IMPU     string `json:"impu"`
}

// Info says where a node listens and who may sign in. It holds passwords: it is for the
// banner and for DIR/demo.json (mode 0600), and never for a log.
type Info struct {
	Page       string            `json:"page"`
	WebSocket  string            `json:"websocket"`
	Domain     string            `json:"domain"`
	Users      []User            `json:"users,omitempty"`
	TURNURIs   []string          `json:"turn_uris"`
	Approach   turncred.Approach `json:"turn_approach"`
	Core       string            `json:"core"`
	CoreListen string            `json:"core_listen"`
	MiniCore   bool              `json:"miniature_core"`
	Admin      string            `json:"admin"`
	CA         string            `json:"ca"`
	SPKI       string            `json:"spki"`
	DataDir    string            `json:"data_dir"`
	// LoopbackOpen says that the relay lets peers on loopback through.
	LoopbackOpen bool `json:"loopback_peers"`

	// WAF is the authorization server's issuer; "" where there is none.
	WAF       string `json:"waf,omitempty"`
	WAFClient string `json:"waf_client,omitempty"` // the page's
	// WAFAccess registers one client more (RFC 7591).
	WAFAccess string `json:"waf_initial_access,omitempty"`
}

func (d *Demo) info(at Addresses, pki *localPKI, sec secrets, next proxy.NextHop) Info {
	i := Info{
		Page: fmt.Sprintf("https://%s/", at.Web[0]), WebSocket: fmt.Sprintf("wss://%s%s", at.Web[0], webSocketPath),
		Domain: d.Domain, Approach: d.Approach,
		Core: next.String(), CoreListen: at.Core.String(), MiniCore: d.Core == nil,
		Admin: fmt.Sprintf("http://%s", at.Admin), CA: pki.CAFile, SPKI: pki.SPKI, DataDir: d.DataDir,
		LoopbackOpen: len(d.openPeers()) > 0,
	}
	if i.MiniCore {
		for _, u := range demoUsers {
			i.Users = append(i.Users, User{User: u, Password: string(sec.users[u].Reveal()), IMPU: "sip:" + u + "@" + d.Domain})
		}
	}
	return i
}

// origins are what a browser that shows the page may call itself.
func (i Info) origins() []string {
	host, port, err := net.SplitHostPort(i.Page[len("https://") : len(i.Page)-1])
	if err != nil {
		panic("node: page address " + i.Page)
	}
	all := []string{"https://" + net.JoinHostPort(host, port)}
	for _, h := range []string{"localhost", "127.0.0.1"} {
		if h != host {
			all = append(all, "https://"+net.JoinHostPort(h, port))
		}
	}
	if port == strconv.Itoa(443) { // a browser leaves the default port out
		for _, o := range all[:len(all):len(all)] {
			all = append(all, o[:len(o)-len(":443")])
		}
	}
	return all
}

// ChromiumCommand starts a browser that trusts the leaf, for the page, wss and turns alike.
// Chromium takes the flag in a fresh profile only.
func (i Info) ChromiumCommand() string {
	return fmt.Sprintf(`chromium --user-data-dir="$(mktemp -d)" --ignore-certificate-errors-spki-list=%s %s`, i.SPKI, i.Page)
}

// WriteFile writes i to DIR/demo.json, mode 0600.
func (i Info) WriteFile() (name string, err error) {
	raw, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return "", err
	}
	name = filepath.Join(i.DataDir, "demo.json")
	return name, writeFile(name, append(raw, '\n'), 0o600)
}
