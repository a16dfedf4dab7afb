package node

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
)

func ringSecret(c string) turncred.Secret { return turncred.NewSecret([]byte(strings.Repeat(c, 32))) }

// TestSharedKeys: which key is signed with, and which are known.
func TestSharedKeys(t *testing.T) {
	now := time.Now()
	const ttl = time.Hour
	file := []turncred.Key{{ID: "f1", Secret: ringSecret("f")}}
	key := func(id turncred.KeyID, s store.KeyState, from, until time.Duration) store.Key {
		k := store.Key{Kind: store.KeyShared, ID: id, Secret: ringSecret("s"), State: s}
		if from != 0 {
			k.NotBefore = now.Add(from)
		}
		if until != 0 {
			k.NotAfter = now.Add(until)
		}
		return k
	}
	every := func(turncred.KeyID) (bool, bool) { return true, true }
	for _, tt := range []struct {
		name    string
		ring    []store.Key
		has     func(turncred.KeyID) (bool, bool)
		signing turncred.KeyID
		known   string // the ids, sorted
	}{
		{"no ring", nil, every, "f1", "f1"},
		{"another kind's", []store.Key{{Kind: store.KeyToken, ID: "t1", State: store.KeyCurrent}}, every, "f1", "f1"},
		{"next is known, not signed with", []store.Key{key("a", store.KeyNext, 0, 0)}, every, "f1", "a f1"},
		{"current before the file", []store.Key{key("a", store.KeyCurrent, -time.Minute, 0)}, every, "a", "a f1"},
		{"the younger of two", []store.Key{key("a", store.KeyCurrent, -time.Hour, 0), key("b", store.KeyCurrent, -time.Minute, 0)}, every, "b", "a b f1"},
		{"not yet", []store.Key{key("a", store.KeyCurrent, time.Hour, 0)}, every, "f1", "a f1"},
		{"over", []store.Key{key("a", store.KeyCurrent, 0, -time.Hour)}, every, "f1", "a f1"},
		{"retired is known", []store.Key{key("a", store.KeyRetired, 0, time.Minute), key("b", store.KeyCurrent, 0, 0)}, every, "b", "a b f1"},
		{"and forgotten", []store.Key{key("a", store.KeyRetired, 0, -time.Second), key("b", store.KeyCurrent, 0, 0)}, every, "b", "b f1"},
		{"revoked is unknown", []store.Key{key("a", store.KeyRevoked, 0, time.Hour), key("b", store.KeyCurrent, 0, 0)}, every, "b", "b f1"},
		{"the file's revoked", []store.Key{key("f1", store.KeyRevoked, 0, time.Hour)}, every, "", ""},
		{
			"a relay lacks the current one", []store.Key{key("a", store.KeyRetired, -time.Hour, RetireFor(ttl)), key("b", store.KeyCurrent, -time.Second, 0)},
			func(kid turncred.KeyID) (bool, bool) { return kid == "a", true }, "a", "a b f1",
		},
		{
			"and the one before would not live long enough", []store.Key{key("a", store.KeyRetired, -time.Hour, ttl), key("b", store.KeyCurrent, -time.Second, 0)},
			func(kid turncred.KeyID) (bool, bool) { return kid == "a", true }, "b", "a b f1",
		},
		{
			"some relay has it", []store.Key{key("a", store.KeyCurrent, -time.Second, 0), key("b", store.KeyCurrent, -time.Hour, 0)},
			func(kid turncred.KeyID) (bool, bool) { return false, kid == "b" }, "b", "a b f1",
		},
		{"no relay has any", []store.Key{key("a", store.KeyCurrent, 0, 0)}, func(turncred.KeyID) (bool, bool) { return false, false }, "a", "a f1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := sharedKeys(file, tt.ring, ttl, now, tt.has)
			ring, err := turncred.NewKeyRing(all...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ring.Signing(now)
			if got.ID != tt.signing || (err != nil) != (tt.signing == "") {
				t.Errorf("signs with %q, %v, want %q", got.ID, err, tt.signing)
			}
			if tt.signing != "" && all[0].ID != tt.signing {
				t.Errorf("the first is %s", all[0].ID)
			}
			var ids []string
			for _, k := range all {
				ids = append(ids, string(k.ID))
			}
			slices.Sort(ids)
			if known := strings.Join(ids, " "); known != tt.known {
				t.Errorf("knows %q, want %q", known, tt.known)
			}
		})
	}
	if file[0].NotAfter != (time.Time{}) {
		t.Error("the file's keys were changed")
	}
}

