package push

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"
)

// TestHandshake: TLS 1.3 and a certificate of the authority, or none.
func TestHandshake(t *testing.T) {
	w := startRelay(t, nil)
	foreign, err := NewAuthority(testDomain, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good := keysOf(t, authority(), RoleEdge, "edge1", time.Hour)
	stranger := keysOf(t, foreign, RoleEdge, "edge1", time.Hour)
	stranger.Pool = good.Pool
	expired := keysOf(t, authority(), RoleEdge, "edge1", -time.Minute)
	for _, tt := range []struct {
		name   string
		keys   Keys
		max    uint16
		status int // 0: no handshake
	}{
		{"as it should be", good, 0, http.StatusOK},
		{"TLS 1.2", good, tls.VersionTLS12, 0},
		{"no certificate", &FixedKeys{Pool: good.Pool}, 0, 0},
		{"another authority", stranger, 0, 0},
		{"expired", expired, 0, 0},
		// It is a client where it asks the WAF for keys; here its role may do nothing.
		{"a relay's certificate", keysOf(t, authority(), RoleRelay, "relay1", time.Hour), 0, http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := rawClient(t, tt.keys, &tls.Config{MaxVersion: tt.max}).Get("https://" + w.addr + digestPath + "?expires_after=0")
			if err == nil {
				_ = res.Body.Close()
			}
			if (err == nil) != (tt.status != 0) {
				t.Errorf("error %v, want status %d", err, tt.status)
			}
			if err == nil && (res.StatusCode != tt.status || res.ProtoMajor != 2) {
				t.Errorf("%s %s, want %d", res.Proto, res.Status, tt.status)
			}
		})
	}
}

// TestNoResumption: a session outlives nothing, so a change of the authorities counts at once.
func TestNoResumption(t *testing.T) {
	w := startRelay(t, nil)
	k := keysOf(t, authority(), RoleEdge, "edge1", time.Hour)
	cache := tls.NewLRUClientSessionCache(1)
	for range 3 {
		res, err := rawClient(t, k, &tls.Config{MinVersion: tls.VersionTLS13, ClientSessionCache: cache}).Get("https://" + w.addr + digestPath + "?expires_after=0")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.TLS.DidResume {
			t.Error("a session was resumed")
		}
	}
}

// TestClientWantsARelay: another node of the deployment is no relay, whatever its host.
func TestClientWantsARelay(t *testing.T) {
	for _, role := range []Role{RoleEdge, RoleWAF} {
		cert, key, err := authority().Issue(Peer{testDomain, role, "x"}, []string{"127.0.0.1"}, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		w := startRelay(t, func(c *ServerConfig) { c.Keys = &FixedKeys{Pair: pair, Pool: poolOf(t, authority())} })
		if _, err := w.client(t, RoleEdge, "edge1", 1).Digest(t.Context(), time.Now()); err == nil {
			t.Errorf("a server with the role %s was taken for a relay", role)
		}
	}
}

// TestRenewal: certificates and authorities change under connections that stand.
func TestRenewal(t *testing.T) {
	w := startRelay(t, nil)
	old := keysOf(t, authority(), RoleEdge, "edge1", time.Hour)
	k := changing(old)
	c := w.clientWith(t, k, "edge1", 1)
	ask := func() error { _, err := c.Digest(t.Context(), time.Now()); return err }
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	successor, err := NewAuthority(testDomain, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// First everybody trusts both authorities, then certificates change, then the old goes.
	both := poolOf(t, authority(), successor)
	relayKeys := keysOf(t, successor, RoleRelay, "relay1", time.Hour)
	w.keys.now.Store(&FixedKeys{Pair: w.keys.now.Load().Pair, Pool: both})
	k.now.Store(&FixedKeys{Pair: old.Pair, Pool: both})
	if err := ask(); err != nil {
		t.Errorf("with both authorities: %v", err)
	}
	w.keys.now.Store(&FixedKeys{Pair: relayKeys.Pair, Pool: both})
	stays := w.clientWith(t, &FixedKeys{Pair: old.Pair, Pool: both}, "edge1", 1)
	if _, err := stays.Digest(t.Context(), time.Now()); err != nil {
		t.Errorf("an old certificate while both count: %v", err)
	}
	k.now.Store(&FixedKeys{Pair: keysOf(t, successor, RoleEdge, "edge1", time.Hour).Pair, Pool: both})
	if err := ask(); err != nil {
		t.Errorf("with new certificates: %v", err)
	}
	w.keys.now.Store(&FixedKeys{Pair: relayKeys.Pair, Pool: poolOf(t, successor)})
	if err := ask(); err != nil {
		t.Errorf("without the old authority: %v", err)
	}
	// A connection of the old authority stands, and is told that it counts no more.
	if _, err := stays.Digest(t.Context(), time.Now()); !hasCause(err, CauseCertificate) {
		t.Errorf("an old certificate on a connection that stands: %v", err)
	}
	stays.Close()
	if _, err := stays.Digest(t.Context(), time.Now()); err == nil || hasCause(err, CauseCertificate) {
		t.Errorf("an old certificate on a new connection: %v, want no handshake", err)
	}
}
