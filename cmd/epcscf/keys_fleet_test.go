package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/icholy/digest"
	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/sipext"
	"epcscf/store/postgres/pgtest"
	"epcscf/turncred"
)

// storeOf writes the files of a store that edge and relays share, and returns its section.
func storeOf(t *testing.T, dir, url string) string {
	t.Helper()
	s := &served{dir: dir}
	s.write(t, "database.url", url)
	s.write(t, "kek.key", strings.Repeat("e", 32))
	return "\nstore: {kind: postgres, database_url_file: database.url, kek_file: kek.key}\n"
}

// prepareRing is prepareFleet with a database that all three processes share.
func prepareRing(t *testing.T, c *pgtest.Cluster, approach string) fleet {
	t.Helper()
	f := prepareFleet(t, approach)
	url := c.TLSURL(c.Database(t))
	section := storeOf(t, f.edge.dir, url)
	epcscf(t, 0, "migrate", "up", "--database-url-file", filepath.Join(f.edge.dir, "database.url"))
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		s.write(t, filepath.Base(s.file), s.text(t)+section)
	}
	return f
}

// follows waits until a process follows its store.
func (s *served) follows(t *testing.T) {
	t.Helper()
	s.eventually(t, "it follows the store", func() bool { return s.metric("epcscf_store_up") == "1" })
}

// asker is a registered WIC that asks for credentials by OPTIONS.
type asker struct {
	ws   *websocket.Conn
	id   string // of its calls, and its host
	cseq int
}

// asks registers alice.
func (s *served) asks(t *testing.T) *asker {
	t.Helper()
	ws, err := s.dial(t, serveOrigin, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{ws: ws, id: strings.ToLower(rand.Text())}
	contact := "Contact: <sip:alice@" + a.id + ".invalid;transport=ws>;expires=600\r\n"
	answer, err := a.exchange("REGISTER", contact)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := digest.ParseChallenge(field(answer, "WWW-Authenticate"))
	if err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	cred, err := digest.Digest(ch, digest.Options{Method: "REGISTER", URI: "sip:ims.test", Username: "alice@ims.test", Password: "password of alice", Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	answer, err = a.exchange("REGISTER", contact+"Authorization: "+cred.String()+"\r\n")
	if err != nil || !strings.HasPrefix(answer, "SIP/2.0 200") {
		t.Fatalf("REGISTER: %v, %s", err, answer)
	}
	return a
}

// exchange sends a request to the home domain and returns its final answer.
func (a *asker) exchange(method, fields string) (string, error) {
	a.cseq++
	if err := a.ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%s sip:ims.test SIP/2.0\r\nVia: SIP/2.0/WSS x.invalid;branch=z9hG4bK%s%d\r\n"+
		"Max-Forwards: 70\r\nFrom: <sip:alice@ims.test>;tag=1\r\nTo: <sip:alice@ims.test>\r\nCall-ID: %s\r\nCSeq: %d %s\r\n%sContent-Length: 0\r\n\r\n",
		method, method, a.cseq, a.id, a.cseq, method, fields)); err != nil {
		return "", err
	}
	for {
		_ = a.ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, b, err := a.ws.ReadMessage()
		if err != nil {
			return "", err
		}
		if text := string(b); field(text, "CSeq") == fmt.Sprintf("%d %s", a.cseq, method) && !strings.HasPrefix(text, "SIP/2.0 1") {
			return text, nil
		}
	}
}

// credential asks for one.
func (a *asker) credential() (sipext.TurnCred, error) {
	answer, err := a.exchange("OPTIONS", sipext.TurnCredHeader+": request\r\n")
	if err != nil {
		return sipext.TurnCred{}, err
	}
	return sipext.ParseTurnCred(field(answer, sipext.TurnCredHeader))
}

// field returns the value of a message's first field of a name.
func field(message, name string) string {
	for _, line := range strings.Split(message, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// allocation is what a credential made at the first of its URIs that is for UDP.
type allocation struct {
	conn   net.PacketConn
	client *turn.Client
	relay  net.PacketConn
}

func (a *allocation) close() {
	if a.relay != nil {
		_ = a.relay.Close()
	}
	a.client.Close()
	_ = a.conn.Close()
}

// allocate makes an allocation with a credential.
func allocate(cred sipext.TurnCred) (*allocation, error) {
	if cred.Kind != sipext.KindCredential {
		return nil, fmt.Errorf("no credential: %v", cred)
	}
	udp := slices.IndexFunc(cred.URIs, func(uri string) bool {
		return strings.HasPrefix(uri, "turn:") && !strings.Contains(uri, "transport=tcp")
	})
	if udp < 0 {
		return nil, fmt.Errorf("no URI for UDP in %q", cred.URIs)
	}
	server, _, _ := strings.Cut(strings.TrimPrefix(cred.URIs[udp], "turn:"), "?")
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &allocation{conn: conn}
	if a.client, err = turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server, TURNServerAddr: server, Conn: conn, LoggerFactory: logs, Username: cred.Username, Password: cred.Tpwd, Realm: cred.Realm,
	}); err != nil {
		return nil, err
	}
	if err = a.client.Listen(); err == nil {
		a.relay, err = a.client.Allocate()
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// load asks for credentials and makes allocations with them, until it is ended.
type load struct {
	made, failed atomic.Int64
	mu           sync.Mutex // guards kids and first
	kids         map[string]int
	first        error
	stop         chan struct{}
	workers      sync.WaitGroup
}

func startLoad(t *testing.T, workers int, edge *served) *load {
	t.Helper()
	l := &load{kids: map[string]int{}, stop: make(chan struct{})}
	for range workers {
		a := edge.asks(t)
		l.workers.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				cred, err := a.credential()
				var made *allocation
				if err == nil {
					made, err = allocate(cred)
				}
				l.count(cred, err)
				if err == nil {
					made.close()
				}
			}
		})
	}
	return l
}