// TestTokenKeys: tokens are made with the ring's key where it has one, and taken with all.
func TestTokenKeys(t *testing.T) {
	now := time.Now()
	file := []token.Key{{ID: "t1", Secret: ringSecret("t")}, {ID: "x1", Secret: ringSecret("x"), Foreign: true}}
	key := func(id turncred.KeyID, s store.KeyState) store.Key {
		return store.Key{Kind: store.KeyToken, ID: id, Secret: ringSecret("s"), Algorithm: "A256GCM", State: s}
	}
	for _, tt := range []struct {
		name   string
		ring   []store.Key
		making string
		known  int
	}{
		{"no ring", nil, "t1", 2},
		{"next", []store.Key{key("a", store.KeyNext)}, "t1", 3},
		{"current", []store.Key{key("a", store.KeyCurrent)}, "a", 3},
		{"retired", []store.Key{key("a", store.KeyRetired), key("b", store.KeyCurrent)}, "b", 4},
		{"revoked", []store.Key{key("t1", store.KeyRevoked), key("b", store.KeyCurrent)}, "b", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := tokenKeys(file, tt.ring, now)
			if _, err := token.NewKeyRing(all...); err != nil || len(all) != tt.known {
				t.Errorf("%d keys, %v, want %d", len(all), err, tt.known)
			}
			var making []string
			for _, k := range all {
				if !k.Foreign && k.NotAfter.IsZero() {
					making = append(making, string(k.ID))
				}
			}
			if strings.Join(making, " ") != tt.making {
				t.Errorf("tokens are made with %v, want %s", making, tt.making)
			}
		})
	}
}

// TestRingCache: what the store said last comes back, its secrets sealed, and only under the
// same key-encryption key.
func TestRingCache(t *testing.T) {
	cfg := &Ring{Store: Store{Kind: StorePostgres, KEK: store.KEK{ID: "kek1", Secret: ringSecret("e")}}, CacheFile: filepath.Join(t.TempDir(), "state", "ring.json")}
	c, err := openRingCache(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.load(); err != nil || len(s.keys) != 0 {
		t.Fatalf("without a file: %v, %v", s, err)
	}
	in := ringState{
		keys:   []store.Key{{Kind: store.KeyShared, ID: "k1", Secret: ringSecret("canary"), State: store.KeyCurrent, NotBefore: time.Unix(5, 0).UTC()}},
		relays: []store.Relay{{Name: "relay1", Address: "h:1", URIs: []string{"turn:h"}, Weight: 7, State: store.RelayDraining}},
	}
	if err := c.save(in); err != nil {
		t.Fatal(err)
	}
	raw, err := readPrivate(cfg.CacheFile, 0o077)
	if err != nil || strings.Contains(string(raw), "canary") {
		t.Fatalf("the file: %v", err)
	}
	out, err := c.load()
	if err != nil || describe(out) != describe(in) || !out.keys[0].Secret.Equal(in.keys[0].Secret) {
		t.Errorf("loaded %v, %v", out, err)
	}
	cfg.Store.KEK.Secret = ringSecret("o")
	other, err := openRingCache(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := other.load(); err == nil || len(s.keys) != 0 {
		t.Errorf("under another key: %v, %v", s, err)
	}
}
