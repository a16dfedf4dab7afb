package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/store/postgres/pgtest"
	"epcscf/turncred"
)

// TestNoSecretInClear uses everything that two edges, two relays and a database do, at debug
// level, and then looks for each password and key in all that was written: the database, the
// files of edges and relays, logs and metrics.
func TestNoSecretInClear(t *testing.T) {
	t.Parallel()
	w := startChaosWorld(t, time.Second, "debug")
	secrets := w.useWAF(t)
	ctx, cancel := context.WithCancel(t.Context())
	wait := w.start(ctx, 40, 40)
	defer wait()
	defer cancel()
	all := func(since time.Time) func() bool { return func() bool { return w.allIssue(since) } }
	w.edges[0].eventually(t, "credentials", all(time.Time{}))
	w.relays[0].restart(t, "relay", 0)
	w.edges[0].restart(t, "serve", 0)
	w.edges[0].eventually(t, "credentials after the restarts", all(time.Now()))
	w.edges[0].eventually(t, "revocations", func() bool { return w.registered.Load() > 120 })
	cancel()
	wait()

	w.mu.Lock()
	for _, h := range append(w.good[len(w.good)-min(40, len(w.good)):], w.revoked...) {
		secrets["a TURN password"] = append(secrets["a TURN password"], []byte(h.password))
		k := turncred.NewLongTermKey(h.username, "ims.test", turncred.NewSecret([]byte(h.password)))
		secrets["a long-term key"] = append(secrets["a long-term key"], k.MD5.Reveal(), k.SHA256.Reveal())
	}
	w.mu.Unlock()
	if n := len(secrets["a TURN password"]); n < 40 {
		t.Fatalf("%d passwords: the test would see no leak", n)
	}
	for what, file := range map[string]string{"the deployment secret": "deployment.key", "Km": "k1.key", "K": "t1.key", "the key-encryption key": "kek.key"} {
		b, err := os.ReadFile(filepath.Join(w.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		secrets[what] = [][]byte{b}
	}
	secrets["K"] = append(secrets["K"], bytes.Repeat([]byte("t"), 32))
	secrets["the database's password"] = [][]byte{[]byte(pgtest.Password)}
	forbidden := map[string]string{} // form: what it is
	for what, values := range secrets {
		for _, v := range values {
			for _, form := range []string{string(v), hex.EncodeToString(v), strings.ToUpper(hex.EncodeToString(v)), base64.RawStdEncoding.EncodeToString(v), base64.RawURLEncoding.EncodeToString(v)} {
				forbidden[form] = what
			}
		}
	}
	for place, text := range w.written(t) {
		for form, what := range forbidden {
			if i := bytes.Index(text, []byte(form)); i >= 0 { // it is not printed
				line := text[bytes.LastIndexByte(text[:i], '\n')+1 : i]
				t.Errorf("%s holds %s, after %q", place, what, line[max(0, len(line)-100):])
			}
		}
	}
}

// written is all that the processes have written, by place.
func (w *chaosWorld) written(t *testing.T) map[string][]byte {
	t.Helper()
	places := map[string][]byte{"the database's dump": w.db.Dump(t, w.database)}
	if !bytes.Contains(places["the database's dump"], []byte("sip:alice@ims.test")) {
		t.Error("alice is not in the dump")
	}
	for _, n := range []*chaosNode{w.edges[0], w.edges[1], w.relays[0], w.relays[1]} {
		name := strings.TrimSuffix(filepath.Base(n.file), ".yaml")
		_, metrics := n.get("/metrics")
		places["the log of "+name], places["the metrics of "+name] = []byte(n.log.String()+n.out.String()), []byte(metrics)
		if !strings.Contains(n.log.String(), "level=DEBUG") || !strings.Contains(metrics, "epcscf_") {
			t.Errorf("%s has logged nothing at debug level, or has no metrics", name)
		}
		files := 0
		for _, at := range []string{"state-" + name, "revocations-" + name + ".db"} {
			err := filepath.WalkDir(filepath.Join(w.dir, at), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return nil //nolint:nilerr // an edge has no file of revocations
				}
				b, err := os.ReadFile(path)
				places[path], files = b, files+1
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if files == 0 {
			t.Errorf("%s has written no file", name)
		}
	}
	return places
}

// useWAF adds a user and a client, takes tokens, allocates with one and registers with the
// other, and returns all that is secret of it.
func (w *chaosWorld) useWAF(t *testing.T) map[string][][]byte {
	t.Helper()
	e := w.edges[0]
	const password = "password of alice at the WAF"
	e.write(t, "waf.pw", password)
	epcscf(t, 0, "waf", "-c", e.file, "user", "add", "alice", "--impi", "alice@ims.test", "--impu", "sip:alice@ims.test", "--password-file", filepath.Join(w.dir, "waf.pw"))
	out := epcscf(t, 0, "waf", "-c", e.file, "client", "add", "--id", "wwsf", "--name", "Web", "--confidential", "--grant", "client_credentials", "--vouches")
	_, client, ok := strings.Cut(strings.TrimSpace(out), "client_secret ")
	if !ok {
		t.Fatalf("waf client add: %s", out)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableKeepAlives: true}}
	post := func(path string, form url.Values, into any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+e.login+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("wwsf", client)
		res, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s\n%s", path, res.Status, e.log)
		}
		if into != nil {
			if err := json.NewDecoder(res.Body).Decode(into); err != nil {
				t.Fatal(err)
			}
		}
	}
	var token struct {
		AccessToken string `json:"access_token"`
		TURN        struct {
			AccessToken string                                  `json:"access_token"`
			Key         string                                  `json:"key"`
			Servers     []struct{ Username, Credential string } `json:"ice_servers"`
		} `json:"turn"`
	}
	post("/token", url.Values{"grant_type": {"client_credentials"}, "user": {"alice"}}, &token)
	s := token.TURN.Servers[0]
	if err := allocateAt("turn:"+w.relays[0].turnAddr+"?transport=udp", &handedOut{username: s.Username, password: s.Credential}); err != nil {
		t.Errorf("allocate with a token: %v", err)
	}
	e.registerByToken(t, token.AccessToken, e.login, func() { post("/revoke", url.Values{"token": {token.AccessToken}}, nil) })
	return map[string][][]byte{
		"the password of a user": {[]byte(password)}, "a client's secret": {[]byte(client)}, "a registration token": {[]byte(token.AccessToken)},
		"a TURN token's key": {[]byte(token.TURN.Key), []byte(s.Credential)},
	}
}
