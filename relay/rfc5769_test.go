package relay

import (
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// vectors reads the messages of an RFC.
func vectors(t testing.TB, rfc string) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + rfc + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	v := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "#" {
			if v[name], err = hex.DecodeString(digits); err != nil {
				t.Fatal(err)
			}
		}
	}
	return v
}

func decode(t *testing.T, b []byte) *stun.Message {
	t.Helper()
	m := stun.NewWithOptions(stun.WithStrict(true))
	m.Raw = b[:len(b):len(b)]
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRFC5769(t *testing.T) {
	v := vectors(t, "rfc5769")
	short := []byte("VOkJxbRl1RmTxUk/WvJxBt")
	for _, name := range []string{"request", "ipv4-response", "ipv6-response"} {
		m := decode(t, v[name])
		if !integritySHA1.holds(m, short) {
			t.Errorf("%s: MESSAGE-INTEGRITY does not hold", name)
		}
		if !fingerprintHolds(m) {
			t.Errorf("%s: FINGERPRINT does not hold", name)
		}
		m.Raw[len(m.Raw)-1] ^= 1
		if fingerprintHolds(m) {
			t.Errorf("%s: a wrong FINGERPRINT holds", name)
		}
	}
	for name, want := range map[string]string{
		"ipv4-response": "192.0.2.1:32853", "ipv6-response": "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
	} {
		m := decode(t, v[name])
		value, _ := m.Get(stun.AttrXORMappedAddress)
		got, ok := parseXORAddress(value, m.TransactionID)
		if !ok || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: XOR-MAPPED-ADDRESS %s, want %s", name, got, want)
		}
		if back := appendXORAddress(nil, got, m.TransactionID); string(back) != string(value) {
			t.Errorf("%s: %s encodes to %x, want %x", name, got, back, value)
		}
	}
}

// The long-term vector passes our own authentication: all but its nonce, which is not ours.
func TestRFC5769LongTerm(t *testing.T) {
	const username, realm = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "example.org"
	w := newWorld(t, func(c *Config) {
		c.Realm = realm
		c.Auth = oneUser{username, turncred.NewLongTermKey(username, realm, turncred.NewSecret([]byte("TheMatrIX")))}
	})
	r := &request{msg: decode(t, vectors(t, "rfc5769")["long-term-request"]), now: w.cfg.Now()}
	if no := newWorker(w.Server).authenticate(r); no == nil || no.code != stun.CodeStaleNonce {
		t.Errorf("authenticate: %+v, want 438", no)
	}
}

// oneUser is an Authenticator that knows one user, whose credential lasts.
type oneUser struct {
	username string
	key      turncred.LongTermKey
}

func (o oneUser) Authenticate(username string, now time.Time) (turncred.Proof, error) {
	if username != o.username {
		return turncred.Proof{}, turncred.ErrUnknownUser
	}
	identify := func() (turncred.Identity, error) { return turncred.Identity{}, nil }
	return turncred.Proof{Texp: now.Add(time.Hour), Key: o.key, Identify: identify}, nil
}
