package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// The vector of Appendix B.1 has 156 bytes, and 0x9c where the length without the header
// belongs, in the text and under its HMAC. So it vouches for the keys, the hash and what is
// hashed, but for that field; our own length is that of §14.6, and of RFC 5769's vectors.
func TestRFC8489VectorB1(t *testing.T) {
	const username, realm = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "example.org"
	raw := vectors(t, "rfc8489")["request"]
	key := turncred.NewLongTermKey(username, realm, turncred.NewSecret([]byte("TheMatrIX"))).SHA256.Reveal()
	end := len(raw) - attributeHeaderLen - integritySHA256.size
	h := hmac.New(sha256.New, key)
	h.Write(raw[:end])
	if !bytes.Equal(h.Sum(nil), raw[end+attributeHeaderLen:]) {
		t.Error("MESSAGE-INTEGRITY-SHA256 does not hold")
	}

	binary.BigEndian.PutUint16(raw[2:], uint16(len(raw)-stunHeaderLen))
	m := decode(t, raw)
	hash, _ := m.Get(stun.AttrUserhash)
	if want := userhashOf(username, realm); !bytes.Equal(hash, want[:]) {
		t.Errorf("USERHASH %x, want %x", hash, want)
	}
	if integrityOf(m) != integritySHA256 || integritySHA256.holds(m, key) {
		t.Error("the vector is mended: test it as it is")
	}
	copy(raw[end+attributeHeaderLen:], integritySHA256.sum(key, raw[:end]))
	if !integritySHA256.holds(m, key) {
		t.Error("MESSAGE-INTEGRITY-SHA256 does not hold with the right length")
	}
}

// algorithms are what a client of RFC 8489 sends back.
var algorithms = []stun.RawAttribute{
	attr(stun.AttrPasswordAlgorithms, offeredAlgorithms...), attr(stun.AttrPasswordAlgorithm, 0, 2, 0, 0),
}

// ask sends a request signed in a given way.
func (c *rawClient) ask(i *integrity, key turncred.Secret, attrs ...stun.RawAttribute) *stun.Message {
	c.t.Helper()
	m := c.request(stun.MethodRefresh, attrs...)
	c.identify(m)
	i.addTo(m, key.Reveal())
	return c.do(m)
}

func TestPasswordAlgorithms(t *testing.T) {
	approaches(t, nil, func(t *testing.T, w *world, p turncred.Provisioner) {
		c := w.client(t, UDP, provision(t, p, "alice", 1, 600e9))
		res := c.challenge()
		if v, _ := res.Get(stun.AttrPasswordAlgorithms); !bytes.Equal(v, offeredAlgorithms) {
			t.Errorf("PASSWORD-ALGORITHMS %x", v)
		}
		if !strings.HasPrefix(c.nonce, "obMatJos2AAAB") {
			t.Errorf("nonce %q lacks its cookie", c.nonce)
		}
		key := c.longTermKey()
		m := c.request(stun.MethodAllocate, append([]stun.RawAttribute{transportUDP}, algorithms...)...)
		c.identify(m)
		integritySHA256.addTo(m, key.SHA256.Reveal())
		res = c.do(m)
		wantCode(t, res, 0)
		if integrityOf(res) != integritySHA256 || !integritySHA256.holds(res, key.SHA256.Reveal()) {
			t.Error("the answer is not signed with MESSAGE-INTEGRITY-SHA256")
		}

		md5 := []stun.RawAttribute{algorithms[0], attr(stun.AttrPasswordAlgorithm, 0, 1, 0, 0)}
		for name, tt := range map[string]struct {
			sign   *integrity
			key    turncred.Secret
			attrs  []stun.RawAttribute
			answer *integrity
		}{
			"SHA-256":                    {integritySHA256, key.SHA256, algorithms, integritySHA256},
			"SHA-256 key, SHA-1":         {integritySHA1, key.SHA256, algorithms, integritySHA256},
			"MD5 key":                    {integritySHA256, key.MD5, md5, integritySHA256},
			"SHA-256, nothing said":      {integritySHA256, key.MD5, nil, integritySHA1},
			"RFC 5389":                   {integritySHA1, key.MD5, nil, integritySHA1},
			"wrong key for what is said": {integritySHA256, key.MD5, algorithms, nil},
		} {
			res := c.ask(tt.sign, tt.key, tt.attrs...)
			if tt.answer == nil {
				wantCode(t, res, stun.CodeUnauthorized)
				continue
			}
			if codeOf(res) != 0 || integrityOf(res) != tt.answer || !tt.answer.holds(res, tt.key.Reveal()) {
				t.Errorf("%s: %d, or not signed as it should be", name, codeOf(res))
			}
		}

		one := func(v ...byte) []stun.RawAttribute {
			return []stun.RawAttribute{algorithms[0], attr(stun.AttrPasswordAlgorithm, v...)}
		}
		for name, attrs := range map[string][]stun.RawAttribute{
			"the list alone": algorithms[:1], "the choice alone": algorithms[1:],
			"a list cut short on the way": {attr(stun.AttrPasswordAlgorithms, 0, 1, 0, 0), attr(stun.AttrPasswordAlgorithm, 0, 1, 0, 0)},
			"unknown":                     one(0, 3, 0, 0), "none": one(0, 0, 0, 0), "with parameters": one(0, 2, 0, 4, 1, 2, 3, 4), "short": one(0, 2),
		} {
			if res := c.ask(integritySHA256, key.SHA256, attrs...); codeOf(res) != stun.CodeBadRequest {
				t.Errorf("%s: %d, want 400", name, codeOf(res))
			}
		}
		c.nonce = "f//499k954d6OL34oL9FSTvy64sA" // without a cookie, so not checked, and not ours
		wantCode(t, c.ask(integritySHA1, key.MD5, algorithms[:1]...), stun.CodeStaleNonce)
	})
}

