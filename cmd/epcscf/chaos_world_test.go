package main

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"epcscf/cmd/internal/testpki"
	"epcscf/internal/realpart"
	"epcscf/store/postgres/pgtest"
)

// chaosWorld is two edges, two relays and a database, each a process of its own:
//
//	WICs --wss--> edge1 --cable--> relay1, relay2
//	     --wss--> edge2 ---------> relay1, relay2
//	              all   ---------> PostgreSQL
//
// A cable is a proxy that can lose, delay and cut what goes through it.
type chaosWorld struct {
	*chaosLoad
	ca       *testpki.CA
	dir      string
	db       *pgtest.Cluster
	database string
	cables   [2]*toxiproxy.Proxy
}

// startChaosWorld starts all processes. Flows that are lost count as such for grace, and
// the processes log from a level up.
func startChaosWorld(t *testing.T, grace time.Duration, level string) *chaosWorld {
	t.Helper()
	dir := t.TempDir()
	w := &chaosWorld{chaosLoad: &chaosLoad{sample: make(chan *handedOut, 8)}, dir: dir, db: pgtest.Start(t)}
	w.ca = testpki.NewCA(t, dir)
	w.ca.Issue(t, dir, "edge", time.Now().Add(90*24*time.Hour), "127.0.0.1")
	pem, err := os.ReadFile(w.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(pem)
	w.database = w.db.Database(t)
	files := &served{dir: dir}
	files.write(t, "database.url", w.db.TLSURL(w.database))
	files.write(t, "deployment.key", strings.Repeat("d", 32))
	files.write(t, "kek.key", strings.Repeat("e", 32))
	files.write(t, "k1.key", strings.Repeat("k", 32))
	files.write(t, "t1.key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("t", 32))))
	epcscf(t, 0, "migrate", "up", "--database-url-file", filepath.Join(dir, "database.url"))
	epcscf(t, 0, "pki", "init", "--dir", filepath.Join(dir, "pki"), "--domain", "ims.test")

	core := startQuickCore(t)
	var at [2]string
	for i := range w.relays {
		w.relays[i], at[i] = w.newRelay(t, fmt.Sprintf("relay%d", i+1), level)
		w.relays[i].start(t, "relay")
		w.cables[i] = newCable(t, at[i])
	}
	for i := range w.edges {
		to := at
		if i == 0 {
			to = [2]string{w.cables[0].Listen, w.cables[1].Listen}
		}
		w.edges[i] = w.newEdge(t, fmt.Sprintf("edge%d", i+1), level, core, grace, to)
		w.edges[i].start(t, "serve")
	}
	for _, e := range w.edges {
		e.eventually(t, "both relays answer", func() bool { return fleet{edge: e.served}.bothUp() })
	}
	return w
}

func newCable(t *testing.T, to string) *toxiproxy.Proxy {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), to, "127.0.0.1:0", to)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func (w *chaosWorld) newNode(t *testing.T, role, name, yaml string) *chaosNode {
	t.Helper()
	args := []string{"pki", "issue", "--dir", filepath.Join(w.dir, "pki"), "--role", role, "--name", name}
	if role == "relay" {
		args = append(args, "--ip", "127.0.0.1")
	}
	epcscf(t, 0, args...)
	n := &chaosNode{served: &served{
		dir: w.dir, file: filepath.Join(w.dir, name+".yaml"), admin: freeAddr(t), ca: w.ca, out: &realpart.Output{}, log: &realpart.Output{}, exit: make(chan int, 1),
	}}
	n.write(t, name+".yaml", strings.NewReplacer("NAME", name, "ADMIN", n.admin).Replace(yaml))
	return n
}

func (w *chaosWorld) newRelay(t *testing.T, name, level string) (n *chaosNode, at string) {
	t.Helper()
	at, turn := freeAddr(t), freeAddr(t)
	n = w.newNode(t, "relay", name, fmt.Sprintf(`interface: {listen: %q, name: NAME, cert_file: pki/relay-NAME.pem, key_file: pki/relay-NAME.key, ca_file: pki/ca.pem, state_dir: state-NAME}
turn: {realm: ims.test, deployment_secret_file: deployment.key}
keys: [{kid: k1, file: k1.key}]
tokens: {server_name: turn.ims.test, keys: [{kid: t1, file: t1.key}]}
relay: {revocations_file: revocations-NAME.db, listen: {udp: %q, tcp: %q}}
store: {kind: postgres, database_url_file: database.url, kek_file: kek.key}
admin: {listen: ADMIN}
log: {level: %s}
`, at, turn, turn, level))
	n.turnAddr = turn
	return n, at
}

func (w *chaosWorld) newEdge(t *testing.T, name, level, core string, grace time.Duration, relays [2]string) *chaosNode {
	t.Helper()
	web, login := freeAddr(t), freeAddr(t)
	yaml := `turn:
  approach: push
  deployment_secret_file: deployment.key
  max_ttl: 10m
  interface: {name: NAME, cert_file: pki/edge-NAME.pem, key_file: pki/edge-NAME.key, ca_file: pki/ca.pem, state_dir: state-NAME}
  relays:
`
	for i, r := range w.relays {
		yaml += fmt.Sprintf("    - {name: relay%d, address: %q, uris: [\"turn:%s?transport=udp\", \"turn:%s?transport=tcp\"]}\n", i+1, relays[i], r.turnAddr, r.turnAddr)
	}
	n := w.newNode(t, "edge", name, yaml+fmt.Sprintf(`proxy: {domain: ims.test, listen: %q, origins: "%s", allow_no_origin: true, reg_event: false, flow_grace: %s, tls: {cert_file: edge.pem, key_file: edge.key}}
core: {listen: %q, next_hops: "udp:%s"}
store: {kind: postgres, database_url_file: database.url, kek_file: kek.key}
waf: {enabled: true, listen: %q, issuer: "https://%s"}
tokens: {server_name: turn.ims.test, keys: [{kid: t1, file: t1.key}]}
admin: {listen: ADMIN}
log: {level: %s}
`, web, serveOrigin, grace, freeAddr(t), core, login, login, level))
	n.web, n.login = web, login
	return n
}

func (n *chaosNode) start(t *testing.T, command string) {
	t.Helper()
	n.proc = n.spawnProcess(t, command)
	n.up.Store(true)
}

// poison adds a fault to both cables, and returns what takes it away.
func (w *chaosWorld) poison(t *testing.T, toxic string) (cure func()) {
	t.Helper()
	var cures []func()
	for _, c := range w.cables {
		added, err := c.Toxics.AddToxicJson(strings.NewReader(toxic))
		if err != nil {
			t.Fatalf("%s: %v", toxic, err)
		}
		cures = append(cures, func() {
			if err := c.Toxics.RemoveToxic(t.Context(), added.Name); err != nil {
				t.Errorf("%s: %v", toxic, err)
			}
		})
	}
	return func() {
		for _, c := range cures {
			c()
		}
	}
}
