package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

func goodDemo(t *testing.T) Demo {
	t.Helper()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	return Demo{
		Listen: any, TURNListen: any, TURNSListen: any, AdminListen: any, CoreListen: any,
		Domain: "ims.test", Approach: turncred.ApproachSharedKey, TTL: time.Minute, DataDir: t.TempDir(),
	}
}

func TestConfigErrorsNameTheFlagAndSayWhatWouldBeRight(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Demo)
		want   []string
	}{
		{"no address", func(d *Demo) { d.TURNSListen = netip.AddrPort{} }, []string{"--turns-listen"}},
		{"unspecified address", func(d *Demo) { d.Listen = netip.MustParseAddrPort("0.0.0.0:8443") }, []string{"--listen 0.0.0.0:8443", "127.0.0.1:8443"}},
		{"admin in the open", func(d *Demo) { d.AdminListen = netip.MustParseAddrPort("192.0.2.1:9090") }, []string{"--admin-listen", "loopback", "127.0.0.1:9090"}},
		{"domain with a space", func(d *Demo) { d.Domain = "ims test" }, []string{"--domain", "ims.test"}},
		{"domain with a line end", func(d *Demo) { d.Domain = "ims.test\r\nX: y" }, []string{"--domain"}},
		{"unknown approach", func(d *Demo) { d.Approach = "pull" }, []string{"--turn-approach", "pull", "shared-key", "push"}},
		{"ttl too short", func(d *Demo) { d.TTL = time.Second }, []string{"--ttl 1s", "5s", "24h"}},
		{"no data directory", func(d *Demo) { d.DataDir = "" }, []string{"--data-dir"}},
	} {
		d := goodDemo(t)
		tt.change(&d)
		_, err := ListenDemo(d)
		if bad := new(ConfigError); !errors.As(err, &bad) {
			t.Errorf("%s: ListenDemo = %v, want a ConfigError", tt.name, err)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", tt.name, err, w)
			}
		}
	}
}

func TestValidDomain(t *testing.T) {
	for domain, want := range map[string]bool{
		"ims.test": true, "ims.mnc001.mcc001.3gppnetwork.org": true, "a-b.c": true, "localhost": true,
		"": false, ".": false, "a..b": false, "-a.b": false, "a-.b": false, "a.b-": false, "a.": false, "a;b": false, "ä.test": false,
	} {
		if got := validDomain(domain); got != want {
			t.Errorf("validDomain(%q) = %v, want %v", domain, got, want)
		}
	}
}

func TestOriginsOfTheDefaultPortHaveNone(t *testing.T) {
	got := strings.Join(Info{Page: "https://127.0.0.1:443/"}.origins(), " ")
	for _, want := range []string{"https://127.0.0.1:443", "https://localhost:443", "https://localhost", "https://127.0.0.1"} {
		if !strings.Contains(" "+got+" ", " "+want+" ") {
			t.Errorf("origins = %q, want %q among them", got, want)
		}
	}
}
