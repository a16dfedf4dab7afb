package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"epcscf/cmd/internal/node"
	"epcscf/turncred"
	"epcscf/waf"
)

// maxFile bounds a configuration file; ours has some 100 lines.
const maxFile = 1 << 20

// File is an operator's file that has been read and checked.
type File struct {
	Name      string
	form      *form
	Page      bool       // serve the demo's page
	LogLevel  slog.Level // from here up
	LogFormat string     // text or json

	node                 node.Config
	relay                node.Relay
	relayOn              bool
	fleet                node.Fleet
	relayItems           []relayItem
	relayNode            node.RelayConfig
	place                node.Interface // at the credential interface
	startAlone           string
	requireAuthorization bool
	keys, tokenKeys      []keyItem

	proxyTLS, relayTLS, coreTLS, interfaceTLS pairFiles
	deploymentSecret, flowKey                 string // file names
	coreCA, interfaceCA                       string // file names
	coreTLSPort                               uint16
	store                                     node.Store
	registry                                  bool // relays come from the store too
	storeFiles                                storeFiles
	bearer                                    node.Bearer
	bearerKeys, bearerSecret, bearerCA        string // file names

	wafOn             bool
	waf               node.WAF
	wafTLS            pairFiles
	wafProvider       waf.ProviderConfig
	wafProviderSecret string // file name
	wafPlace          node.WAFInterface
	wafPlaceFiles     placeFiles
	hearing           node.Hearing

	at     map[string]place  // of keys and sections that the file has
	raw    map[string]string // the values as written
	faults Faults
	notes  []string
}

type pairFiles struct{ cert, key string }

type place struct{ line, column int }

// Load reads and checks a file and all that it names. approach, where it is not "", wins
// over turn.approach. The error is Faults.
func Load(name, approach string) (*File, error) { return load(name, approach, &serveForm) }

func load(name, approach string, form *form) (*File, error) {
	f := &File{Name: name, form: form, at: map[string]place{}, raw: map[string]string{}}
	f.setDefaults()
	root, err := f.read()
	if err != nil {
		return nil, Faults{asFault(err)}
	}
	if root != nil {
		f.mapping("", root)
	}
	if approach != "" {
		f.override(approach)
	}
	switch {
	case len(f.faults) > 0:
	case form == &relayForm:
		f.checkRelayNode()
	default:
		f.check()
	}
	if len(f.faults) > 0 {
		for i := range f.faults {
			f.faults[i].check = form.check
		}
		return nil, f.faults.sorted()
	}
	return f, nil
}

// Node is what the file asks of a node. Page and Logger are the caller's to set.
func (f *File) Node() node.Config { return f.node }

// Notes are what an operator should know of a file that is right.
func (f *File) Notes() []string { return f.notes }

// asFault makes a list of one of a single mistake.
func asFault(err error) Fault {
	var fault Fault
	if errors.As(err, &fault) {
		return fault
	}
	return Fault{Text: err.Error()}
}

// read parses the file; the mapping is nil where it is empty.
func (f *File) read() (*ast.MappingNode, error) {
	in, err := os.Open(f.Name)
	if err != nil {
		return nil, f.unreadable(err)
	}
	defer func() { _ = in.Close() }()
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, f.unreadable(err)
	}
	if len(data) > maxFile {
		return nil, Fault{File: f.Name, Text: fmt.Sprintf("has more than %d bytes: this is not a configuration of epcscf", maxFile)}
	}
	return f.parse(data)
}

func (f *File) unreadable(err error) Fault {
	why := strings.TrimPrefix(node.FileError(f.Name, err).Error(), f.Name+": ")
	return Fault{File: f.Name, Text: why + fmt.Sprintf(": name one with -c, and see %q for its form", f.form.print)}
}

func (f *File) parse(data []byte) (*ast.MappingNode, error) {
	if i := slices.IndexFunc(data, func(b byte) bool { return b < ' ' && b != '\n' && b != '\r' && b != '\t' }); i >= 0 {
		return nil, Fault{File: f.Name, Line: 1 + strings.Count(string(data[:i]), "\n"), Column: i - strings.LastIndexByte(string(data[:i]), '\n'), Text: "a control character stands here: this is not a YAML text"}
	}
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, f.syntaxFault(err, data)
	}
	var body ast.Node
	for _, d := range doc.Docs {
		switch {
		case d.Body == nil:
		case body != nil:
			line, column := position(d.Body)
			return nil, Fault{File: f.Name, Line: line, Column: column, Text: "a second document begins here: write one, without ---"}
		default:
			body = d.Body
		}
	}
	switch n := body.(type) {
	case nil:
		return nil, nil
	case *ast.MappingNode:
		return n, nil
	}
	line, column := position(body)
	return nil, Fault{File: f.Name, Line: line, Column: column, Text: fmt.Sprintf("want sections with their keys, as %q prints them", f.form.print)}
}