// Where both attributes stand, that of SHA-256 counts, and nothing that follows it.
func TestBothIntegrities(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t, UDP, w.credential(t, "alice", 1))
	c.allocate()
	wrong := bytes.Repeat([]byte{1}, 16)
	right := c.longTermKey().MD5.Reveal()
	for _, tt := range []struct {
		sha1, sha256 []byte
		want         stun.ErrorCode
	}{{right, right, 0}, {wrong, right, 0}, {right, wrong, stun.CodeUnauthorized}} {
		m := c.request(stun.MethodRefresh)
		c.identify(m)
		integritySHA1.addTo(m, tt.sha1)
		integritySHA256.addTo(m, tt.sha256)
		wantCode(t, c.do(afterIntegrity(m, attr(0x7777), lifetime(0))), tt.want)
	}
	m := c.request(stun.MethodRefresh)
	c.identify(m)
	m.Add(stun.AttrMessageIntegritySHA256, integritySHA256.sum(right, m.Raw)[:16]) // truncated
	wantCode(t, c.do(m), stun.CodeUnauthorized)
}

// USERHASH is understood where there is a user to compare with: on a live allocation.
func TestUserhash(t *testing.T) {
	w := newWorld(t, nil)
	cred := w.credential(t, "alice", 1)
	ask := func(c *rawClient, method stun.Method, username string) *stun.Message {
		hash := userhashOf(username, testRealm)
		m := c.request(method, transportUDP, attr(stun.AttrUserhash, hash[:]...), attr(stun.AttrRealm, []byte(c.realm)...), attr(stun.AttrNonce, []byte(c.nonce)...))
		integritySHA1.addTo(m, c.longTermKey().MD5.Reveal())
		return c.do(m)
	}
	c := w.client(t, UDP, cred)
	c.challenge()
	wantCode(t, ask(c, stun.MethodAllocate, cred.Username), stun.CodeUnauthorized)
	wantCode(t, c.signed(stun.MethodAllocate, transportUDP), 0)
	wantCode(t, ask(c, stun.MethodRefresh, cred.Username), 0)
	wantCode(t, ask(c, stun.MethodRefresh, "nobody"), stun.CodeUnauthorized)
}

// What has no key has no door: an empty key is nobody's.
func TestEmptyKeyIsNoKey(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Auth = oneUser{"alice", turncred.LongTermKey{}} })
	c := w.client(t, UDP, turncred.Credential{Username: "alice"})
	c.challenge()
	wantCode(t, c.ask(integritySHA1, turncred.Secret{}), stun.CodeUnauthorized)
	wantCode(t, c.ask(integritySHA256, turncred.Secret{}, algorithms...), stun.CodeUnauthorized)
}
