package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/turncred/push"
)

// epcscf runs a command that ends by itself.
func epcscf(t *testing.T, want int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out, errOut bytes.Buffer
	if got := run(ctx, args, &out, &errOut); got != want {
		t.Fatalf("epcscf %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, want, &out, &errOut)
	}
	return out.String() + errOut.String()
}

// TestPKI: two commands make mutual TLS, and nothing is overwritten.
func TestPKI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	out := epcscf(t, 0, "pki", "init", "--dir", dir, "--domain", "ims.test")
	if !strings.Contains(out, "stays here") {
		t.Errorf("pki init: %s", out)
	}
	out = epcscf(t, 0, "pki", "issue", "--dir", dir, "--role", "relay", "--name", "relay1", "--dns", "relay1.ims.test", "--ip", "127.0.0.1")
	if !strings.Contains(out, "interface:") || !strings.Contains(out, "--renew --dir "+dir+" --role relay --name relay1 --dns relay1.ims.test --ip 127.0.0.1") {
		t.Errorf("pki issue: %s", out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 4 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", f, st.Mode(), err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "relay-relay1.pem"), filepath.Join(dir, "relay-relay1.key"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := push.PeerOf(pair.Leaf, "ims.test"); err != nil || p.Role != push.RoleRelay || p.Name != "relay1" {
		t.Errorf("PeerOf = %v, %v", p, err)
	}
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("ca.pem: %v", err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "relay1.ims.test"}); err != nil {
		t.Error(err)
	}

	before, err := os.ReadFile(filepath.Join(dir, "relay-relay1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	issue := []string{"pki", "issue", "--dir", dir, "--role", "relay", "--name", "relay1", "--ip", "127.0.0.1"}
	if out := epcscf(t, 2, issue...); !strings.Contains(out, "nothing was overwritten: --renew replaces it") {
		t.Errorf("issue again: %s", out)
	}
	if out := epcscf(t, 2, "pki", "init", "--dir", dir, "--domain", "ims.test"); !strings.Contains(out, "nothing was overwritten") {
		t.Errorf("init again: %s", out)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "relay-relay1.pem")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the certificate changed: %v", err)
	}
	epcscf(t, 0, append(issue, "--renew")...)
	if after, err := os.ReadFile(filepath.Join(dir, "relay-relay1.pem")); err != nil || bytes.Equal(before, after) {
		t.Errorf("the certificate did not change: %v", err)
	}
}

func TestPKIMistakes(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"init"}, "--domain"},
		{[]string{"init", "--domain", "ims test"}, "want a domain name"},
		{[]string{"init", "--domain", "ims.test", "--life", "1h"}, "want 24h or more"},
		{[]string{"issue", "--role", "edge", "--name", "e1", "--dir", dir}, "make one with epcscf pki init"},
		{[]string{"issue", "--role", "admin", "--name", "e1"}, `use "edge", "relay" or "waf"`},
		{[]string{"issue", "--role", "edge", "--name", "Edge_1"}, "small letters"},
		{[]string{"issue", "--role", "relay", "--name", "r1"}, "say how edges reach the relay"},
		{[]string{"issue", "--role", "relay", "--name", "r1", "--ip", "1.2.3"}, "want an IP address"},
		{[]string{"issue", "--role", "relay", "--name", "r1", "--dns", "a b"}, "want a host name"},
		{[]string{"issue", "--role", "edge", "--name", "e1", "--life", "1s"}, "want 1m to"},
	} {
		if out := epcscf(t, 2, append([]string{"pki"}, tt.args...)...); !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("pki %v: %q, want %q in one line", tt.args, out, tt.want)
		}
	}
}
