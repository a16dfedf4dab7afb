package push

import (
	"encoding/json"
	"testing"
)

// FuzzBodies: what a request's body is taken for is written again as the same.
func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"username":"k-AAAAAAAAAAAAAAAAAAAAAA:1795330800","realm":"r","md5":"AAAAAAAAAAAAAAAAAAAAAA==","sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","texp":1795330800,"subject":"0123456789abcdef","issued":1,"binding":2}`))
	f.Add([]byte(`{"items":[{"revocation":{"subject":"0123456789abcdef","issued_until":1,"until":2}}]}`))
	f.Add([]byte(`{"credentials":[],"revocations":[{"kid":"k","issued_until":1,"until":2}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c credentialBody
		if decodeStrict(data, &c) == nil {
			if r, err := c.record("k-AAAAAAAAAAAAAAAAAAAAAA"); err == nil {
				checkRecord(t, r)
			}
		}
		var b batchBody
		if decodeStrict(data, &b) == nil {
			for _, it := range b.Items {
				if it.Revocation != nil {
					checkRevocation(t, *it.Revocation)
				}
			}
		}
		var s snapshotBody
		if decodeStrict(data, &s) == nil {
			for _, n := range s.Credentials {
				if r, err := n.record(n.Tid); err == nil {
					checkRecord(t, r)
				}
			}
			for _, v := range s.Revocations {
				checkRevocation(t, v)
			}
		}
	})
}

func checkRecord(t *testing.T, r Record) {
	t.Helper()
	data, err := json.Marshal(named(r))
	if err != nil {
		t.Fatal(err)
	}
	var n namedCredential
	if err := decodeStrict(data, &n); err != nil {
		t.Fatal(err)
	}
	if again, err := n.record(n.Tid); err != nil || !again.equal(r) || again.hash() != r.hash() {
		t.Errorf("%s: %v", data, err)
	}
}

func checkRevocation(t *testing.T, b revocationBody) {
	t.Helper()
	r, err := b.revocation()
	if err != nil {
		return
	}
	data, err := json.Marshal(revocationOf(r))
	if err != nil {
		t.Fatal(err)
	}
	var again revocationBody
	if err := decodeStrict(data, &again); err != nil {
		t.Fatal(err)
	}
	if v, err := again.revocation(); err != nil || hashRevocation(v) != hashRevocation(r) || hashRevocation(normal(r)) != hashRevocation(r) {
		t.Errorf("%s: %v", data, err)
	}
}

// FuzzQuery: a revocation's query.
func FuzzQuery(f *testing.F) {
	f.Add("until=1&issued_until=2&binding=3&keep_live=true")
	f.Fuzz(func(t *testing.T, raw string) {
		b := revocationBody{Subject: "0123456789abcdef"}
		if b.parseQuery(raw) != nil {
			return
		}
		r, err := b.revocation()
		if err != nil {
			return
		}
		again := revocationBody{Subject: b.Subject}
		if err := again.parseQuery(revocationOf(r).query().Encode()); err != nil {
			t.Fatal(err)
		}
		if v, err := again.revocation(); err != nil || hashRevocation(v) != hashRevocation(r) {
			t.Errorf("%q: %v", raw, err)
		}
	})
}

// FuzzAnswers: what a relay answers.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"relay":"r","epoch":1,"time":"2026-01-01T00:00:00Z","draining":false,"ready":true,"keys":["k"],"credentials":{"count":1,"sum":"0123456789abcdef"},"revocations":{"count":0,"sum":"0000000000000000"}}`))
	f.Add([]byte(`{"cursor":"a-1","time":"2026-01-01T00:00:00Z","type":"ended","new_member":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b stateBody
		if decodeAnswer(data, &b) == nil {
			if s, err := b.state(); err == nil && s.body().Credentials.Sum != b.Credentials.Sum && len(b.Credentials.Sum) != 16 {
				t.Errorf("%s", data)
			}
		}
		var e Event
		_ = decodeAnswer(data, &e)
		var p Problem
		if decodeAnswer(data, &p) == nil {
			_ = p.Error()
		}
	})
}
