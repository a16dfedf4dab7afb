package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

func TestWritesReachTheRelay(t *testing.T) {
	w := startRelay(t, nil)
	c := w.client(t, RoleEdge, "edge1", 1)
	rs := records(t, 8)
	if err := c.Put(t.Context(), rs[0]); err != nil {
		t.Fatal(err)
	}
	results, err := c.Batch(t.Context(), []Item{{Record: &rs[1]}, {Record: &rs[2]}, {Revocation: &turncred.Revocation{Tid: rs[2].Tid, Until: rs[2].Texp}}})
	if err != nil || errors.Join(results...) != nil {
		t.Fatalf("Batch = %v, %v", results, err)
	}
	if conflicts, err := c.Snapshot(t.Context(), rs[:5], nil); err != nil || len(conflicts) > 0 {
		t.Fatalf("Snapshot = %v, %v", conflicts, err)
	}
	binding := rs[3].Identity.Binding
	for _, r := range []turncred.Revocation{
		{Tid: rs[5].Tid, Until: rs[5].Texp}, // before it comes
		{Subject: rs[3].Identity.Subject, Binding: &binding, IssuedUntil: rs[3].Identity.Issued, KeepLive: true, Until: rs[3].Texp},
		{KeyID: "other", IssuedUntil: rs[7].Identity.Issued, Until: rs[7].Texp},
	} {
		if err := c.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Put(t.Context(), rs[5]); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false, false, true, false} {
		if got := w.alive(rs[i]); got != want {
			t.Errorf("record %d: alive %v, want %v", i, got, want)
		}
	}
	s, err := c.Digest(t.Context(), time.Now())
	if err != nil || s.Relay != "relay1" || s.Epoch != 1 || !s.Ready || s.Credentials.Count != 6 || s.Revocations.Count != 4 {
		t.Errorf("Digest = %+v, %v", s, err)
	}
}

// TestWriteOnce: the same body is the same answer, another is 409.
func TestWriteOnce(t *testing.T) {
	w := startRelay(t, nil)
	c := w.client(t, RoleEdge, "edge1", 1)
	r := records(t, 1)[0]
	other := r
	other.Key = turncred.NewLongTermKey(r.Username, r.Realm, turncred.NewSecret([]byte("another")))
	for _, step := range []struct {
		r    Record
		want error
	}{{r, nil}, {r, nil}, {other, ErrConflict}, {r, nil}} {
		if err := c.Put(t.Context(), step.r); !errors.Is(err, step.want) {
			t.Errorf("Put = %v, want %v", err, step.want)
		}
		results, err := c.Batch(t.Context(), []Item{{Record: &step.r}})
		if err != nil || !errors.Is(results[0], step.want) {
			t.Errorf("Batch = %v, %v, want %v", results, err, step.want)
		}
	}
	if conflicts, err := c.Snapshot(t.Context(), []Record{other}, nil); err != nil || !slices.Equal(conflicts, []turncred.Tid{r.Tid}) {
		t.Errorf("Snapshot = %v, %v", conflicts, err)
	}
	if !w.alive(r) || w.alive(other) {
		t.Error("the first body did not stay")
	}
	if s, err := c.Digest(t.Context(), time.Now()); err != nil || s.Credentials.Count != 1 {
		t.Errorf("Digest = %+v, %v", s, err)
	}
}

