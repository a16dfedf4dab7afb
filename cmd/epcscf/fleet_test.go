package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"epcscf/internal/realpart"
)

// fleet is an edge and two relays, each a process of its own, with certificates of
// epcscf pki.
type fleet struct {
	edge, relay1, relay2 *served
}

func prepareFleet(t *testing.T, approach string) fleet {
	t.Helper()
	dir := t.TempDir()
	at := map[string]string{"relay1": freeAddr(t), "relay2": freeAddr(t)}
	edge := prepare(t, dir, nil, func(yaml string) string {
		relay := yaml[strings.Index(yaml, "relay:"):strings.Index(yaml, "admin:")]
		return strings.NewReplacer(relay, "", "turn: {", fmt.Sprintf(`turn:
  approach: %s
  interface: {name: edge1, cert_file: pki/edge-edge1.pem, key_file: pki/edge-edge1.key, ca_file: pki/ca.pem}
  relays:
    - {name: relay1, address: %q, uris: RELAY1}
    - {name: relay2, address: %q, uris: RELAY2}
  `, approach, at["relay1"], at["relay2"]), "max_ttl: 10m, deployment_secret_file: deployment.key}", "max_ttl: 10m\n  deployment_secret_file: deployment.key").Replace(yaml)
	})
	pki := filepath.Join(dir, "pki")
	epcscf(t, 0, "pki", "init", "--dir", pki, "--domain", "ims.test")
	epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "edge", "--name", "edge1")
	f := fleet{edge: edge}
	for name, to := range map[string]**served{"relay1": &f.relay1, "relay2": &f.relay2} {
		epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "relay", "--name", name, "--ip", "127.0.0.1")
		r := &served{dir: dir, file: filepath.Join(dir, name+".yaml"), admin: freeAddr(t), ca: edge.ca, out: &realpart.Output{}, log: &realpart.Output{}, exit: make(chan int, 1)}
		udp := freeAddr(t)
		r.write(t, name+".yaml", fmt.Sprintf(`interface: {listen: %q, name: %s, cert_file: pki/relay-%s.pem, key_file: pki/relay-%s.key, ca_file: pki/ca.pem, state_dir: state-%s}
turn: {realm: ims.test, deployment_secret_file: deployment.key}
keys: [{kid: k1, file: k1.key}]
relay:
  allow_peers: 127.0.0.0/8
  revocations_file: revocations-%s.db
  listen: {udp: %q}
admin: {listen: %q}
`, at[name], name, name, name, name, name, udp, r.admin))
		edge.edit(t, strings.ToUpper(name), "\"turn:"+udp+"\"")
		*to = r
	}
	return f
}

