package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"epcscf/cmd/internal/testpki"
)

// printed writes the default file into an empty folder.
func printed(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := Print(&b); err != nil {
		t.Fatal(err)
	}
	return write(t, t.TempDir(), "epcscf.yaml", b.String(), 0o644)
}

// The printed file loads as it is: all that it lacks are the files that it names.
func TestPrintedFileLoads(t *testing.T) {
	name := printed(t)
	_, err := Load(name, "")
	faults, ok := err.(Faults) //nolint:errorlint // Load's error is Faults itself.
	if !ok {
		t.Fatalf("without its files: %v", err)
	}
	for _, f := range faults {
		if !strings.Contains(f.Text, "no such file") {
			t.Errorf("without its files: %v", f)
		}
	}
	lay(t, filepath.Dir(name))
	f, err := Load(name, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Notes()) > 0 {
		t.Errorf("notes: %q", f.Notes())
	}
	if missing := f.missingKeys(); len(missing) > 0 {
		t.Errorf("the printed file lacks %q", missing)
	}
}

// lay puts the files that the printed file names into its folder.
func lay(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"secrets", "tls"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ca := testpki.NewCA(t, dir)
	ca.Issue(t, filepath.Join(dir, "tls"), "proxy", time.Now().Add(90*24*time.Hour), "edge.ims.example", "turn.ims.example")
	ca.Issue(t, filepath.Join(dir, "tls"), "relay", time.Now().Add(90*24*time.Hour), "turn.ims.example")
	for _, secret := range []string{"deployment.key", "k1.key"} {
		write(t, filepath.Join(dir, "secrets"), secret, strings.Repeat("s", 64), 0o600)
	}
}

// What the README says is enough, is.
func TestFileOfTheREADMELoads(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "```yaml\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("the README shows no file")
	}
	dir := t.TempDir()
	lay(t, dir)
	if _, err := Load(write(t, dir, "epcscf.yaml", text, 0o644), ""); err != nil {
		t.Error(err)
	}
}

// missingKeys are keys of the table that the file does not have.
func (f *File) missingKeys() (names []string) {
	for _, k := range f.form.table {
		if _, ok := f.raw[k.name]; !ok {
			names = append(names, k.name)
		}
	}
	return names
}

// What is said of each key is one sentence or more, on one line, and each section is there.
func TestEveryKeyIsExplained(t *testing.T) {
	text, err := os.ReadFile(printed(t))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	isKey := regexp.MustCompile(`^\s*(- )?[a-z_]+:`)
	for i, line := range lines {
		if isKey.MatchString(line) && !strings.HasPrefix(strings.TrimSpace(lines[i-1]), "# ") {
			t.Errorf("line %d, %q, has no explanation above it", i+1, line)
		}
		if len(line) > 200 {
			t.Errorf("line %d has %d characters: say it shorter", i+1, len(line))
		}
	}
	for _, k := range table {
		section := k.name[:strings.LastIndexByte(k.name, '.')]
		if k.doc == "" || !strings.HasSuffix(k.doc, ".") || !serveForm.isSection(section) {
			t.Errorf("%s: explained by %q, in section %s", k.name, k.doc, section)
		}
		if (k.kind == sample) != (k.missing != "") {
			t.Errorf("%s: what its absence means is for a sample to say, and only for it", k.name)
		}
	}
}

// A limit that is new in the edge or the relay wants a key here: after the defaults none is
// zero, but for those of which 0 says that there is none.
func TestEveryLimitHasAKey(t *testing.T) {
	f := &File{form: &serveForm}
	f.setDefaults()
	for name, settings := range map[string]any{"proxy.Limits": f.node.Proxy.Limits, "proxy.Core": f.node.Proxy.Core, "relay.Config": f.relay.Settings} {
		v := reflect.ValueOf(settings)
		for i := range v.NumField() {
			switch v.Type().Field(i).Name {
			case "TLSPort": // follows from a listener's address
				continue
			case "BytesPerSecond": // off by default
				continue
			}
			switch v.Field(i).Kind() {
			case reflect.Int, reflect.Int64, reflect.Uint16: // durations are int64
				if v.Field(i).IsZero() {
					t.Errorf("%s.%s has no key", name, v.Type().Field(i).Name)
				}
			}
		}
	}
}

func TestChanged(t *testing.T) {
	dir := folder(t)
	load := func(text string) *File {
		t.Helper()
		f, err := Load(write(t, dir, "epcscf.yaml", text, 0o644), "")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	old := load(good)
	next := load(strings.NewReplacer("  max_ttl: 10m", "  max_ttl: 20m\n  approach: push", "kid: k1", "kid: k2", "flows: 100", "flows: 200").Replace(good))
	taken, waiting := next.Changed(old)
	if got := strings.Join(taken, " ") + "; " + strings.Join(waiting, " "); got != "keys turn.approach; turn.max_ttl proxy.limits.flows" {
		t.Errorf("Changed = %s", got)
	}
	next.Keep(old, waiting)
	if _, again := load(strings.Replace(good, "max_ttl: 10m", "max_ttl: 20m", 1)).Changed(next); len(again) != 1 || again[0] != "turn.max_ttl" {
		t.Errorf("on the next reload %q wait; want turn.max_ttl said again", again)
	}
}

// Whatever an operator's editor leaves, the answer is a Fault with a place, and no panic.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	for _, m := range mistakes {
		f.Add([]byte(strings.Replace(good, m.old, m.new, 1)))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(dir, "epcscf.yaml")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(name, "")
		if err == nil {
			t.Fatal("no error, though no file that it must name is there")
		}
		if said := err.Error(); said == "" || strings.Contains(said, "\n") {
			t.Fatalf("%q", said)
		}
	})
}