// TestReplay sends 1,000 captured requests again: with another certificate they get 403, in
// an older epoch 409, and those of the present epoch the answer that they had; with
// the same Tid and another key, 409.
func TestReplay(t *testing.T) {
	w := startRelay(t, nil)
	var captured []capturedRequest
	keys := keysOf(t, authority(), RoleEdge, "edge1", time.Hour)
	edge, err := NewClient(ClientConfig{Address: w.addr, Domain: testDomain, Name: "edge1", Epoch: 7, Keys: keys, transport: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper{next, func(r *http.Request) { captured = append(captured, capture(t, r)) }}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(edge.Close)
	for i, r := range records(t, 500) {
		if err := edge.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		v := turncred.Revocation{Tid: r.Tid, Until: r.Texp}
		if i%2 == 0 {
			v = turncred.Revocation{Subject: r.Identity.Subject, IssuedUntil: r.Identity.Issued, Until: r.Texp}
		}
		if err := edge.Revoke(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if len(captured) != 1000 {
		t.Fatalf("%d requests", len(captured))
	}
	for _, tt := range []struct {
		role Role
		name string
		want int
	}{{RoleEdge, "edge2", 403}, {RoleWAF, "waf1", 403}, {RoleEdge, "edge1", 204}} {
		again(t, w, captured, keysOf(t, authority(), tt.role, tt.name, time.Hour), tt.want)
	}
	var altered []capturedRequest
	for _, c := range captured {
		if c.method == http.MethodPut {
			altered = append(altered, capturedRequest{c.method, c.uri, c.header, withOtherKey(t, c.body)})
		}
	}
	if len(altered) != 500 {
		t.Fatalf("%d credentials among the requests, want 500", len(altered))
	}
	again(t, w, altered, keys, 409)
	younger := w.clientWith(t, keys, "edge1", 8)
	if err := younger.Put(t.Context(), records(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	again(t, w, captured, keys, 409)
	err = edge.Put(t.Context(), records(t, 1)[0])
	var p *Problem
	if !errors.Is(err, ErrStaleEpoch) || !errors.As(err, &p) || p.Epoch != 8 {
		t.Errorf("Put in the older epoch = %v, want ErrStaleEpoch with 8", err)
	}
}

// withOtherKey is the body of the same credential with another password.
func withOtherKey(t *testing.T, body []byte) []byte {
	t.Helper()
	var b credentialBody
	if err := json.Unmarshal(body, &b); err != nil {
		t.Fatal(err)
	}
	b.MD5[0] ^= 1
	other, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

type capturedRequest struct {
	method, uri string
	header      http.Header
	body        []byte
}

func capture(t *testing.T, r *http.Request) capturedRequest {
	c := capturedRequest{method: r.Method, uri: r.URL.String(), header: r.Header.Clone()}
	if r.GetBody == nil {
		return c
	}
	b, err := r.GetBody()
	if err == nil {
		c.body, err = io.ReadAll(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rawClient sends whatever a test wants, with a certificate. It takes HTTP/2.
func rawClient(t *testing.T, k Keys, c *tls.Config) *http.Client {
	t.Helper()
	c.RootCAs = k.Authorities()
	if pair := k.Certificate(); pair.Certificate != nil {
		// Whatever authorities the server names: a Go client else keeps back what they did not sign.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// again sends captured requests over a connection with the certificate of k.
func again(t *testing.T, w *relayWorld, captured []capturedRequest, k Keys, want int) {
	t.Helper()
	client := rawClient(t, k, &tls.Config{MinVersion: tls.VersionTLS13})
	wrong := 0
	for _, c := range captured {
		status, _ := send(t, client, c)
		if status != want {
			wrong++
			t.Logf("%s %s: %d", c.method, c.uri, status)
		}
		if wrong > 3 {
			break
		}
	}
	if wrong > 0 {
		t.Errorf("%s: requests were not answered %d", k.Certificate().Leaf.Subject.CommonName, want)
	}
}

func send(t *testing.T, client *http.Client, c capturedRequest) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), c.method, c.uri, bytes.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = c.header
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// TestRoles: who may do what.
func TestRoles(t *testing.T) {
	w := startRelay(t, nil)
	r := records(t, 1)[0]
	v := turncred.Revocation{Tid: r.Tid, Until: r.Texp}
	waf := w.client(t, RoleWAF, "waf1", 1)
	if err := waf.Revoke(t.Context(), v); err != nil {
		t.Errorf("the WAF's revocation: %v", err)
	}
	if results, err := waf.Batch(t.Context(), []Item{{Record: &r}, {Revocation: &v}}); err != nil || !hasCause(results[0], CauseForbidden) || results[1] != nil {
		t.Errorf("the WAF's batch: %v, %v", results, err)
	}
	if err := waf.Put(t.Context(), r); !hasCause(err, CauseForbidden) {
		t.Errorf("the WAF's credential: %v", err)
	}
	if _, err := waf.Snapshot(t.Context(), []Record{r}, nil); !hasCause(err, CauseForbidden) {
		t.Errorf("the WAF's snapshot: %v", err)
	}
	if w.table.Len() > 0 {
		t.Error("the WAF wrote a credential")
	}
}

func hasCause(err error, c Cause) bool {
	var p *Problem
	return errors.As(err, &p) && p.Cause == c
}

func TestStrictRequests(t *testing.T) {
	w := startRelay(t, nil)
	k := keysOf(t, authority(), RoleEdge, "edge1", time.Hour)
	client := rawClient(t, k, &tls.Config{MinVersion: tls.VersionTLS13})
	r := records(t, 1)[0]
	body, err := json.Marshal(bodyOf(r))
	if err != nil {
		t.Fatal(err)
	}
	good := string(body)
	path := credentialsPath + string(r.Tid)
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	until := fmt.Sprint(r.Texp.Unix())
	for _, tt := range []struct {
		name, method, path, body string
		header                   http.Header
		want                     int
		cause                    Cause
	}{
		{name: "unknown member", body: with(`{`, `{"x":1,`)},
		{name: "member twice", body: with(`{`, `{"realm":"a",`)},
		{name: "another case", body: with(`"realm"`, `"Realm"`)},
		{name: "null", body: with(`"binding":7`, `"binding":null`)},
		{name: "missing member", body: with(`,"binding":7`, ``)},
		{name: "wrong type", body: with(`"binding":7`, `"binding":"7"`)},
		{name: "out of range", body: with(`"binding":7`, `"binding":65536`)},
		{name: "fraction", body: with(`"binding":7`, `"binding":7.5`)},
		{name: "something behind", body: good + "{}"},
		{name: "no JSON", body: good[1:]},
		{name: "cut", body: good[:40]},
		{name: "nothing", body: ""},
		{name: "not UTF-8", body: with("ims.test", "ims\xff")},
		{name: "another realm", body: with(`"realm":"ims.test"`, `"realm":"other.test"`)},
		{name: "short key", body: with(`"md5":"`, `"md5":"AAAA`)},
		{name: "another Tid", path: credentialsPath + strings.Repeat("A", 10) + "-" + strings.Repeat("A", 22)},
		{name: "no Tid", path: credentialsPath + "x"},
		{name: "texp far away", body: strings.ReplaceAll(good, until, fmt.Sprint(r.Texp.Add(48*time.Hour).Unix()))},
		{name: "no epoch", header: http.Header{epochHeader: nil}},
		{name: "epoch 0", header: http.Header{epochHeader: {"0"}}},
		{name: "no node", header: http.Header{nodeHeader: nil}, want: 403, cause: CauseNotYours},
		{name: "no type", header: http.Header{"Content-Type": nil}, want: 415, cause: CauseMediaType},
		{name: "long", body: strings.Repeat(" ", maxSingle+1) + good, want: 413, cause: CauseTooLarge},
		{name: "revocation without until", method: "DELETE"},
		{name: "revocation for ever", method: "DELETE", path: path + "?until=253402300799"},
		{name: "parameter twice", method: "DELETE", path: path + "?until=" + until + "&until=" + until},
		{name: "unknown parameter", method: "DELETE", path: path + "?x=1&until=" + until},
		{name: "subject without issued_until", method: "DELETE", path: subjectsPath + "0123456789abcdef?until=" + until},
		{name: "subject in large letters", method: "DELETE", path: subjectsPath + "0123456789ABCDEF?issued_until=1&until=" + until},
		{name: "empty batch", method: "POST", path: batchPath, body: `{"items":[]}`},
		{name: "large batch", method: "POST", path: batchPath, body: `{"items":[` + strings.Repeat(`{},`, maxItems) + `{}]}`},
		{name: "large snapshot", method: "PUT", path: snapshotPath, body: `{"revocations":[` + strings.Repeat(`{"until":1},`, maxItems) + `{"until":1}]}`},
		{name: "deep", method: "POST", path: batchPath, body: strings.Repeat(`{"items":[`, 40)},
		{name: "digest of no minute", method: "GET", path: digestPath + "?expires_after=61"},
		{name: "events after what", method: "GET", path: eventsPath + "?before=1"},
		{name: "no such resource", method: "GET", path: basePath, want: 404, cause: CauseNotFound},
		{name: "no such method", method: "POST", path: path, want: 405, cause: CauseMethod},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := capturedRequest{method: "PUT", uri: path, body: []byte(tt.body), header: http.Header{"Content-Type": {"application/json"}, nodeHeader: {"edge1"}, epochHeader: {"1"}}}
			if tt.method != "" {
				c.method = tt.method
			}
			if tt.path != "" {
				c.uri = tt.path
			}
			if tt.body == "" && c.method == "PUT" && tt.name != "nothing" {
				c.body = body
			}
			for name, v := range tt.header {
				c.header[name] = v
			}
			c.uri = "https://" + w.addr + c.uri
			if tt.want == 0 {
				tt.want, tt.cause = 400, CauseFormat
			}
			status, text := send(t, client, c)
			if status != tt.want || !strings.Contains(text, `"cause":"`+string(tt.cause)+`"`) {
				t.Errorf("%d %s, want %d %s", status, text, tt.want, tt.cause)
			}
		})
	}
	if w.table.Len() > 0 {
		t.Error("something was written")
	}
}

// TestDiskFails: what is not on disk was not written, and is tried again.
func TestDiskFails(t *testing.T) {
	w := startRelay(t, nil)
	c := w.client(t, RoleEdge, "edge1", 1)
	r := records(t, 1)[0]
	w.log.fail(errors.New("no space"))
	if err := c.Put(t.Context(), r); !hasCause(err, CauseUnavailable) {
		t.Errorf("Put = %v", err)
	}
	w.log.fail(nil)
	for range 2 {
		if err := c.Put(t.Context(), r); err != nil {
			t.Errorf("Put = %v", err)
		}
	}
	if len(w.log.records) != 1 {
		t.Errorf("the log has %d records", len(w.log.records))
	}
	w.revoker.err = errors.New("no space")
	if err := c.Revoke(t.Context(), turncred.Revocation{Tid: r.Tid, Until: r.Texp}); !hasCause(err, CauseUnavailable) {
		t.Errorf("Revoke = %v", err)
	}
}

// TestRelayRestart: credentials and epochs outlive the process.
func TestRelayRestart(t *testing.T) {
	file := t.TempDir() + "/epochs.json"
	open := func(t *testing.T) *Epochs {
		e, err := OpenEpochs(file)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	w := startRelay(t, func(c *ServerConfig) { c.Epochs = open(t) })
	rs := records(t, 2)
	if err := w.client(t, RoleEdge, "edge1", 9).Put(t.Context(), rs[0]); err != nil {
		t.Fatal(err)
	}
	next := startRelay(t, func(c *ServerConfig) {
		c.Epochs = open(t)
		table, err := OpenTable(t.Context(), testRealm, w.log, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Table = table
	})
	next.table = next.cfg.Table
	if !next.alive(rs[0]) {
		t.Error("the credential is lost")
	}
	if err := next.client(t, RoleEdge, "edge1", 8).Put(t.Context(), rs[1]); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("Put in an epoch that was over before the restart = %v", err)
	}
	// The sums begin anew; a snapshot brings them up, and writes nothing to disk again.
	c := next.client(t, RoleEdge, "edge1", 9)
	if s, err := c.Digest(t.Context(), time.Now()); err != nil || s.Epoch != 9 || s.Credentials.Count != 0 {
		t.Errorf("Digest = %+v, %v", s, err)
	}
	if _, err := c.Snapshot(t.Context(), rs[:1], nil); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Digest(t.Context(), time.Now()); err != nil || s.Credentials != (Sum{1, rs[0].hash()}) {
		t.Errorf("Digest = %+v, %v", s, err)
	}
}

func TestEvents(t *testing.T) {
	w := startRelay(t, nil)
	c := w.client(t, RoleEdge, "edge1", 1)
	follow := func(cursor string, n int) (es []Event) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		enough := errors.New("enough")
		first := true
		err := c.Events(ctx, cursor, func(e Event) error {
			if first && cursor == "" { // now it follows
				w.events.Add(Event{Type: EventAllocated, Tid: "t1", Subject: "0123456789abcdef", Relayed: "192.0.2.1:50000"})
				w.events.Add(Event{Type: EventBytes, Tid: "t1", ToPeers: 10, FromPeers: 20})
				w.events.Add(Event{Type: EventEnded, Tid: "t1", Reason: "revoked"})
			}
			first = false
			if e.Type != EventAlive {
				es = append(es, e)
			}
			if len(es) == n {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatalf("Events = %v after %d of %d", err, len(es), n)
		}
		return es
	}
	es := follow("", 3)
	if es[0].Type != EventAllocated || es[1].ToPeers != 10 || es[2].Reason != "revoked" {
		t.Errorf("events %+v", es)
	}
	if got := follow(es[0].Cursor, 2); got[0] != es[1] || got[1] != es[2] {
		t.Errorf("resumed: %+v, want %+v", got, es[1:])
	}
	if got := follow("deadbeef-5", 4); got[0].Type != EventGap || got[1] != es[0] {
		t.Errorf("resumed in another life of the relay: %+v", got)
	}
	for range eventsKept {
		w.events.Add(Event{Type: EventBytes, Tid: "t2"})
	}
	if got := follow(es[0].Cursor, 2); got[0].Type != EventGap || got[1].Tid != "t2" {
		t.Errorf("resumed too late: %+v", got)
	}
}

// TestAnswersAsDescribed runs into each answer that the document has, but those of a disk
// that fails.
func TestAnswersAsDescribed(t *testing.T) {
	w := startRelay(t, nil)
	edge := rawClient(t, keysOf(t, authority(), RoleEdge, "edge1", time.Hour), &tls.Config{MinVersion: tls.VersionTLS13})
	foreign := keysOf(t, authority(), RoleEdge, "edge2", time.Hour)
	if err := w.clientWith(t, foreign, "edge2", 2).Put(t.Context(), records(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	other := rawClient(t, foreign, &tls.Config{MinVersion: tls.VersionTLS13})
	path := map[string]string{
		"/turn-cred/v1/credentials/{tid}": credentialsPath + "k-AAAAAAAAAAAAAAAAAAAAAA", "/turn-cred/v1/subjects/{subject}": subjectsPath + "0123456789abcdef",
	}
	for _, line := range describe().described() {
		var method, tmpl string
		var status int
		if _, err := fmt.Sscan(line, &method, &tmpl, &status); err != nil {
			t.Fatal(err)
		}
		c := capturedRequest{method: method, uri: tmpl, body: []byte("x"), header: http.Header{"Content-Type": {"application/json"}, nodeHeader: {"edge2"}, epochHeader: {"2"}}}
		if p, ok := path[tmpl]; ok {
			c.uri = p
		}
		client := other
		switch status {
		case 400:
			c.uri += "?x=1"
		case 403:
			client = edge
			if method == "GET" {
				client = rawClient(t, domainless(t), &tls.Config{MinVersion: tls.VersionTLS13})
			}
		case 409:
			c.header[epochHeader] = []string{"1"}
		case 413:
			c.body = bytes.Repeat([]byte(" "), maxBody+1)
		case 415:
			c.header["Content-Type"] = []string{"text/plain"}
		default:
			continue // TestWritesReachTheRelay, TestEvents, TestDiskFails
		}
		if method == "GET" || method == "DELETE" {
			if in(status, 413, 415) {
				continue // no body is read
			}
			c.body = nil
		}
		c.uri = "https://" + w.addr + c.uri
		if got, text := send(t, client, c); got != status {
			t.Errorf("%s: %d %s", line, got, text)
		}
	}
}

// domainless returns a certificate of the authority that names no node.
func domainless(t *testing.T) *FixedKeys {
	t.Helper()
	k := keysOf(t, authority(), RoleEdge, "x", time.Hour)
	cert, key, err := authority().Issue(Peer{testDomain, "nobody", "x"}, nil, time.Hour, time.Now())
	if err == nil {
		k.Pair, err = tls.X509KeyPair(cert, key.Reveal())
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestAnEdgeHearsAWAF: an edge that serves takes revocations from a WAF, and nothing from
// another edge; a WAF that looks for an edge tells nobody else.
func TestAnEdgeHearsAWAF(t *testing.T) {
	w := startRelay(t, func(c *ServerConfig) {
		c.Name, c.Keys, c.Writers = "edge1", keysOf(t, authority(), RoleEdge, "edge1", time.Hour), []Role{RoleWAF}
	})
	as := func(role Role, name string, of Role) *Client {
		t.Helper()
		c, err := NewClient(ClientConfig{Address: w.addr, Domain: testDomain, Name: name, Role: of, Epoch: 1, Keys: keysOf(t, authority(), role, name, time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	r := turncred.Revocation{Tid: records(t, 1)[0].Tid, Until: time.Now().Add(time.Hour)}
	if err := as(RoleWAF, "waf1", RoleEdge).Revoke(t.Context(), r); err != nil {
		t.Errorf("a WAF: %v", err)
	}
	var p *Problem
	if err := as(RoleEdge, "edge2", RoleEdge).Revoke(t.Context(), r); !errors.As(err, &p) || p.Status != http.StatusForbidden {
		t.Errorf("another edge: %v, want 403", err)
	}
	if err := as(RoleWAF, "waf1", "").Revoke(t.Context(), r); !errors.Is(err, ErrPeer) {
		t.Errorf("a WAF that looks for a relay: %v, want ErrPeer", err)
	}
}
