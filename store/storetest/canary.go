package storetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// canaries are secrets that no file may show.
var canaries = map[string][]byte{
	"password of a credential": []byte("canary password of a credential!"),
	"Km":                       []byte("canary Km canary Km canary Km !!"),
	"token key":                []byte("canary K of RFC 7635 canary K !!"),
	"signing key":              []byte("canary private key of the JWTs !"),
	"refresh token":            []byte("canary refresh token canary !!!!"),
	"KEK":                      KEK("kek1", 1).Secret.Reveal(),
}

const plainMarker = "plain-marker@ims.example" // what a file does show, so that the search is known to work

// PutCanaries writes known secrets by every way that takes one.
func PutCanaries(ctx context.Context, s store.Store) error {
	texp := time.Now().Add(time.Hour)
	r := Credential("k1-canary", texp)
	r.Key = turncred.NewLongTermKey(r.Username, r.Realm, turncred.NewSecret(canaries["password of a credential"]))
	if err := s.PutCredentials(ctx, []push.Record{r}); err != nil {
		return err
	}
	for kind, name := range map[store.KeyKind]string{store.KeyShared: "Km", store.KeyToken: "token key", store.KeyJWT: "signing key"} {
		if err := s.AddKey(ctx, store.Key{Kind: kind, ID: "c1", Secret: turncred.NewSecret(canaries[name]), State: store.KeyCurrent}); err != nil {
			return err
		}
	}
	if err := s.AddUser(ctx, store.User{Name: plainMarker, PasswordHash: turncred.NewSecret([]byte("$argon2id$"))}); err != nil {
		return err
	}
	return s.AddGrant(ctx, store.Grant{Kind: store.GrantRefresh, Hash: store.HashGrant(string(canaries["refresh token"])), Expires: texp, Family: "f"})
}

// WantNoCanary fails where content, such as a dump, shows one, as it is or encoded: in hex,
// in either alphabet of base64, at each of its three offsets.
func WantNoCanary(t *testing.T, name string, content []byte) {
	t.Helper()
	if !bytes.Contains(content, []byte(plainMarker)) {
		t.Errorf("%s does not hold %q, so it was not what PutCanaries wrote", name, plainMarker)
	}
	secrets := map[string][]byte{}
	for what, b := range canaries {
		secrets[what] = b
	}
	texp := time.Now() // the keys of the credential need its Texp, so look for any near it
	for d := -time.Minute; d <= 2*time.Hour; d += time.Second {
		at := texp.Add(d).Truncate(time.Second)
		user := turncred.Order3GPP.Username("k1-canary", at)
		if !bytes.Contains(content, []byte(user)) {
			continue
		}
		key := turncred.NewLongTermKey(user, "ims.example", turncred.NewSecret(canaries["password of a credential"]))
		secrets["MD5 key"], secrets["SHA-256 key"] = key.MD5.Reveal(), key.SHA256.Reveal()
	}
	if len(secrets) != len(canaries)+2 {
		t.Errorf("%s does not hold the user name of the credential", name)
	}
	lower := bytes.ToLower(content)
	for what, b := range secrets {
		if bytes.Contains(content, b) || bytes.Contains(lower, []byte(hex.EncodeToString(b))) {
			t.Errorf("%s shows the %s", name, what)
		}
		for offset := range 3 {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				// The characters that come of b alone, whatever stands before and after it.
				text := enc.EncodeToString(append(make([]byte, offset), b...))[(offset*8+5)/6 : (offset+len(b))*8/6]
				if bytes.Contains(content, []byte(text)) {
					t.Errorf("%s shows the %s in base64", name, what)
				}
			}
		}
	}
}