// syntaxFault words what the YAML library found.
func (f *File) syntaxFault(err error, data []byte) Fault {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil {
		return Fault{File: f.Name, Text: oneLine(err.Error())}
	}
	at := y.GetToken().Position
	text := "not YAML: " + oneLine(y.GetMessage())
	lines := strings.Split(string(data), "\n")
	switch line := lines[min(at.Line, len(lines))-1]; {
	case strings.Contains(text, "already defined"):
		text = strings.TrimPrefix(text, "not YAML: ") + ": keep one of them"
	case strings.Contains(line, "\t"):
		text += ": indent with spaces"
	case strings.Contains(line, " [") && strings.Contains(line, "]:"):
		text += `: write an IPv6 address in quotes: "[2001:db8::5]:443"`
	}
	return Fault{File: f.Name, Line: at.Line, Column: at.Column, Text: text}
}

// setDefaults sets what every plain key has where the file says nothing.
func (f *File) setDefaults() {
	for _, k := range f.form.table {
		if k.kind != plain || k.value == "" {
			continue
		}
		doc, err := parser.ParseBytes([]byte("default: "+k.value), 0)
		if err == nil {
			err = k.set(f, value{key: k.name, node: doc.Docs[0].Body.(*ast.MappingNode).Values[0].Value})
		}
		if err != nil {
			panic("config: the default of " + k.name + ": " + err.Error())
		}
	}
}

// mapping reads the keys of a section; prefix ends with a dot, or is "".
func (f *File) mapping(prefix string, n *ast.MappingNode) {
	for _, entry := range n.Values {
		word, ok := entry.Key.(*ast.StringNode)
		at := entry.Key.GetToken().Position
		if !ok {
			f.add(at.Line, at.Column, "%q is no key of this file: write keys as plain words", entry.Key.GetToken().Value)
			continue
		}
		name := prefix + word.Value
		f.at[name] = place{at.Line, at.Column}
		v := value{file: f.Name, key: name, node: entry.Value}
		i := slices.IndexFunc(f.form.table, func(k key) bool { return k.name == name })
		switch {
		case i >= 0:
			f.take(&f.form.table[i], v)
		case f.form.list(name) != nil:
			f.take(&key{name: name, set: f.form.list(name).set}, v)
		case f.form.isSection(name):
			f.section(name, v)
		default:
			f.add(at.Line, at.Column, "%s", f.form.unknownKey(name))
		}
	}
}

func (f *File) take(k *key, v value) {
	v.example = k.value
	if _, null := v.node.(*ast.NullNode); null {
		f.addAt(k.name, "has no value: %s", k.remedy())
		return
	}
	f.raw[k.name] = v.node.String()
	if err := k.set(f, v); err != nil {
		f.faults = append(f.faults, asFault(err))
	}
}

func (k *key) remedy() string {
	if k.value == "" || k.value == `""` {
		return "give one, or leave the key out"
	}
	if k.kind == must {
		return "give one, such as " + k.value
	}
	return "give one, such as " + k.value + ", or leave the key out"
}

func (f *File) section(name string, v value) {
	switch n := v.node.(type) {
	case *ast.MappingNode:
		f.mapping(name+".", n)
	case *ast.NullNode:
		f.addAt(name, "is empty: indent its keys below it, or leave it out")
	default:
		f.faults = append(f.faults, v.faultf("is a section: want its keys below it, got %s", v.describe()))
	}
}

// override is --turn-approach.
func (f *File) override(approach string) {
	a, err := turncred.ParseApproach(approach)
	if err != nil {
		f.faults = append(f.faults, Fault{File: "--turn-approach", Text: err.Error()})
		return
	}
	f.node.TURN.Approach = a
}

func (f *File) add(line, column int, format string, args ...any) {
	f.faults = append(f.faults, Fault{File: f.Name, Line: line, Column: column, Text: oneLine(fmt.Sprintf(format, args...))})
}

// addAt is a mistake of a key, or of the section that should have it.
func (f *File) addAt(name, format string, args ...any) {
	p, ok := f.at[name]
	for section := name; !ok && section != ""; {
		section = section[:max(strings.LastIndexByte(section, '.'), 0)]
		p, ok = f.at[section]
	}
	if !ok {
		p = place{1, 1}
	}
	f.add(p.line, p.column, "%s", name+": "+fmt.Sprintf(format, args...))
}

// path is a file's name as seen from this process; in the file it is relative to the
// file's own folder.
func (f *File) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(f.Name), name)
}
