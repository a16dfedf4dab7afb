package sharedkey

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

// standards.md §4: pion's test vector and three computed elsewhere.
func TestPasswordVectors(t *testing.T) {
	for _, tt := range []struct {
		alg                    Algorithm
		secret, username, want string
	}{
		{HMACSHA1, "foobar", "1599491771", "Tpz/nKkyvX/vMSLKvL4sbtBt8Vs="},
		{"", "foobar", "1599491771", "Tpz/nKkyvX/vMSLKvL4sbtBt8Vs="},
		{HMACSHA1, "north", "1700000000:8f3a2c1d", "liC1VGmFi2s3E8+IVoUsHY+Rbu0="},
		{HMACSHA1, "north", "8f3a2c1d:1700000000", "kBr5QlRYoskYrZJrVKpp3e0q2tQ="},
		{HMACSHA256, "north", "8f3a2c1d:1700000000", "iB9w4qrm+6tNpfWauFQwAm/HWBYuImhT5vr8I4YwsYE="},
	} {
		if got := Password(tt.alg, turncred.NewSecret([]byte(tt.secret)), tt.username); string(got.Reveal()) != tt.want {
			t.Errorf("Password(%s, %s, %s) = %s, want %s", tt.alg, tt.secret, tt.username, got.Reveal(), tt.want)
		}
	}
}

type noRevoker struct{}

func (noRevoker) Revoke(context.Context, turncred.Revocation) error { return nil }

func secret(c string) turncred.Secret { return turncred.NewSecret([]byte(strings.Repeat(c, 32))) }

func TestAuthenticatorTakesWhatTheIssuerMade(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	codec, err := turncred.NewTidCodec(secret("d"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := turncred.NewKeyRing(turncred.Key{ID: "k1", Secret: secret("m")})
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []turncred.UsernameOrder{turncred.Order3GPP, turncred.OrderREST} {
		for _, alg := range []Algorithm{HMACSHA1, HMACSHA256} {
			m, err := turncred.NewMinter(turncred.MinterConfig{
				Codec: codec, Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Order: order, Revoker: noRevoker{}, Now: func() time.Time { return now },
			})
			if err != nil {
				t.Fatal(err)
			}
			a, err := NewAuthenticator(AuthenticatorConfig{Ring: ring, Codec: codec, Realm: "ims.test", Algorithm: alg})
			if err != nil {
				t.Fatal(err)
			}
			c, err := NewIssuer(m, ring, alg).Provision(t.Context(), turncred.Request{IMPI: "alice@ims.test", Binding: 7, Life: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			p, err := a.Authenticate(c.Username, now)
			if err != nil || p.Tid != c.Tid || !p.Texp.Equal(c.Texp) || !p.Key.Equal(turncred.NewLongTermKey(c.Username, "ims.test", c.Password)) {
				t.Errorf("%s, %s: Authenticate(%q) = %s, %v, %v", order, alg, c.Username, p.Tid, p.Texp, err)
				continue
			}
			if id, err := p.Identify(); err != nil || id != c.Identity {
				t.Errorf("%s, %s: Identify = %+v, %v; want %+v", order, alg, id, err, c.Identity)
			}
		}
	}
}

func TestAuthenticatorRefuses(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	codec, err := turncred.NewTidCodec(secret("d"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := turncred.NewKeyRing(turncred.Key{ID: "k1", Secret: secret("m")})
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthenticator(AuthenticatorConfig{Ring: ring, Codec: codec, Realm: "ims.test"})
	if err != nil {
		t.Fatal(err)
	}
	tid, err := codec.Seal("k1", turncred.Identity{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := codec.Seal("k2", turncred.Identity{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, username := range map[string]string{
		"no colon":        "alice",
		"foreign kid":     turncred.Order3GPP.Username(foreign, now.Add(time.Minute)),
		"past max_ttl":    turncred.Order3GPP.Username(tid, now.Add(time.Hour+turncred.ClockSkew+time.Second)),
		"end of all time": turncred.Order3GPP.Username(tid, time.Unix(999999999999999999, 0)),
	} {
		if p, err := a.Authenticate(username, now); !errors.Is(err, turncred.ErrUnknownUser) {
			t.Errorf("%s: Authenticate(%q) = %v, %v; want ErrUnknownUser", name, username, p.Tid, err)
		}
	}
	if _, err := a.Authenticate(turncred.Order3GPP.Username(tid, now.Add(time.Hour+turncred.ClockSkew)), now); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}
