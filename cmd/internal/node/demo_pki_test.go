package node

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPKIIsKeptAndRenewed(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	load := func(hosts []netip.Addr, at time.Time) *localPKI {
		t.Helper()
		p, err := loadPKI(dir, hosts, at)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := load(local, now)
	if again := load(local, now.Add(24*time.Hour)); again.SPKI != first.SPKI || !bytes.Equal(again.CAPEM, first.CAPEM) {
		t.Error("a restart made another certificate: browsers that trust the first would refuse it")
	}
	if renewed := load(local, now.Add(leafLife-renewBefore+time.Hour)); renewed.SPKI == first.SPKI || !bytes.Equal(renewed.CAPEM, first.CAPEM) {
		t.Error("near its end the leaf must be renewed, under the same CA")
	}
	other := load([]netip.Addr{netip.MustParseAddr("192.0.2.7")}, now)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(other.CAPEM)
	for _, host := range []string{"127.0.0.1", "localhost", "192.0.2.7"} {
		if _, err := other.Leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now}); err != nil {
			t.Errorf("leaf does not verify for %s: %v", host, err)
		}
	}
}

// Who steals the demo's CA key must not be able to speak for the rest of the world.
func TestCACannotSpeakForOtherHosts(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	if _, err := loadPKI(dir, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, now); err != nil {
		t.Fatal(err)
	}
	ca, caPEM, err := loadOrMake(dir, "ca", func(*x509.Certificate) bool { return true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	evil := netip.MustParseAddr("192.0.2.1")
	leaf, _, err := loadOrMake(t.TempDir(), "leaf", nil, leafMaker(ca, []netip.Addr{evil}, now))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: evil.String(), CurrentTime: now}); err == nil {
		t.Error("a leaf for 192.0.2.1 verifies under the CA of 127.0.0.1")
	}
}

func TestSecretsAreKeptAndPrivate(t *testing.T) {
	dir := t.TempDir()
	first, err := loadSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadSecrets(dir)
	if err != nil || !again.km.Equal(first.km) || !again.users["alice"].Equal(first.users["alice"]) {
		t.Fatalf("second load: %v, or other secrets", err)
	}
	if first.users["alice"].Equal(first.users["bob"]) || first.km.Equal(first.deployment) {
		t.Error("two secrets are the same")
	}
	name := filepath.Join(dir, "secrets.json")
	for _, tt := range []struct {
		name   string
		change func() error
		want   string
	}{
		{"readable by others", func() error { return os.Chmod(name, 0o644) }, "chmod 600"},
		{"cut short", func() error { return writeFile(name, []byte(`{"km":`), 0o600) }, "remove the file"},
		{"a user is missing", func() error { return writeFile(name, []byte(`{"km":"x","users":{"alice":"a"}}`), 0o600) }, "no password for bob"},
	} {
		if err := tt.change(); err != nil {
			t.Fatal(err)
		}
		if _, err := loadSecrets(dir); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want the file's name and %q", tt.name, err, tt.want)
		}
	}
}
