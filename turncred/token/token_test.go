package token

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"epcscf/turncred"
)

const serverName = "turn.ims.test"

var (
	secretK = turncred.NewSecret([]byte("HGkj32KJGiuy098sdfaqbNjOiaz71923"))
	start   = time.Unix(1_800_000_000, 0)
)

func mac(n int) turncred.Secret { return turncred.NewSecret(bytes.Repeat([]byte{0xA5}, n)) }

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		n++
		k, err := newRingKey(Key{ID: "1234", Secret: secretK, Algorithm: Algorithm(f[1]), Foreign: true})
		if err != nil {
			t.Fatal(err)
		}
		timestamp, _ := strconv.ParseUint(f[3], 10, 64)
		issued, ok := timeOf(timestamp)
		nonce, _ := hex.DecodeString(f[4])
		want, err := hex.DecodeString(f[5])
		if err != nil || !ok {
			t.Fatal(line)
		}
		c := Claims{MACKey: turncred.NewSecret([]byte("ZksjpweoixXmvn67534m")), Issued: issued, Lifetime: time.Hour}
		if got, err := k.seal(f[2], [nonceLen]byte(nonce), c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: seal = %x, %v\nwant %x", f[0], got, err, want)
		}
		got, err := k.open(f[2], want)
		if err != nil || !got.MACKey.Equal(c.MACKey) || timestampOf(got.Issued) != timestamp || got.Lifetime != time.Hour {
			t.Errorf("%s: open = %+v, %v", f[0], got, err)
		}
	}
	if n != 3 {
		t.Errorf("%d vectors", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	key := Key{ID: "k1", Secret: secretK}
	s, err := NewSealer(key, serverName)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Seal(Claims{MACKey: mac(20), Issued: start, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	otherKey := Key{ID: "k2", Secret: turncred.NewSecret(bytes.Repeat([]byte{1}, 32))}
	short := Key{ID: "k3", Secret: secretK, Algorithm: A128GCM}
	ring, err := NewKeyRing(key, otherKey, short)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Open("k1", serverName, raw); err != nil {
		t.Fatalf("control: %v", err)
	}
	edit := func(i int) []byte { b := bytes.Clone(raw); b[i] ^= 1; return b }
	// A token whose key_length lies is authentic, and no token all the same.
	lying := bytes.Clone(raw[:2+nonceLen])
	block := make([]byte, blockOverhead+shortMACKey)
	block[1] = longMACKey
	lying = s.key.aead.Seal(lying, lying[2:], block, []byte(serverName))
	fraction := bytes.Clone(raw[:2+nonceLen])
	copy(block, []byte{0, shortMACKey})
	block[2+shortMACKey+6] = 0xFF
	fraction = s.key.aead.Seal(fraction, fraction[2:], block, []byte(serverName))
	for name, tt := range map[string]struct {
		kid    turncred.KeyID
		server string
		raw    []byte
	}{
		"another server":       {"k1", "turn2.ims.test", raw},
		"name with NUL":        {"k1", serverName + "\x00", raw},
		"another key":          {"k2", serverName, raw},
		"another algorithm":    {"k3", serverName, raw},
		"unknown kid":          {"k9", serverName, raw},
		"nonce length":         {"k1", serverName, edit(1)},
		"nonce":                {"k1", serverName, edit(2)},
		"ciphertext":           {"k1", serverName, edit(20)},
		"tag":                  {"k1", serverName, edit(len(raw) - 1)},
		"short":                {"k1", serverName, raw[:len(raw)-1]},
		"long":                 {"k1", serverName, append(bytes.Clone(raw), 0)},
		"length of the other":  {"k1", serverName, append(bytes.Clone(raw), make([]byte, 12)...)},
		"empty":                {"k1", serverName, nil},
		"key length":           {"k1", serverName, lying},
		"fraction of a second": {"k1", serverName, fraction},
	} {
		if _, err := ring.Open(tt.kid, tt.server, tt.raw); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v, want ErrToken", name, err)
		}
	}
	for _, n := range []int{0, 16, 19, 21, 64} {
		if _, err := s.Seal(Claims{MACKey: mac(n), Issued: start, Lifetime: time.Minute}); err == nil {
			t.Errorf("a mac_key of %d bytes was sealed", n)
		}
	}
}

// RFC 7635 §7, both ways, and stricter where it says nothing.
func TestFreshness(t *testing.T) {
	const life = time.Minute
	for name, tt := range map[string]struct {
		age, life time.Duration
		ok        bool
	}{
		"now":                  {0, life, true},
		"within Delta of end":  {life + Delta - 1, life, true},
		"at the end":           {life + Delta, life, false},
		"long past":            {1000 * time.Hour, life, false},
		"ahead by Delta":       {-Delta, life, true},
		"ahead by more":        {-Delta - 1, life, false},
		"ahead, RFC's formula": {-life, life, false},
		"no lifetime":          {0, 0, false},
		"longest":              {0, time.Hour, true},
		"too long":             {0, time.Hour + time.Second, false},
	} {
		c := Claims{Issued: start, Lifetime: tt.life}
		err := c.check(start.Add(tt.age), time.Hour)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v, want good %t", name, err, tt.ok)
		}
	}
	c := Claims{Issued: start, Lifetime: life}
	for age, want := range map[time.Duration]time.Duration{
		-Delta: life - Delta, 0: life, 3 * time.Second: life + 3*time.Second, Delta: life + Delta, life: life + Delta,
	} {
		if got := c.end(start.Add(age)).Sub(start); got != want {
			t.Errorf("allowed at age %v: ends at %v, want %v", age, got, want)
		}
	}
}

func TestSealOpenIsIdentity(t *testing.T) {
	s, err := NewSealer(Key{ID: "k1", Secret: secretK}, serverName)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		c := Claims{
			MACKey:   turncred.NewSecret(rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "mac_key")),
			Lifetime: time.Duration(rapid.Uint32().Draw(t, "lifetime")) * time.Second,
		}
		ts := rapid.Uint64Range(0, 1<<36).Draw(t, "seconds")<<16 | rapid.Uint64Range(0, ticksPerSecond-1).Draw(t, "fraction")
		c.Issued, _ = timeOf(ts)
		raw, err := s.Seal(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.key.open(serverName, raw)
		if err != nil || !got.MACKey.Equal(c.MACKey) || got.Lifetime != c.Lifetime || !got.Issued.Equal(c.Issued) {
			t.Fatalf("open(seal(%+v)) = %+v, %v", c, got, err)
		}
		if back := timestampOf(got.Issued); back != ts {
			t.Fatalf("timestamp %#x became %#x", ts, back)
		}
	})
}

