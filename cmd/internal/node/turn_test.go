package node

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/turncred"
	"epcscf/turncred/sharedkey"
)

func testSecret(c string) turncred.Secret { return turncred.NewSecret([]byte(strings.Repeat(c, 32))) }

func testTURN(t *testing.T, relay *Relay) *turnSide {
	t.Helper()
	return newTestTURN(t, testConfig(relay))
}

func testConfig(relay *Relay) Config {
	return Config{
		TURN: TURN{
			Approach: turncred.ApproachSharedKey, Realm: "ims.test", MaxTTL: time.Minute, URIs: []string{"turn:192.0.2.1"},
			Deployment: testSecret("d"), Keys: []turncred.Key{{ID: "k1", Secret: testSecret("1")}},
		},
		Relay: relay, Logger: slog.New(slog.DiscardHandler),
	}
}

func newTestTURN(t *testing.T, cfg Config) *turnSide {
	t.Helper()
	side, err := newTURNSide(cfg, Addresses{TURNUDP: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3478")}}, nil, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = side.close() })
	return side
}

// What was made before the approach or the keys changed stays good, while its key is there.
func TestCredentialsSurviveAReload(t *testing.T) {
	side := testTURN(t, &Relay{})
	provision := func() turncred.Credential {
		t.Helper()
		c, err := side.Provision(t.Context(), turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	good := func(c turncred.Credential) bool {
		p, err := side.Authenticate(c.Username, time.Now())
		return err == nil && p.Key.Equal(turncred.NewLongTermKey(c.Username, c.Realm, c.Password))
	}
	both := []turncred.Key{{ID: "k1", Secret: testSecret("1")}, {ID: "k2", Secret: testSecret("2"), NotBefore: time.Now().Add(-time.Second)}}
	first := provision()
	for _, step := range []struct {
		approach turncred.Approach
		keys     []turncred.Key
		kid      turncred.KeyID
	}{
		{turncred.ApproachPush, both[:1], "k1"},
		{turncred.ApproachPush, both, "k1"},
		{turncred.ApproachSharedKey, both, "k2"},
	} {
		before := provision()
		if err := side.set(step.approach, step.keys); err != nil {
			t.Fatal(err)
		}
		c := provision()
		if c.Approach != step.approach || c.Tid.KeyID() != step.kid {
			t.Errorf("after a change to %s with %d keys: a credential of %s, kid %s", step.approach, len(step.keys), c.Approach, c.Tid.KeyID())
		}
		if !good(c) || !good(before) || !good(first) {
			t.Errorf("after a change to %s with %d keys: good are the new one %v, the one before %v, the first %v", step.approach, len(step.keys), good(c), good(before), good(first))
		}
	}
	if err := side.set(turncred.ApproachSharedKey, both[1:]); err != nil || good(first) {
		t.Errorf("without its key the first must be refused: %v", err)
	}
	if err := side.set("pull", both); err == nil || side.set(turncred.ApproachSharedKey, nil) == nil {
		t.Error("a change that cannot work is taken")
	}
}

func TestRelayThatIsNotOursHearsNothing(t *testing.T) {
	side := testTURN(t, nil)
	if err := side.set(turncred.ApproachPush, nil); err == nil {
		t.Error("push is taken, though there is nobody to push to")
	}
	if err := side.Revoke(context.Background(), turncred.Scope{IMPI: "alice@ims.test", AllBindings: true}); err != nil {
		t.Errorf("a revocation that nobody hears is no error of the edge: %v", err)
	}
}

func TestTURNURIs(t *testing.T) {
	at := func(s ...string) (all []netip.AddrPort) {
		for _, a := range s {
			all = append(all, netip.MustParseAddrPort(a))
		}
		return all
	}
	listening := Addresses{TURNUDP: at("192.0.2.1:3478", "[2001:db8::1]:3478"), TURNTCP: at("192.0.2.1:3478"), TURNTLS: at("192.0.2.1:443", "[2001:db8::1]:443")}
	for name, want := range map[string][]string{
		"": {
			"turns:192.0.2.1:443?transport=tcp", "turns:[2001:db8::1]:443?transport=tcp",
			"turn:192.0.2.1:3478?transport=udp", "turn:[2001:db8::1]:3478?transport=udp", "turn:192.0.2.1:3478?transport=tcp",
		},
		"turn.test": {"turns:turn.test:443?transport=tcp", "turn:turn.test:3478?transport=udp", "turn:turn.test:3478?transport=tcp"},
	} {
		if got := turnURIs(name, listening); !slices.Equal(got, want) {
			t.Errorf("turnURIs(%q) = %q, want %q", name, got, want)
		}
	}
}

// TURN.Hash is what both sides take.
func TestPasswordHash(t *testing.T) {
	for _, hash := range []sharedkey.Algorithm{"", sharedkey.HMACSHA1, sharedkey.HMACSHA256} {
		cfg := testConfig(&Relay{})
		cfg.TURN.Hash = hash
		side := newTestTURN(t, cfg)
		c, err := side.Provision(t.Context(), turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if want := sharedkey.Password(hash, testSecret("1"), c.Username); !c.Password.Equal(want) {
			t.Errorf("%q: the password is made otherwise", hash)
		}
		p, err := side.Authenticate(c.Username, time.Now())
		if err != nil || !p.Key.Equal(turncred.NewLongTermKey(c.Username, c.Realm, c.Password)) {
			t.Errorf("%q: the relay does not take it: %v", hash, err)
		}
	}
}
