package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWAFCommands adds and lists; what is added stands in the file store.
func TestWAFCommands(t *testing.T) {
	dir := t.TempDir()
	s := prepare(t, dir, map[string]string{"kek.key": strings.Repeat("s", 32), "user.pw": "correct horse\n"}, func(yaml string) string {
		return yaml + "store: {kind: bolt, file: epcscf.db, kek_file: kek.key, kek_id: kek1}\n"
	})
	waf := func(exit int, wants []string, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		all := append([]string{"waf", "-c", s.file}, args...)
		if got := run(t.Context(), all, &out, &out); got != exit {
			t.Errorf("%q exits with %d, want %d: %s", args, got, exit, out.String())
		}
		for _, want := range wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q prints %q, want %q in it", args, out.String(), want)
			}
		}
		if strings.Contains(out.String(), "correct horse") {
			t.Errorf("%q shows the password", args)
		}
		return out.String()
	}
	public := waf(0, []string{"client_id"}, "client", "add", "--name", "Phone\x1b[2J", "--redirect-uri", "https://phone.test/")
	if strings.Contains(public, "secret") {
		t.Errorf("a public client has a secret: %s", public)
	}
	confidential := waf(0, []string{"client_id edge1", "client_secret "}, "client", "add", "--id", "edge1", "--name", "Edge", "--confidential", "--grant", "client_credentials", "--introspects")
	_, secret, _ := strings.Cut(strings.TrimSpace(confidential), "client_secret ")
	waf(1, []string{"edge1"}, "client", "add", "--id", "edge1", "--name", "Again", "--redirect-uri", "https://phone.test/")
	for _, bad := range [][]string{
		{"--name", "x"}, {"--redirect-uri", "https://phone.test/"}, {"--name", "x", "--redirect-uri", "http://phone.test/"},
		{"--name", "x", "--redirect-uri", "https://phone.test/", "--grant", "password"}, {"--name", "x", "--grant", "client_credentials"},
	} {
		waf(2, nil, append([]string{"client", "add"}, bad...)...)
	}
	list := waf(0, []string{"Phone?[2J", "https://phone.test/", "public", "edge1", "confidential", "client_credentials"}, "client", "list")
	if len(secret) < 40 || strings.Contains(list, secret) {
		t.Errorf("a secret of %d bytes, and the list: %s", len(secret), list)
	}
	if token := strings.TrimSpace(waf(0, nil, "client", "invite")); len(token) < 40 {
		t.Errorf("initial access token of %d bytes", len(token))
	}

	pw := filepath.Join(dir, "user.pw")
	alice := []string{"user", "add", "alice", "--impi", "alice@ims.test", "--impu", "sip:alice@ims.test"}
	waf(0, nil, append(alice, "--password-file", pw)...)
	waf(1, []string{"alice"}, append(alice, "--password-file", pw)...)
	waf(2, []string{"--password-file"}, alice...)
	waf(2, []string{"user name"}, "user", "add", "--class", "guests", "--provider-only")
	waf(2, []string{"IMPI"}, "user", "add", "bob", "--provider-only")
	waf(0, nil, "user", "add", "guest", "--class", "guests", "--provider-only")
	waf(0, []string{"alice@ims.test", "by password", "guest", "at the provider", "guests"}, "user", "list")

	waf(0, nil, "identity", "add", "--class", "guests", "--impi", "guest1@ims.test", "--impu", "sip:guest1@ims.test")
	waf(1, []string{"guest1@ims.test"}, "identity", "add", "--class", "guests", "--impi", "guest1@ims.test", "--impu", "sip:guest1@ims.test")
	waf(2, []string{"--impu"}, "identity", "add", "--class", "guests", "--impi", "guest2@ims.test")
	waf(0, []string{"guests", "guest1@ims.test", "free"}, "identity", "list")

	if err := os.Chmod(pw, 0o644); err != nil {
		t.Fatal(err)
	}
	waf(1, []string{"user.pw", "chmod 600"}, "user", "add", "carol", "--class", "guests", "--password-file", pw)
	// A store that forgets is of no use here.
	raw, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "epcscf.yaml", strings.Replace(string(raw), "kind: bolt", "kind: memory", 1))
	waf(2, []string{"store.kind is memory"}, "user", "list")
}
