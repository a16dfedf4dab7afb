package turncred

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func testSecret(c byte) Secret { return NewSecret([]byte(strings.Repeat(string(c), MinSecretLen))) }

func newCodec(t testing.TB) *TidCodec {
	t.Helper()
	c, err := NewTidCodec(testSecret('d'))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSecretPrintsRedactedInEveryFormat(t *testing.T) {
	s := NewSecret([]byte("CANARY"))
	type holder struct{ Password Secret }
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "h", holder{s})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", holder{s})
	j, err := json.Marshal(holder{s})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(j) + fmt.Sprintf("%v %+v %#v %s %q %x %d %v %+v %#v", s, s, s, s, s, s, s, &s, holder{s}, holder{s})
	if strings.Contains(all, "CANARY") || strings.Contains(all, fmt.Sprintf("%x", "CANARY")) || strings.Contains(all, "67 65 78") {
		t.Errorf("printed %s", all)
	}
	if !strings.Contains(string(j), Redacted) {
		t.Errorf("JSON %s does not say %s", j, Redacted)
	}
}

func TestTidRoundTrip(t *testing.T) {
	c := newCodec(t)
	rapid.Check(t, func(t *rapid.T) {
		id := Identity{
			Subject: Subject(rapid.Uint64().Draw(t, "subject")),
			Issued:  IssueTime(rapid.Uint64Range(0, 1<<40-1).Draw(t, "issued")),
			Binding: Binding(rapid.Uint16().Draw(t, "binding")),
		}
		kid := KeyID(rapid.StringMatching(`[A-Za-z0-9]{1,16}`).Draw(t, "kid"))
		tid, err := c.Seal(kid, id, rapid.Byte().Draw(t, "counter"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Open(tid)
		if err != nil || got != id || tid.KeyID() != kid {
			t.Fatalf("Open(%q) = %+v, %v, kid %q; want %+v, kid %q", tid, got, err, tid.KeyID(), id, kid)
		}
	})
}

func TestTidsOfAUserCannotBeLinked(t *testing.T) {
	m := newMinter(t, nil)
	seen := map[string]bool{}
	for range 100 {
		c, err := m.Mint(Request{IMPI: "alice@ims.test", Life: time.Minute}, "k1", ApproachSharedKey)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(c.Username, "alice") {
			t.Errorf("username %q names the user", c.Username)
		}
		if prefix := string(c.Tid)[:12]; seen[prefix] {
			t.Errorf("Tid %q shares its start with another of the same user", c.Tid)
		} else {
			seen[prefix] = true
		}
	}
}

func TestParseUsername(t *testing.T) {
	tid, err := newCodec(t).Seal("k1", Identity{Subject: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := string(tid)
	texp := time.Unix(1735689600, 0)
	for _, order := range []UsernameOrder{Order3GPP, OrderREST} {
		name := order.Username(tid, texp)
		if got, exp, err := ParseUsername(name); err != nil || got != tid || !exp.Equal(texp) {
			t.Errorf("ParseUsername(%q) = %v, %v, %v", name, got, exp, err)
		}
	}
	for _, name := range []string{
		"", ":", s, s + ":", ":" + s, s + ":+1", s + ":-5", s + ":0x10", s + ": 1", s + ":1 ", "a:" + s + ":1735689600", "a:b:1735689600",
		s + ":99999999999999999999", s + ":1:2", s[:len(s)-1] + ":1", s + "A:1", "k1_" + s[3:] + ":1", "kidofmorethan16chars" + s[2:] + ":1", "1735689600:1735689600", s + ":١",
	} {
		if got, exp, err := ParseUsername(name); !errors.Is(err, ErrUsername) {
			t.Errorf("ParseUsername(%q) = %v, %v, %v; want ErrUsername", name, got, exp, err)
		}
	}
}

// standards.md §4: the long-term key of RFC 8489 §9.2.2, computed elsewhere.
func TestLongTermKeyVector(t *testing.T) {
	k := NewLongTermKey("8f3a2c1d:1700000000", "turn.example.com", NewSecret([]byte("kBr5QlRYoskYrZJrVKpp3e0q2tQ=")))
	if got, want := fmt.Sprintf("%x", k.MD5.Reveal()), "3964dd8b26f9474a61b191b49a64d5d2"; got != want {
		t.Errorf("MD5 key = %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%x", k.SHA256.Reveal()), "15697e65a60179f2c0ddb85e68a31a22bbe73948c5a2b47e8a87363e6d99b514"; got != want {
		t.Errorf("SHA-256 key = %s, want %s", got, want)
	}
}

func TestKeyRing(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	ring, err := NewKeyRing(
		Key{ID: "old", Secret: testSecret('o'), NotAfter: t0.Add(time.Hour)},
		Key{ID: "new", Secret: testSecret('n'), NotBefore: t0.Add(time.Minute)},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   time.Duration
		want KeyID
	}{{0, "old"}, {time.Minute, "new"}, {2 * time.Hour, "new"}} {
		if k, err := ring.Signing(t0.Add(tt.at)); err != nil || k.ID != tt.want {
			t.Errorf("Signing(+%v) = %s, %v; want %s", tt.at, k.ID, err, tt.want)
		}
	}
	if _, ok := ring.Lookup("old"); !ok {
		t.Error("Lookup(old): gone, want the key that credentials still stand on")
	}
	for name, k := range map[string]Key{
		"short secret": {ID: "x", Secret: NewSecret(make([]byte, MinSecretLen-1))},
		"bad kid":      {ID: "a-b", Secret: testSecret('x')},
		"twice":        {ID: "old", Secret: testSecret('x')},
	} {
		if err := ring.Add(k); err == nil {
			t.Errorf("Add of %s: no error", name)
		}
	}
}

type revokerFunc func(Revocation) error

func (f revokerFunc) Revoke(_ context.Context, r Revocation) error { return f(r) }

func newMinter(t testing.TB, revoke revokerFunc) *Minter {
	t.Helper()
	now := time.Unix(1_700_000_000, 500)
	m, err := NewMinter(MinterConfig{
		Codec: newCodec(t), Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Revoker: revoke, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRevocationSparesWhatComesAfterAndOtherDevices(t *testing.T) {
	var rev Revocation
	m := newMinter(t, func(r Revocation) error { rev = r; return nil })
	phone, laptop := BindingOf("urn:uuid:1", "1"), BindingOf("urn:uuid:2", "1")
	mint := func(impi IMPI, b Binding) Credential {
		c, err := m.Mint(Request{IMPI: impi, Binding: b, Life: time.Minute}, "k1", ApproachPush)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before, other, stranger := mint("alice@ims.test", phone), mint("alice@ims.test", laptop), mint("bob@ims.test", phone)
	if err := m.Revoke(t.Context(), Scope{IMPI: "alice@ims.test", Binding: phone}); err != nil {
		t.Fatal(err)
	}
	after := mint("alice@ims.test", phone) // the clock stands still: same 1/64 s
	for _, tt := range []struct {
		name string
		c    Credential
		want bool
	}{{"issued before", before, true}, {"other device", other, false}, {"other user", stranger, false}, {"issued after", after, false}} {
		if got := rev.Hits(tt.c.Tid, tt.c.Identity); got != tt.want {
			t.Errorf("revocation hits what was %s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if !rev.Until.After(before.Texp) {
		t.Errorf("revocation is forgotten at %v, before the credential ends at %v", rev.Until, before.Texp)
	}
	if err := m.Revoke(t.Context(), Scope{IMPI: "alice@ims.test", AllBindings: true}); err != nil {
		t.Fatal(err)
	}
	if !rev.Hits(other.Tid, other.Identity) || !rev.Hits(after.Tid, after.Identity) || rev.Hits(stranger.Tid, stranger.Identity) {
		t.Error("revocation of all bindings must hit every device of the user and no one else")
	}
}

// The counter has 256 values: with the clock standing still, ticks must move on.
func TestTidsNeverRepeat(t *testing.T) {
	m := newMinter(t, nil)
	seen := map[Tid]bool{}
	for range 10 * maxMinted {
		c, err := m.Mint(Request{IMPI: "alice@ims.test", Binding: 1, Life: time.Minute}, "k1", ApproachPush)
		if err != nil {
			t.Fatal(err)
		}
		if seen[c.Tid] {
			t.Fatalf("Tid %s came twice", c.Tid)
		}
		seen[c.Tid] = true
	}
}

func TestMintNeverOutlivesTheRegistration(t *testing.T) {
	m := newMinter(t, nil)
	for _, tt := range []struct{ life, want time.Duration }{{time.Minute, time.Minute}, {48 * time.Hour, time.Hour}, {1900 * time.Millisecond, time.Second}} {
		c, err := m.Mint(Request{IMPI: "a", Life: tt.life}, "k1", ApproachPush)
		if err != nil || c.TTL != tt.want || c.Texp.After(m.Now().Add(tt.want)) {
			t.Errorf("Mint(life %v): ttl %v, Texp %v, %v; want ttl %v", tt.life, c.TTL, c.Texp, err, tt.want)
		}
	}
	if c, err := m.Mint(Request{IMPI: "a", Life: time.Millisecond}, "k1", ApproachPush); err == nil {
		t.Errorf("Mint(life 1 ms) = %v, want an error", c.TTL)
	}
}

func FuzzParseUsername(f *testing.F) {
	f.Add("k1-AAAAAAAAAAAAAAAAAAAAAA:1735689600")
	f.Add("1735689600:k1-AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, in string) {
		tid, texp, err := ParseUsername(in)
		if err != nil {
			return
		}
		// Leading zeros are read but never written, so only the meaning must survive.
		if again, exp, err := ParseUsername(Order3GPP.Username(tid, texp)); err != nil || again != tid || !exp.Equal(texp) {
			t.Errorf("ParseUsername(%q) = %q, %v; written and read again: %q, %v, %v", in, tid, texp, again, exp, err)
		}
	})
}

// TestRevokeAgain: a revocation that failed says the same when it is tried again, so that
// what was issued since stays.
func TestRevokeAgain(t *testing.T) {
	var told []Revocation
	down := errors.New("connection refused")
	now := time.Unix(1_700_000_000, 0)
	m, err := NewMinter(MinterConfig{
		Codec: newCodec(t), Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Now: func() time.Time { return now },
		Revoker: revokerFunc(func(r Revocation) error {
			if told = append(told, r); len(told) == 1 {
				return down
			}
			return nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	var failed *RevokeError
	if err := m.Revoke(t.Context(), Scope{IMPI: "alice@ims.test"}); !errors.As(err, &failed) || !errors.Is(err, down) {
		t.Fatalf("Revoke = %v, want a RevokeError of %v", err, down)
	}
	now = now.Add(time.Minute)
	c, err := m.Mint(Request{IMPI: "alice@ims.test", Life: time.Minute}, "k1", ApproachPush)
	if err != nil {
		t.Fatal(err)
	}
	if err := failed.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told[0].IssuedUntil != told[1].IssuedUntil || told[1].Hits(c.Tid, c.Identity) || !failed.Until.Equal(told[0].Until) {
		t.Errorf("told %+v, then %+v: want the same, which spares what was issued since", told[0], told[1])
	}
}
