package push

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"pgregory.net/rapid"

	"epcscf/turncred"
)

// TestModel: whatever is lost, doubled, late or restarted on the way, in the end both sides
// have the same, nothing revoked is alive, and what was acknowledged and not revoked is.
func TestModel(t *testing.T) {
	pool := records(t, 60)
	edgeKeys, relayKeys := keysOf(t, authority(), RoleEdge, "edge1", time.Hour), keysOf(t, authority(), RoleRelay, "relay1", time.Hour)
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{T: rt, keys: edgeKeys, relayKeys: relayKeys, unused: pool, log: &memoryLog{}, revoker: &memoryRevoker{}, journal: &memoryJournal{}, acked: map[turncred.Tid]Record{}}
		var err error
		if m.epochs, err = OpenEpochs(""); err != nil {
			rt.Fatal(err)
		}
		m.startRelay()
		m.startEdge()
		rt.Repeat(map[string]func(*rapid.T){
			"put":           m.put,
			"batch":         m.batch,
			"revoke":        m.revoke,
			"attend":        func(*rapid.T) { m.edge().attend(context.Background()) },
			"late arrives":  m.deliverLate,
			"relay restart": func(*rapid.T) { m.startRelay() },
			"disk lost":     m.loseDisk,
			"edge restart":  func(*rapid.T) { m.startEdge() },
		})
		m.settle()
	})
}

// model is an edge and a relay with a bad network between them.
type model struct {
	*rapid.T
	keys, relayKeys *FixedKeys

	unused  []Record
	known   []Record // sent at least once
	acked   map[turncred.Tid]Record
	revoked []turncred.Revocation // Revoke returned for them

	log     *memoryLog     // the relay's disk
	revoker *memoryRevoker // also on it
	epochs  *Epochs        // also on it
	table   *Table
	server  *Server
	epoch   uint64
	fleet   *Fleet
	journal *memoryJournal // the edge's disk

	late  []*http.Request
	sound bool // nothing is lost any more
}

func (m *model) edge() *member { return (*m.fleet.members.Load())[0] }

func (m *model) startRelay() {
	var err error
	if m.table, err = OpenTable(context.Background(), testRealm, m.log, nil); err != nil {
		m.Fatal(err)
	}
	m.server, err = NewServer(ServerConfig{Domain: testDomain, Name: "relay1", Realm: testRealm, Keys: m.relayKeys, Table: m.table, Revoker: m.revoker, Epochs: m.epochs})
	if err != nil {
		m.Fatal(err)
	}
}

// loseDisk is a relay's disk of which nothing but the epochs is left. The edge gives back
// what it wrote in this life; it must not end before, so here it compares at once.
func (m *model) loseDisk(*rapid.T) {
	m.log, m.revoker = &memoryLog{}, &memoryRevoker{}
	m.startRelay()
	rs, vs := m.edge().ledger.all(time.Now())
	m.acked, m.revoked = map[turncred.Tid]Record{}, vs
	for _, r := range rs {
		m.acked[r.Tid] = r
	}
	for _, j := range m.journal.all {
		m.revoked = append(m.revoked, j.r)
	}
	m.sound = true
	m.edge().attend(context.Background())
	m.sound = false
}

func (m *model) startEdge() {
	m.epoch++
	var err error
	m.fleet, err = NewFleet(context.Background(), FleetConfig{
		Domain: testDomain, Name: "edge1", Epoch: m.epoch, Keys: m.keys, Journal: m.journal,
		Relays: []RelayConfig{{Name: "a", Address: "192.0.2.1:1", URIs: []string{"turn:a"}, Weight: 1}},
	})
	if err != nil {
		m.Fatal(err)
	}
	m.edge().client.http = &http.Client{Transport: m}
	m.edge().client.pair, m.edge().client.pool = m.keys.Certificate(), m.keys.Authorities()
}

var errLost = errors.New("lost")

// RoundTrip is the network.
func (m *model) RoundTrip(r *http.Request) (*http.Response, error) {
	fate := "passes"
	if !m.sound {
		fate = rapid.SampledFrom([]string{"passes", "passes", "request lost", "answer lost", "doubled", "late"}).Draw(m.T, "fate")
	}
	switch fate {
	case "request lost":
		return nil, errLost
	case "late":
		m.late = append(m.late, m.copy(r))
		return nil, errLost
	case "doubled":
		m.serve(m.copy(r))
	}
	res := m.serve(r)
	if fate == "answer lost" {
		return nil, errLost
	}
	return res, nil
}