// metric returns the value of a line of /metrics.
func (s *served) metric(name string) string {
	_, text := s.get("/metrics")
	if m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.*)$`).FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

func (f fleet) bothUp() bool {
	return f.edge.metric(`epcscf_push_relay_up{relay="relay1"}`) == "1" && f.edge.metric(`epcscf_push_relay_up{relay="relay2"}`) == "1"
}

// TestFleet: an edge gives its credentials to a relay in another process. What was promised
// outlives kill -9 of either, and a revocation finds a relay that was away.
func TestFleet(t *testing.T) {
	f := prepareFleet(t, "push")
	kill1, kill2 := f.relay1.spawnAs(t, "relay"), f.relay2.spawnAs(t, "relay")
	killEdge := f.edge.spawn(t)
	f.edge.eventually(t, "both relays answer", f.bothUp)
	if out := f.edge.wic(t, "relay-check"); !strings.Contains(out, `"ok": true`) && !strings.Contains(out, `"ok":true`) {
		t.Errorf("relay-check: %s", out)
	}
	alice := f.edge.staysRegistered(t)
	home, other, kill := f.relay1, f.relay2, kill1
	if f.relay1.metric(`epcscf_push_requests_total{op="put",status="200"}`) == "0" {
		home, other, kill = f.relay2, f.relay1, kill2
	}
	if !home.allocates(t, alice.Username, alice.Password) || other.allocates(t, alice.Username, alice.Password) {
		t.Errorf("the credential is not good at its relay, or at both")
	}
	kill()
	kill = home.spawnAs(t, "relay")
	if !home.allocates(t, alice.Username, alice.Password) {
		t.Error("kill -9 of the relay lost a credential")
	}
	f.edge.eventually(t, "the edge hears of allocations", func() bool {
		_, m := f.edge.get("/metrics")
		return regexp.MustCompile(`epcscf_push_events_total\{relay="relay[12]",type="allocated"\} [1-9]`).MatchString(m)
	})
	kill()
	alice.leave() // the relay cannot hear it
	name := strings.TrimSuffix(filepath.Base(home.file), ".yaml")
	f.edge.eventually(t, "the revocation waits", func() bool { return f.edge.metric(`epcscf_push_revocations_pending{relay="`+name+`"}`) == "1" })
	killEdge()
	f.edge.spawn(t)
	if got := f.edge.metric(`epcscf_push_revocations_pending{relay="` + name + `"}`); got != "1" {
		t.Errorf("after kill -9 of the edge %s revocations wait, want 1", got)
	}
	kill = home.spawnAs(t, "relay")
	f.edge.eventually(t, "the revocation is delivered", func() bool { return f.edge.metric(`epcscf_push_revocations_pending{relay="`+name+`"}`) == "0" })
	kill()
	home.spawnAs(t, "relay")
	if home.allocates(t, alice.Username, alice.Password) {
		t.Error("a revoked credential is good again")
	}
}

// TestFleetSharedKey: the same relays with approach 1, of which none but the revocation is
// written. A drained relay gets nobody new, and certificates change without a restart.
func TestFleetSharedKey(t *testing.T) {
	f := prepareFleet(t, "shared-key")
	f.relay1.spawnAs(t, "relay")
	f.relay2.spawnAs(t, "relay")
	f.edge.edit(t, "name: relay1, ", "name: relay1, weight: 0, ")
	f.edge.spawn(t)
	f.edge.eventually(t, "both relays answer", f.bothUp)
	uri := "turn:127.0.0.1:" + f.relay2.relayPort(t, "udp")
	if out := f.edge.wic(t, "relay-check"); !strings.Contains(out, uri) || strings.Contains(out, f.relay1.relayPort(t, "udp")) {
		t.Errorf("relay-check with a drained relay: %s", out)
	}
	before := f.relay2.metric(`epcscf_relay_revocations_total`)
	alice := f.edge.staysRegistered(t)
	if !f.relay2.allocates(t, alice.Username, alice.Password) {
		t.Error("the credential is not good")
	}
	alice.leave()
	f.edge.eventually(t, "the relay hears of it", func() bool { return f.relay2.metric(`epcscf_relay_revocations_total`) != before })
	if f.relay2.allocates(t, alice.Username, alice.Password) || f.relay1.allocates(t, alice.Username, alice.Password) {
		t.Error("the credential is good after the user has left")
	}
	pki := filepath.Join(f.edge.dir, "pki")
	epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "edge", "--name", "edge1", "--renew")
	epcscf(t, 0, "pki", "issue", "--dir", pki, "--role", "relay", "--name", "relay2", "--ip", "127.0.0.1", "--renew")
	for _, s := range []*served{f.edge, f.relay2} {
		s.eventually(t, "the certificate is renewed", func() bool { return strings.Contains(s.log.String(), "certificate renewed") })
	}
	f.edge.wic(t, "relay-check")
	if !f.bothUp() {
		t.Error("a relay does not answer with the renewed certificate")
	}
}

// TestRelayWaitsForAnEdge: with start_alone: wait no client is served before an edge has
// spoken. SIGTERM ends with 0.
func TestRelayWaitsForAnEdge(t *testing.T) {
	f := prepareFleet(t, "push")
	f.relay1.edit(t, "relay:\n", "relay:\n  start_alone: wait\n")
	ctx, term := context.WithCancel(context.Background())
	f.relay1.term = term
	go func() { f.relay1.exit <- run(ctx, []string{"relay", "-c", f.relay1.file}, f.relay1.out, f.relay1.log) }()
	t.Cleanup(func() { f.relay1.end(t) })
	f.relay1.eventually(t, "it waits", func() bool {
		status, _ := f.relay1.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(f.relay1.log.String(), "waiting for an edge")
	})
	f.edge.spawn(t)
	f.relay1.eventually(t, "it is ready", f.relay1.ready)
	if code := f.relay1.end(t); code != 0 {
		t.Errorf("SIGTERM ends with %d\n%s", code, f.relay1.log)
	}
}

// TestRelayCommand: mistakes end with 2 and say where they are.
func TestRelayCommand(t *testing.T) {
	f := prepareFleet(t, "push")
	f.relay1.edit(t, "realm: ims.test, ", "")
	out := epcscf(t, 2, "relay", "-c", f.relay1.file)
	if !strings.Contains(out, "relay1.yaml:2:1: turn.realm: is missing") || strings.Count(out, "\n") != 1 {
		t.Errorf("relay without a realm: %s", out)
	}
	if out := epcscf(t, 2, "check", "--relay", "-c", f.edge.file); !strings.Contains(out, `there is no key proxy: "epcscf config --relay" prints all`) {
		t.Errorf("check --relay of an edge's file: %s", out)
	}
	if out := epcscf(t, 0, "check", "-c", f.edge.file); !strings.HasSuffix(out, "epcscf.yaml: ok\n") {
		t.Errorf("check: %s", out)
	}
	if out := epcscf(t, 0, "check", "--relay", "-c", f.relay2.file); !strings.HasSuffix(out, "relay2.yaml: ok\n") {
		t.Errorf("check --relay: %s", out)
	}
}