func TestNoncesNeverRepeat(t *testing.T) {
	const each = 100_000
	seen := map[[nonceLen]byte]bool{}
	for _, first := range []uint32{0, 0, 1<<32 - each/2} { // two processes, and one that runs out of a prefix
		n := nonces{}
		if _, err := n.next(); err != nil {
			t.Fatal(err)
		}
		n.counter = first
		for range each {
			nonce, err := n.next()
			if err != nil || seen[nonce] {
				t.Fatalf("nonce %x again, or %v", nonce, err)
			}
			seen[nonce] = true
		}
	}
}

func TestKeyRing(t *testing.T) {
	for name, k := range map[string]Key{
		"kid":        {ID: "a~b", Secret: secretK},
		"no kid":     {Secret: secretK},
		"short":      {ID: "a", Secret: turncred.NewSecret(make([]byte, 31))},
		"short, 128": {ID: "a", Secret: turncred.NewSecret(make([]byte, 15)), Algorithm: A128GCM},
		"algorithm":  {ID: "a", Secret: secretK, Algorithm: "A256CBC-HS512"},
	} {
		if _, err := NewKeyRing(k); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := NewKeyRing(Key{ID: "a", Secret: secretK}, Key{ID: "a", Secret: secretK}); err == nil {
		t.Error("a kid twice: taken")
	}
	ring, err := NewKeyRing(
		Key{ID: "old", Secret: secretK, NotAfter: start.Add(time.Hour)},
		Key{ID: "next", Secret: secretK, NotBefore: start.Add(time.Minute), NotAfter: start.Add(time.Hour)},
		Key{ID: "foreign", Secret: secretK, NotBefore: start.Add(2 * time.Minute), Foreign: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	unused := func(*ringKey) bool { return true }
	for at, want := range map[time.Duration]turncred.KeyID{0: "old", time.Minute: "next", 10 * time.Minute: "next"} {
		if k, err := ring.issuing(start.Add(at), unused); err != nil || k.ID != want {
			t.Errorf("issuing at %v: %v, want %s", at, err, want)
		}
	}
	if _, err := ring.issuing(start.Add(time.Hour), unused); !errors.Is(err, ErrNoKey) {
		t.Errorf("issuing after all: %v, want ErrNoKey", err)
	}
}

// FuzzOpen: nothing panics, and what opens has one spelling.
func FuzzOpen(f *testing.F) {
	s, err := NewSealer(Key{ID: "k1", Secret: secretK}, serverName)
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []int{20, 32} {
		raw, err := s.Seal(Claims{MACKey: mac(n), Issued: start, Lifetime: time.Minute})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw[:len(raw)-1])
		f.Add(append(raw, 0))
		raw[30] ^= 1
		f.Add(raw)
		f.Add([]byte(usernameOf("k1", raw)))
		f.Add([]byte(usernameOf("k1", raw[:len(raw)-1]) + "\n"))
	}
	ring, err := NewKeyRing(Key{ID: "k1", Secret: secretK})
	if err != nil {
		f.Fatal(err)
	}
	a, err := NewAuthenticator(AuthenticatorConfig{Ring: ring, ServerName: serverName, Realm: "ims.test"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ring.Open("k1", serverName, raw)
		switch {
		case errors.Is(err, ErrToken):
		case err != nil:
			t.Errorf("Open(%x) = %v", raw, err)
		default:
			if back, err := s.key.seal(serverName, [nonceLen]byte(raw[2:]), c); err != nil || !bytes.Equal(back, raw) {
				t.Errorf("Open(%x) seals to %x, %v", raw, back, err)
			}
		}
		if _, err := a.Authenticate(string(raw), start); !errors.Is(err, turncred.ErrUnknownUser) {
			t.Errorf("Authenticate(%q) = %v", raw, err)
		}
	})
}
