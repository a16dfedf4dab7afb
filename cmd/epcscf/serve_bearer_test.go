package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"epcscf/internal/realpart"
)

// withWAF is an operator's folder with a WAF that has alice and a confidential client; more
// keys of proxy may follow. It returns that client's secret.
func withWAF(t *testing.T, addr, proxyKeys string) (s *served, secret string) {
	t.Helper()
	return withWAFFile(t, func(yaml string) string {
		return strings.Replace(yaml, "  allow_no_origin: true\n", "  allow_no_origin: true\n"+proxyKeys, 1) +
			"store: {kind: bolt, file: epcscf.db, kek_file: kek.key}\n" +
			"waf: {enabled: true, listen: \"" + addr + "\", issuer: \"https://" + addr + "\", registration_life: 5m}\n" +
			"tokens:\n  server_name: turn.ims.test\n  keys:\n    - {kid: t1, file: t1.key}\n"
	})
}

// withWAFFile is withWAF by a file of the caller's.
func withWAFFile(t *testing.T, change func(yaml string) string) (s *served, secret string) {
	t.Helper()
	s = prepare(t, t.TempDir(), map[string]string{"kek.key": strings.Repeat("s", 32)}, change)
	for _, args := range [][]string{
		{"user", "add", "alice", "--impi", "alice@ims.test", "--impu", "sip:alice@ims.test", "--password-file", s.dir + "/alice.pw"},
		{"client", "add", "--id", "wwsf", "--name", "Web", "--confidential", "--grant", "client_credentials", "--vouches"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"waf", "-c", s.file}, args...), &out, &out); code != 0 {
			t.Fatalf("%q exits with %d: %s", args, code, out.String())
		}
		_, secret, _ = strings.Cut(strings.TrimSpace(out.String()), "client_secret ")
	}
	return s, secret
}

// browser is an HTTPS client that trusts the test's authority.
func (s *served) browser(t *testing.T) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(s.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
}

// post sends a form to the WAF as its confidential client, and wants 200.
func (s *served) post(t *testing.T, url, secret string, form url.Values) map[string]any {
	t.Helper()
	status, answer := s.ask(t, url, "wwsf", secret, form)
	if status != http.StatusOK {
		t.Fatalf("%s: %d, %v\n%s", url, status, answer, s.log)
	}
	return answer
}