func (l *load) count(cred sipext.TurnCred, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if l.failed.Add(1); l.first == nil {
			l.first = err
		}
		return
	}
	l.made.Add(1)
	l.kids[string(turncred.Tid(cred.Tid).KeyID())]++
}

// kid is how many were made with a key.
func (l *load) kid(kid string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kids[kid]
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.workers.Wait()
	if l.failed.Load() > 0 {
		t.Errorf("%d of %d allocations failed, the first: %v", l.failed.Load(), l.failed.Load()+l.made.Load(), l.first)
	}
}

// current returns the kid of the current key of the list that epcscf keys prints.
func currentKey(t *testing.T, file string) string {
	t.Helper()
	for _, line := range strings.Split(epcscf(t, 0, "keys", "list", "-c", file), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "current" {
			return f[1]
		}
	}
	t.Fatal("no key is current")
	return ""
}

// TestKeysRotateUnderLoad: keys rotate, twice (in make soak ten times), while users get credentials and make
// allocations with them at two relays: none fails. Then a key is revoked, and within a second
// what was made with it is good nowhere, live allocations included.
func TestKeysRotateUnderLoad(t *testing.T) {
	f := prepareRing(t, pgtest.Start(t), "shared-key")
	f.edge.edit(t, "  allow_no_origin: true", "  allow_no_origin: true\n  limits: {rate: 0}")
	f.relay1.spawnAs(t, "relay")
	f.relay2.spawnAs(t, "relay")
	f.edge.spawn(t)
	f.edge.eventually(t, "both relays answer", f.bothUp)
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		s.follows(t)
	}
	start := time.Now()
	l := startLoad(t, 4, f.edge)
	f.edge.eventually(t, "there is load", func() bool { return l.made.Load() > 20 })
	rounds, enough := 2, 20
	if os.Getenv("EPCSCF_SOAK") != "" {
		rounds, enough = 10, 3000
	}
	var kids []string
	for range rounds {
		out := epcscf(t, 0, "keys", "rotate", "-c", f.edge.file)
		kid := currentKey(t, f.edge.file)
		if !strings.Contains(out, "shared-key "+kid+" is made, and next\n") || !strings.Contains(out, "shared-key "+kid+" is current\n") {
			t.Errorf("keys rotate: %s", out)
		}
		kids = append(kids, kid)
		f.edge.eventually(t, "it is signed with", func() bool { return l.kid(kid) > enough })
	}
	l.end(t)
	took := time.Since(start)
	t.Logf("%d allocations in %v, %.0f a second, over %d rotations, %d failed: %v", l.made.Load(), took.Round(time.Millisecond), float64(l.made.Load())/took.Seconds(), rounds, l.failed.Load(), l.kids)
	last := kids[rounds-1]

	// What the old ones signed lives on.
	old := f.edge.credentialOf(t, "bob")
	if !f.relay1.allocates(t, old.Username, string(old.Password.Reveal())) {
		t.Error("a credential of the first key is not good after two rotations")
	}
	a := f.edge.asks(t)
	cred, err := a.credential()
	if err != nil {
		t.Fatal(err)
	}
	live, err := allocate(cred)
	if err != nil {
		t.Fatal(err)
	}
	defer live.close()
	home := f.relay1
	if !strings.HasSuffix(cred.URIs[0], f.relay1.relayPort(t, "udp")) {
		home = f.relay2
	}
	allocations := func() int {
		n, err := strconv.Atoi(home.metric("epcscf_relay_allocations"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := allocations() // a datagram that says that one is over may have been lost above
	start = time.Now()
	out := epcscf(t, 0, "keys", "revoke", last, "-c", f.edge.file)
	home.eventually(t, "the live allocation ends", func() bool { return allocations() < before })
	took = time.Since(start)
	t.Logf("revoke to the end of the allocation, the command included: %v", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("the revocation took %v", took)
	}
	for _, r := range []*served{f.relay1, f.relay2} {
		r.eventually(t, "its credentials are refused", func() bool { return !r.allocates(t, cred.Username, cred.Tpwd) })
	}
	if !strings.Contains(out, "shared-key "+last+" is revoked\n") || !strings.Contains(out, "is current\n") {
		t.Errorf("keys revoke: %s", out)
	}
	f.edge.eventually(t, "another key takes its place", func() bool {
		next, err := a.credential()
		return err == nil && next.Kind == sipext.KindCredential && string(turncred.Tid(next.Tid).KeyID()) != last
	})
	secret, err := os.ReadFile(filepath.Join(f.edge.dir, "state", "ring.json"))
	if err != nil || strings.Contains(string(secret), strings.Repeat("k", 32)) {
		t.Errorf("the edge's copy of the ring: %v", err)
	}
}

// TestKeysWaitForRelays: a relay that does not take keys from the store is named by the
// command, which leaves the key next; a relay of the registry joins, drains and leaves at run
// time; and one that lacks the key that is signed with is not offered.
func TestKeysWaitForRelays(t *testing.T) {
	f := prepareRing(t, pgtest.Start(t), "shared-key")
	f.relay2.edit(t, "store: {kind: postgres, database_url_file: database.url, kek_file: kek.key}", "")
	// relay2 is in no file, but in the registry.
	f.edge.edit(t, f.edge.relayItem(t, "relay2"), "")
	f.edge.edit(t, "  deployment_secret_file", "  registry: true\n  deployment_secret_file")
	f.relay1.spawnAs(t, "relay")
	f.relay2.spawnAs(t, "relay")
	f.edge.spawn(t)
	f.edge.follows(t)
	f.relay1.follows(t)

	address := listenOf(t, f.relay2)
	uri := "turn:127.0.0.1:" + f.relay2.relayPort(t, "udp")
	if out := epcscf(t, 0, "relays", "add", "relay2", "--address", address, "--uri", uri, "-c", f.edge.file); out != "relay relay2: add\n" {
		t.Errorf("relays add: %s", out)
	}
	f.edge.eventually(t, "both relays answer", f.bothUp)
	out := epcscf(t, 1, "keys", "rotate", "--wait", "2s", "-c", f.edge.file)
	kid := strings.Fields(out)[1]
	for _, want := range []string{
		"shared-key " + kid + " is made, and next\n", "waiting for ",
		"epcscf: shared-key " + kid + " stays next: after 2s not every relay has it: relay relay2 (" + address + ") does not have " + kid + ".",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("keys rotate with a relay without the store: %s, want %q", out, want)
		}
	}
	a := f.edge.asks(t)
	offered := func() (kid string, uris map[string]bool) {
		uris = map[string]bool{}
		cred, err := a.credential()
		if err != nil || cred.Kind != sipext.KindCredential {
			t.Fatalf("credential: %v, %v", cred, err)
		}
		for _, u := range cred.URIs {
			uris[u] = true
		}
		return string(turncred.Tid(cred.Tid).KeyID()), uris
	}
	if got, _ := offered(); got != "k1" {
		t.Errorf("signed with %s, which a relay lacks", got)
	}
	// Revoked: there is no waiting then, and the relay that lacks the next key is not offered.
	epcscf(t, 0, "keys", "revoke", "k1", "-c", f.edge.file)
	f.edge.eventually(t, "the next key is signed with", func() bool {
		cred, err := a.credential()
		return err == nil && string(turncred.Tid(cred.Tid).KeyID()) == kid
	})
	if _, uris := offered(); uris[uri] {
		t.Error("a relay that lacks the key is offered")
	}
	epcscf(t, 0, "relays", "drain", "relay2", "-c", f.edge.file)
	if out := epcscf(t, 0, "keys", "rotate", "-c", f.edge.file); !strings.Contains(out, "is current\n") {
		t.Errorf("keys rotate without the drained relay: %s", out)
	}
	if out := epcscf(t, 0, "relays", "list", "-c", f.edge.file); !strings.Contains(out, "relay2  draining  100") || !strings.Contains(out, "never") {
		t.Errorf("relays list: %s", out)
	}
	epcscf(t, 0, "relays", "remove", "relay2", "-c", f.edge.file)
	f.edge.eventually(t, "relay2 has left", func() bool { return f.edge.metric(`epcscf_push_relay_up{relay="relay2"}`) == "" })
	for _, tt := range []struct{ args, want string }{
		{"add relay3 --uri turn:h:1", `--address "": want HOST:PORT`},
		{"add relay3 --address h:1", "--uri: want one or more"},
		{"add relay3 --address h:1 --uri http:h", "want turn: or turns: URIs"},
		{"add Relay --address h:1 --uri turn:h", "want the name of one relay"},
	} {
		args := append(append([]string{"relays"}, strings.Fields(tt.args)...), "-c", f.edge.file)
		if out := epcscf(t, 2, args...); !strings.Contains(out, tt.want) {
			t.Errorf("relays %s: %s", tt.args, out)
		}
	}
	if out := epcscf(t, 1, "relays", "drain", "relay9", "-c", f.edge.file); !strings.Contains(out, "not found") {
		t.Errorf("relays drain of nobody: %s", out)
	}
}

// relayItem is a relay's line in turn.relays.
func (s *served) relayItem(t *testing.T, name string) string {
	t.Helper()
	for _, line := range strings.SplitAfter(s.text(t), "\n") {
		if strings.Contains(line, "- {name: "+name) {
			return line
		}
	}
	t.Fatalf("no relay %s in the file", name)
	return ""
}

// listenOf is the address of a relay's credential interface.
func listenOf(t *testing.T, s *served) string {
	t.Helper()
	_, rest, _ := strings.Cut(s.text(t), `interface: {listen: "`)
	at, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatal("no interface.listen")
	}
	return at
}

