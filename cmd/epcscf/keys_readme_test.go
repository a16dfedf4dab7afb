package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"epcscf/store/postgres/pgtest"
	"epcscf/turncred"
)

// TestREADMEKeys runs the commands that the README has for keys and relays, on an edge and
// two relays that share a database.
func TestREADMEKeys(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "### Keys\n")
	_, text, _ = strings.Cut(text, "```sh\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("the README has no such commands")
	}
	f := prepareRing(t, pgtest.Start(t), "shared-key")
	f.edge.edit(t, f.edge.relayItem(t, "relay2"), "")
	f.edge.edit(t, "  deployment_secret_file", "  registry: true\n  deployment_secret_file")
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		s.edit(t, "admin:", "tokens: {server_name: turn.ims.test}\nadmin:")
	}
	if err := os.Mkdir(filepath.Join(f.edge.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.edge.writeCommand(t)
	f.edge.write(t, "edge1.yaml", f.edge.text(t))
	f.relay1.spawnAs(t, "relay")
	f.relay2.spawnAs(t, "relay")
	f.edge.spawn(t)
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		s.follows(t)
	}
	old := f.edge.credentialOf(t, "bob") // of k1
	out := shell(t, f.edge.dir, []string{strings.NewReplacer("10.0.0.7:8443", listenOf(t, f.relay2), "203.0.113.7:3478", "127.0.0.1:"+f.relay2.relayPort(t, "udp")).Replace(text)})
	for _, want := range []string{"is current\n", "is retired: what was made with it lives on until", "shared-key k1 is revoked\n", "token t", "relay relay2: drain\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the commands print %q, want %q in it", out, want)
		}
	}
	kid := currentKey(t, f.edge.file)
	a := f.edge.asks(t)
	f.edge.eventually(t, "credentials are made with the new key, at relay1", func() bool {
		cred, err := a.credential()
		return err == nil && string(turncred.Tid(cred.Tid).KeyID()) == kid && len(cred.URIs) == 1 && strings.HasSuffix(cred.URIs[0], f.relay1.relayPort(t, "udp"))
	})
	for _, r := range []*served{f.relay1, f.relay2} {
		r.eventually(t, "k1 is good no more", func() bool { return !r.allocates(t, old.Username, string(old.Password.Reveal())) })
	}
	f.edge.eventually(t, "the registry says which keys relay2 has", func() bool {
		for _, line := range strings.Split(epcscf(t, 0, "relays", "list", "-c", f.edge.file), "\n") {
			if strings.HasPrefix(line, "relay2 ") && strings.Contains(line, kid) && strings.Contains(line, "draining") {
				return true
			}
		}
		return false
	})
}