// ask sends a form to the WAF as a client.
func (s *served) ask(t *testing.T, url, client, secret string, form url.Values) (status int, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(client, secret)
	res, err := s.browser(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_ = json.NewDecoder(res.Body).Decode(&answer) // a revocation's is empty
	return res.StatusCode, answer
}

// TestServeBearer: a WIC registers with a token of this process's WAF, without a password; its
// TURN credential works; what is wrong with a token is refused; a revocation ends it all.
func TestServeBearer(t *testing.T) {
	addr := freeAddr(t)
	s, secret := withWAF(t, addr, "  close_on_bad_token: true\n")
	s.start(t)
	token := func() string {
		t.Helper()
		v, _ := s.post(t, "https://"+addr+"/token", secret, url.Values{"grant_type": {"client_credentials"}, "user": {"alice"}})["access_token"].(string)
		return v
	}
	good := token()
	file := filepath.Join(s.dir, "token")
	use := func(v string) []string {
		s.write(t, "token", v+"\n")
		return []string{"--password-file", "", "--token-file", file}
	}
	for _, command := range []string{"register", "options", "relay-check"} {
		s.wic(t, command, use(good)...)
	}

	part := strings.Split(good, ".")
	header := func(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }
	for name, bad := range map[string]string{
		"signature":    part[0] + "." + part[1] + "." + strings.Repeat("A", len(part[2])),
		"body":         part[0] + "." + header(`{"impi":"bob@ims.test"}`) + "." + part[2],
		"alg none":     header(`{"typ":"at+jwt","alg":"none"}`) + "." + part[1] + ".",
		"alg HS256":    header(`{"typ":"at+jwt","alg":"HS256","kid":"x"}`) + "." + part[1] + "." + part[2],
		"only dots":    strings.Repeat(".", 4000),
		"no JWT":       "abc",
		"another kind": header(`{"typ":"JWT","alg":"EdDSA","kid":"x"}`) + "." + part[1] + "." + part[2],
	} {
		out, err := s.wicCommand(t, "register", use(bad)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "401") || !strings.Contains(string(out), `error="invalid_token"`) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out, err := s.wicCommand(t, "register", append(use(good), "--user", "bob")...).CombinedOutput(); err == nil || !strings.Contains(string(out), "403") {
		t.Errorf("bob with alice's token: %v\n%s", err, out)
	}

	kept := s.wicCommand(t, "register", append(use(good), "--keep", "--show-password")...)
	var out, complaint realpart.Output
	kept.Stdout, kept.Stderr = &out, &complaint
	if err := kept.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- kept.Wait() }()
	s.eventually(t, "it is registered", func() bool { return strings.Contains(out.String(), "}") })
	var cred struct{ Username, Password string }
	if err := json.Unmarshal([]byte(out.String()), &cred); err != nil || !s.allocates(t, cred.Username, cred.Password) {
		t.Errorf("the credential makes no allocation: %v", err)
	}
	began := time.Now()
	s.post(t, "https://"+addr+"/revoke", secret, url.Values{"token": {good}})
	select {
	case err := <-ended:
		if err == nil {
			t.Error("wic ended without an error")
		}
		t.Logf("the WebSocket ended %v after the revocation was asked for", time.Since(began))
	case <-time.After(20 * time.Second):
		_ = kept.Process.Kill()
		t.Fatalf("the registration goes on\n%s", s.log)
	}
	if !strings.Contains(complaint.String(), "1008") || !strings.Contains(complaint.String(), "revoked") {
		t.Errorf("wic ended with\n%s", complaint.String())
	}
	if s.allocates(t, cred.Username, cred.Password) {
		t.Error("the credential makes an allocation after the revocation")
	}
	if out, err := s.wicCommand(t, "register", use(good)...).CombinedOutput(); err == nil || !strings.Contains(string(out), "401") {
		t.Errorf("the revoked token again: %v\n%s", err, out)
	}
	s.wic(t, "register", use(token())...)
	for _, canary := range []string{good, secret} {
		if strings.Contains(s.log.String(), canary) {
			t.Error("the log shows a token")
		}
	}
}

// TestServeForeignWAF: an edge that takes the tokens of a WAF on another host, by its keys in
// a file, by its keys at a URL, and by asking it.
func TestServeForeignWAF(t *testing.T) {
	addr := freeAddr(t)
	far, secret := withWAF(t, addr, "")
	var asker bytes.Buffer
	if code := run(t.Context(), []string{"waf", "-c", far.file, "client", "add", "--id", "edge", "--name", "Edge", "--confidential", "--grant", "client_credentials", "--introspects"}, &asker, &asker); code != 0 {
		t.Fatal(asker.String())
	}
	_, edgeSecret, _ := strings.Cut(strings.TrimSpace(asker.String()), "client_secret ")
	far.start(t)
	token, _ := far.post(t, "https://"+addr+"/token", secret, url.Values{"grant_type": {"client_credentials"}, "user": {"alice"}})["access_token"].(string)
	jwks := fetch(t, far, "https://"+addr+"/jwks")
	ca, err := os.ReadFile(far.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	const off = "  allow_no_origin: true\n"
	s := prepare(t, t.TempDir(), map[string]string{"jwks.json": jwks, "far.pem": string(ca), "edge.secret": edgeSecret, "token": token}, nil)
	plain := s.text(t)
	for name, keys := range map[string]string{
		"keys in a file": "jwks_file: jwks.json",
		"keys at a URL":  "jwks_url: https://" + addr + "/jwks, ca_file: far.pem",
		"introspection":  "introspection_url: https://" + addr + "/introspect, client_id: edge, client_secret_file: edge.secret, ca_file: far.pem",
	} {
		t.Run(name, func(t *testing.T) {
			for audience, want := range map[string]string{"sip:ims.test": "", "sip:other.test": "401"} {
				t.Run(audience, func(t *testing.T) {
					s.write(t, "epcscf.yaml", strings.Replace(plain, off, fmt.Sprintf("%s  bearer: {issuer: \"https://%s\", audience: \"%s\", %s}\n", off, addr, audience, keys), 1))
					t.Cleanup(func() { <-s.exit }) // after its end, before the next start
					s.start(t)
					out, err := s.wicCommand(t, "register", "--password-file", "", "--token-file", filepath.Join(s.dir, "token")).CombinedOutput()
					if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
						t.Errorf("%v, want %q\n%s\n%s", err, want, out, s.log)
					}
				})
			}
		})
	}
}

// TestServeLentIdentity: the edge tells the WAF that a registration has ended, and what was lent
// for it can be lent again (TS 33.203 X.4), long before the token would have expired.
func TestServeLentIdentity(t *testing.T) {
	addr := freeAddr(t)
	s, _ := withWAF(t, addr, "")
	var out bytes.Buffer
	for _, args := range [][]string{
		{"identity", "add", "--class", "guests", "--impi", "alice@ims.test", "--impu", "sip:alice@ims.test"},
		{"client", "add", "--id", "kiosk", "--name", "Kiosk", "--confidential", "--grant", "client_credentials", "--class", "guests"},
	} {
		out.Reset()
		if code := run(t.Context(), append([]string{"waf", "-c", s.file}, args...), &out, &out); code != 0 {
			t.Fatalf("%q exits with %d: %s", args, code, out.String())
		}
	}
	_, secret, _ := strings.Cut(strings.TrimSpace(out.String()), "client_secret ")
	s.start(t)
	borrow := func() (token string) {
		_, answer := s.ask(t, "https://"+addr+"/token", "kiosk", secret, url.Values{"grant_type": {"client_credentials"}})
		token, _ = answer["access_token"].(string)
		return token
	}
	first := borrow()
	if first == "" || borrow() != "" {
		t.Fatal("the one identity is lent to nobody, or to two")
	}
	s.write(t, "token", first)
	s.wic(t, "register", "--password-file", "", "--token-file", filepath.Join(s.dir, "token")) // and de-registers
	s.eventually(t, "it is lent again", func() bool { return borrow() != "" })
	if out, err := s.wicCommand(t, "register", "--password-file", "", "--token-file", filepath.Join(s.dir, "token")).CombinedOutput(); err == nil || !strings.Contains(string(out), "401") {
		t.Errorf("the first borrower's token: %v\n%s", err, out)
	}
}

// fetch gets a document of the WAF.
func fetch(t *testing.T, s *served, url string) string {
	t.Helper()
	res, err := s.browser(t).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