// TestStartWithoutTheDatabase: edge and relay start while the database is away, with the keys
// that it had, and take changes when it is back.
func TestStartWithoutTheDatabase(t *testing.T) {
	c := pgtest.Start(t)
	f := prepareRing(t, c, "shared-key")
	kill1, killEdge := f.relay1.spawnAs(t, "relay"), f.edge.spawn(t)
	f.relay2.spawnAs(t, "relay")
	f.edge.eventually(t, "both relays answer", f.bothUp)
	epcscf(t, 0, "keys", "rotate", "-c", f.edge.file)
	kid := currentKey(t, f.edge.file)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	f.relay2.eventually(t, "who ran before says so", func() bool {
		return f.relay2.metric("epcscf_store_up") == "0" && strings.Contains(f.relay2.log.String(), "the store does not answer")
	})
	kill1()
	killEdge()
	f.relay1.spawnAs(t, "relay")
	f.edge.spawn(t)
	f.edge.eventually(t, "both relays answer", f.bothUp)
	cred, err := f.edge.asks(t).credential()
	if err != nil || string(turncred.Tid(cred.Tid).KeyID()) != kid {
		t.Fatalf("without the database: %v, %v, want a credential of %s", cred, err, kid)
	}
	for _, r := range []*served{f.relay1, f.relay2} {
		if !r.allocates(t, cred.Username, cred.Tpwd) {
			t.Error("the credential is not good without the database")
		}
	}
	for _, s := range []*served{f.edge, f.relay1} {
		s.eventually(t, "it says so", func() bool { return strings.Contains(s.log.String(), "the store does not answer") })
		if s.metric("epcscf_store_up") != "0" {
			t.Error("epcscf_store_up is not 0")
		}
	}
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		s.follows(t)
	}
	epcscf(t, 0, "keys", "rotate", "-c", f.edge.file)
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		for _, secret := range []string{pgtest.Password, strings.Repeat("e", 32), strings.Repeat("k", 32)} {
			if strings.Contains(s.log.String(), secret) {
				t.Errorf("the log holds a secret that begins with %.4s", secret)
			}
		}
	}
}

// TestTokenKeysOfTheRing: relays take tokens made with a key of the ring, until it is revoked.
func TestTokenKeysOfTheRing(t *testing.T) {
	f := prepareRing(t, pgtest.Start(t), "shared-key")
	for _, s := range []*served{f.edge, f.relay1, f.relay2} {
		s.edit(t, "admin:", "tokens: {server_name: turn.ims.test}\nadmin:")
	}
	f.relay1.spawnAs(t, "relay")
	f.relay1.follows(t)
	tok := f.relay1.token(t) // of t1
	good := func() bool { return f.relay1.allocates(t, tok.Username(), string(tok.Password().Reveal())) }
	if good() {
		t.Fatal("a token of an unknown key is good")
	}
	epcscf(t, 0, "keys", "add", "--kind", "token", "--kid", "t1", "--from", filepath.Join(f.edge.dir, "t1.key"), "-c", f.edge.file)
	f.relay1.eventually(t, "the key is there", good)
	epcscf(t, 0, "keys", "revoke", "t1", "--kind", "token", "-c", f.edge.file)
	f.relay1.eventually(t, "it is revoked", func() bool { return !good() })
}
