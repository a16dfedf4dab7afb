package node

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImportsGoDown holds what the linter holds too, over all that a package pulls in: who
// may know whom, and which library stays in which room.
func TestImportsGoDown(t *testing.T) {
	deps := listDeps(t)
	under := func(pkg string, roots ...string) bool {
		return slices.ContainsFunc(roots, func(r string) bool { return pkg == r || strings.HasPrefix(pkg, r+"/") })
	}
	for _, rule := range []struct {
		importers func(pkg string) bool
		never     []string
		reason    string
	}{
		{func(p string) bool { return under(p, "epcscf/proxy") }, []string{"epcscf/relay", "epcscf/cmd", "epcscf/wic", "github.com/pion"}, "proxy and relay meet at turncred"},
		{func(p string) bool { return under(p, "epcscf/relay") }, []string{"epcscf/proxy", "epcscf/sipext", "epcscf/cmd", "epcscf/wic", "github.com/emiago", "github.com/gorilla", "github.com/pion/turn"}, "the relay knows no SIP"},
		{func(p string) bool { return under(p, "epcscf/turncred") }, []string{"epcscf/proxy", "epcscf/relay", "epcscf/sipext", "epcscf/store", "epcscf/cmd", "epcscf/wic"}, "the vocabulary stands below all"},
		{func(p string) bool { return under(p, "epcscf/turncred") && p != "epcscf/turncred/push" }, []string{"github.com"}, "the vocabulary needs no library; the credential interface counts what it does"},
		{func(p string) bool { return under(p, "epcscf/sipext") }, []string{"epcscf/proxy", "epcscf/relay", "epcscf/turncred", "epcscf/cmd", "epcscf/wic"}, "headers know no one"},
		{func(p string) bool { return p == "epcscf/wic" }, []string{"epcscf/proxy", "epcscf/relay"}, "the page knows the others by their wire"},
		{func(p string) bool { return under(p, "epcscf/cmd/epcscf") }, []string{"github.com/pion/turn", "github.com/pion/dtls/v2"}, "the TURN client and its old DTLS never enter the server"},
	} {
		for pkg, all := range deps {
			if !rule.importers(pkg) {
				continue
			}
			for _, dep := range all {
				if under(dep, rule.never...) {
					t.Errorf("%s pulls in %s: %s", pkg, dep, rule.reason)
				}
			}
		}
	}
	if _, ok := deps["epcscf/cmd/epcscf"]; !ok || len(deps) < 8 {
		t.Fatalf("go list names %d packages: the rules looked at too little", len(deps))
	}
}

// listDeps returns what each of our packages pulls in, tests aside.
func listDeps(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Deps", "epcscf/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Deps       []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return deps
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		if strings.HasPrefix(p.ImportPath, "epcscf/") {
			deps[p.ImportPath] = p.Deps
		}
	}
}
