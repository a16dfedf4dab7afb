package store_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"epcscf/store"
	"epcscf/store/storetest"
	"epcscf/turncred"
)

func keks(t testing.TB, current store.KEK, older ...store.KEK) *store.KEKs {
	t.Helper()
	k, err := store.NewKEKs(current, older...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSealIsHKDF opens a box with the standard library's HKDF.
func TestSealIsHKDF(t *testing.T) {
	kek := storetest.KEK("kek1", 1)
	s, err := keks(t, kek).Seal("credentials", "k1-x", []byte("clear"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	salt, box := s.Box[:16], s.Box[16:]
	key, err := hkdf.Key(sha256.New, kek.Secret.Reveal(), nil, "epcscf store"+string(salt)+"credentials\x00k1-x", 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := gcm.Open(nil, make([]byte, 12), box, []byte("clear")); err != nil || string(got) != "secret" {
		t.Errorf("opened %q, %v, want secret", got, err)
	}
}

// TestSealTwice seals the same twice: each time under a key of its own.
func TestSealTwice(t *testing.T) {
	k := keks(t, storetest.KEK("kek1", 1))
	boxes := map[string]bool{}
	for range 100 {
		s, err := k.Seal("t", "id", nil, []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		boxes[string(s.Box[:16])], boxes[string(s.Box[16:])] = true, true
	}
	if len(boxes) != 200 {
		t.Errorf("100 sealings have %d different salts and ciphertexts, want 200", len(boxes))
	}
}

func TestOpenRefuses(t *testing.T) {
	k := keks(t, storetest.KEK("kek1", 1))
	s, err := k.Seal("t", "id", []byte("clear"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) store.Sealed {
		b := bytes.Clone(s.Box)
		b[i] ^= 1
		return store.Sealed{KEK: s.KEK, Box: b}
	}
	for _, tt := range []struct {
		name, table, id, clear string
		keks                   *store.KEKs
		s                      store.Sealed
		want                   error
	}{
		{"as sealed", "t", "id", "clear", k, s, nil},
		{"another table", "u", "id", "clear", k, s, store.ErrCorrupt},
		{"another row", "t", "id2", "clear", k, s, store.ErrCorrupt},
		{"an edited column", "t", "id", "Clear", k, s, store.ErrCorrupt},
		{"another salt", "t", "id", "clear", k, flip(0), store.ErrCorrupt},
		{"another text", "t", "id", "clear", k, flip(16), store.ErrCorrupt},
		{"another tag", "t", "id", "clear", k, flip(len(s.Box) - 1), store.ErrCorrupt},
		{"cut", "t", "id", "clear", k, store.Sealed{KEK: s.KEK, Box: s.Box[:20]}, store.ErrCorrupt},
		{"empty", "t", "id", "clear", k, store.Sealed{KEK: s.KEK}, store.ErrCorrupt},
		{"another key", "t", "id", "clear", keks(t, storetest.KEK("kek1", 2)), s, store.ErrCorrupt},
		{"an unknown key", "t", "id", "clear", keks(t, storetest.KEK("kek2", 1)), s, store.ErrKEK},
		{"an older key", "t", "id", "clear", keks(t, storetest.KEK("kek2", 2), storetest.KEK("kek1", 1)), s, nil},
	} {
		if _, err := tt.keks.Open(tt.table, tt.id, []byte(tt.clear), tt.s); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestKEKsRefuse(t *testing.T) {
	short := store.KEK{ID: "k", Secret: turncred.NewSecret(make([]byte, 31))}
	for name, ks := range map[string][]store.KEK{
		"short": {short},
		"no id": {storetest.KEK("", 1)},
		"twice": {storetest.KEK("a", 1), storetest.KEK("b", 1), storetest.KEK("b", 2)},
	} {
		if _, err := store.NewKEKs(ks[0], ks[1:]...); !errors.Is(err, store.ErrKEK) {
			t.Errorf("%s: %v, want ErrKEK", name, err)
		}
	}
}

// FuzzDecodeRecord: what a damaged file holds is an error and never a panic.
func FuzzDecodeRecord(f *testing.F) {
	k := keks(f, storetest.KEK("kek1", 1))
	r := storetest.Credential("k1-one", storetest.Epoch.Add(time.Hour))
	b, err := k.EncodeRecord(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("k1-one", b)
	f.Add("k1-one", b[:30])
	f.Fuzz(func(t *testing.T, tid string, b []byte) {
		got, err := k.DecodeRecord(turncred.Tid(tid), b)
		if err == nil && !store.SameRecord(got, r) {
			t.Errorf("%q opened as %+v", b, got)
		}
	})
}