func (m *model) copy(r *http.Request) *http.Request {
	c := r.Clone(context.Background())
	if r.GetBody != nil {
		var err error
		if c.Body, err = r.GetBody(); err != nil {
			m.Fatal(err)
		}
	}
	return c
}

func (m *model) serve(r *http.Request) *http.Response {
	in := r.Clone(context.Background())
	if in.Body == nil {
		in.Body = io.NopCloser(http.NoBody)
	}
	in.RequestURI, in.TLS = r.URL.RequestURI(), &tls.ConnectionState{PeerCertificates: m.keys.chain()}
	w := httptest.NewRecorder()
	m.server.Handler().ServeHTTP(w, in)
	return w.Result()
}

func (m *model) deliverLate(t *rapid.T) {
	if len(m.late) == 0 {
		t.Skip("nothing is late")
	}
	i := rapid.IntRange(0, len(m.late)-1).Draw(t, "which")
	r := m.late[i]
	m.late = append(m.late[:i:i], m.late[i+1:]...)
	_ = m.serve(r).Body.Close()
}

// next draws a record that is new, or one of this life once more.
func (m *model) next(t *rapid.T) Record {
	if len(m.unused) == 0 || len(m.known) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 {
		if len(m.known) == 0 {
			t.Skip("no record")
		}
		return rapid.SampledFrom(m.known).Draw(t, "record")
	}
	r := m.unused[0]
	m.unused, m.known = m.unused[1:], append(m.known, r)
	return r
}

func (m *model) put(t *rapid.T) { m.exchange([]Record{m.next(t)}) }

func (m *model) batch(t *rapid.T) {
	var rs []Record
	for range rapid.IntRange(2, 5).Draw(t, "size") {
		rs = append(rs, m.next(t))
	}
	m.exchange(rs)
}

func (m *model) exchange(rs []Record) {
	var items []Item
	for i := range rs {
		items = append(items, Item{Record: &rs[i]})
	}
	results, err := m.edge().exchange(context.Background(), items)
	if err != nil {
		return
	}
	for i, err := range results {
		if err != nil {
			m.Fatalf("record %s: %v", rs[i].Tid, err)
		}
		m.acked[rs[i].Tid] = rs[i]
	}
}

// revoke takes back a credential, perhaps before it is written, or a user's.
func (m *model) revoke(t *rapid.T) {
	r := m.next(t)
	v := turncred.Revocation{Tid: r.Tid, KeepLive: rapid.Bool().Draw(t, "keep live"), Until: r.Texp.Add(turncred.ClockSkew)}
	if rapid.Bool().Draw(t, "by subject") {
		v = turncred.Revocation{Subject: r.Identity.Subject, IssuedUntil: r.Identity.Issued, Until: v.Until}
		if rapid.Bool().Draw(t, "of one device") {
			v.Binding = &r.Identity.Binding
		}
	}
	v = normal(v)
	if results, err := m.edge().exchange(context.Background(), []Item{{Revocation: &v}}); err != nil || results[0] != nil {
		id, err := m.journal.Add(context.Background(), "a", v)
		if err != nil {
			m.Fatal(err)
		}
		m.edge().owe(undelivered{id, time.Now(), v})
	}
	m.revoked = append(m.revoked, v)
}

// settle lets everything arrive, and compares.
func (m *model) settle() {
	m.sound = true
	for _, r := range m.late {
		_ = m.serve(r).Body.Close()
	}
	m.edge().attend(context.Background())
	if same, err := m.edge().compare(context.Background()); err != nil || !same {
		m.Errorf("compare = %v, %v", same, err)
	}
	if n := m.journal.len(); n > 0 {
		m.Errorf("%d revocations are in the journal yet", n)
	}
	rs, _ := m.edge().ledger.all(time.Now())
	for _, r := range rs {
		m.acked[r.Tid] = r
	}
	for _, r := range m.known {
		revoked := false
		for _, v := range m.revoked {
			revoked = revoked || v.Hits(r.Tid, r.Identity)
		}
		p, err := m.table.Authenticate(r.Username, time.Now())
		alive := err == nil && p.Key.Equal(r.Key) && !m.revoker.revoked(r.Tid, r.Identity)
		if _, want := m.acked[r.Tid]; alive && revoked || want && !alive && !revoked {
			m.Errorf("record %s: alive %v, revoked %v, written %v", r.Tid, alive, revoked, want)
		}
	}
}
