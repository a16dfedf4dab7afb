package push

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// description is the OpenAPI document, ready to hold exchanges against.
type description struct {
	doc      map[string]any
	paths    []describedPath
	compiled sync.Map // schemas
}

type describedPath struct {
	template string
	is       *regexp.Regexp
	names    []string // of the parameters in the path
	item     map[string]any
}

var describe = sync.OnceValue(func() *description {
	text, err := yaml.YAMLToJSON(OpenAPI)
	if err != nil {
		panic(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	d := &description{doc: v.(map[string]any)}
	param := regexp.MustCompile(`\\\{(\w+)\\\}`)
	for tmpl, item := range d.doc["paths"].(map[string]any) {
		p := describedPath{template: tmpl, item: item.(map[string]any)}
		quoted := regexp.QuoteMeta(tmpl)
		for _, m := range param.FindAllStringSubmatch(quoted, -1) {
			p.names = append(p.names, m[1])
		}
		p.is = regexp.MustCompile("^" + param.ReplaceAllString(quoted, `([^/]+)`) + "$")
		d.paths = append(d.paths, p)
	}
	return d
})

// validate holds a JSON value against a schema of the document.
func (d *description) validate(schema any, value any) error {
	key := fmt.Sprint(schema)
	if sch, ok := d.compiled.Load(key); ok {
		return sch.(*jsonschema.Schema).Validate(value)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.AssertContent()
	if err := c.AddResource("https://ims.test/openapi", map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": map[string]any{"it": schema}, "components": d.doc["components"]}); err != nil {
		return err
	}
	sch, err := c.Compile("https://ims.test/openapi#/$defs/it")
	if err != nil {
		return err
	}
	d.compiled.Store(key, sch)
	return sch.Validate(value)
}

// resolve follows a reference.
func (d *description) resolve(v any) map[string]any {
	m := v.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	var at any = d.doc
	for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		at = at.(map[string]any)[part]
	}
	return at.(map[string]any)
}

// operation finds what a request asks for.
func (d *description) operation(method, path string) (p describedPath, op map[string]any, values map[string]string) {
	for _, p := range d.paths {
		if m := p.is.FindStringSubmatch(path); m != nil {
			values := map[string]string{}
			for i, n := range p.names {
				values[n] = m[i+1]
			}
			op, _ := p.item[strings.ToLower(method)].(map[string]any)
			return p, op, values
		}
	}
	return p, nil, nil
}

// checkRequest holds a request against its operation.
func (d *description) checkRequest(r *http.Request, body []byte) error {
	p, op, inPath := d.operation(r.Method, r.URL.Path)
	if op == nil {
		return fmt.Errorf("%s %s is not described", r.Method, r.URL.Path)
	}
	var params []any
	for _, list := range []any{p.item["parameters"], op["parameters"]} {
		if l, ok := list.([]any); ok {
			params = append(params, l...)
		}
	}
	known := map[string]bool{}
	for _, raw := range params {
		param := d.resolve(raw)
		name := param["name"].(string)
		var text string
		var there bool
		switch param["in"] {
		case "path":
			text, there = inPath[name], true
		case "query":
			text, there = r.URL.Query().Get(name), r.URL.Query().Has(name)
			known[name] = true
		case "header":
			text, there = r.Header.Get(name), r.Header.Get(name) != ""
		}
		if !there {
			if param["required"] == true {
				return fmt.Errorf("%s is missing", name)
			}
			continue
		}
		if err := d.validate(param["schema"], d.typed(param["schema"], text)); err != nil {
			return fmt.Errorf("%s %q: %w", name, text, err)
		}
	}
	for name := range r.URL.Query() {
		if !known[name] {
			return fmt.Errorf("query parameter %s is not described", name)
		}
	}
	want, ok := op["requestBody"].(map[string]any)
	if !ok {
		if len(body) > 0 {
			return fmt.Errorf("a body, where none is described")
		}
		return nil
	}
	return d.checkContent(want["content"], r.Header.Get("Content-Type"), body)
}

// typed reads the text of a parameter as the schema has it.
func (d *description) typed(schema any, text string) any {
	switch d.resolve(schema)["type"] {
	case "integer":
		return json.Number(text)
	case "boolean":
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	}
	return text
}

func (d *description) checkContent(content any, mediaType string, body []byte) error {
	media, ok := content.(map[string]any)[mediaType].(map[string]any)
	if !ok {
		return fmt.Errorf("content of type %q is not described", mediaType)
	}
	lines := [][]byte{body}
	if mediaType == "application/x-ndjson" {
		lines = bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	}
	for _, line := range lines {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			return err
		}
		if err := d.validate(media["schema"], v); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

// checkResponse holds an answer against the operation.
func (d *description) checkResponse(method, path string, status int, header http.Header, body []byte) error {
	p, op, _ := d.operation(method, path)
	if op == nil { // 404 and 405 have no operation
		if !in(status, http.StatusNotFound, http.StatusMethodNotAllowed) || header.Get("Content-Type") != problemType {
			return fmt.Errorf("status %d of type %q", status, header.Get("Content-Type"))
		}
		return d.checkContent(map[string]any{problemType: map[string]any{"schema": map[string]any{"$ref": "#/components/schemas/Problem"}}}, problemType, body)
	}
	res, ok := op["responses"].(map[string]any)[strconv.Itoa(status)]
	if !ok {
		return fmt.Errorf("%s %s: status %d is not described", method, p.template, status)
	}
	content, ok := d.resolve(res)["content"]
	if !ok {
		if len(body) > 0 {
			return fmt.Errorf("status %d with a body", status)
		}
		return nil
	}
	return d.checkContent(content, header.Get("Content-Type"), body)
}

// exchanges checks what passes between client and server.
type exchanges struct {
	t testing.TB

	mu   sync.Mutex
	seen []string // METHOD TEMPLATE STATUS
}

// transport checks what our client sends, which is always as described.
func (x *exchanges) transport(next http.RoundTripper) http.RoundTripper {
	return roundTripper{next, func(r *http.Request) {
		var body []byte
		if r.GetBody != nil {
			b, err := r.GetBody()
			if err == nil {
				body, err = io.ReadAll(b)
			}
			if err != nil {
				x.t.Errorf("body of a request: %v", err)
			}
		}
		if err := describe().checkRequest(r, body); err != nil {
			x.t.Errorf("client: %s %s: %v", r.Method, r.URL, err)
		}
	}}
}

type roundTripper struct {
	http.RoundTripper
	check func(*http.Request)
}

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	t.check(r)
	return t.RoundTripper.RoundTrip(r)
}

// CloseIdleConnections is found by http.Client.
func (t roundTripper) CloseIdleConnections() {
	t.RoundTripper.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}

// handler checks what the server answers.
func (x *exchanges) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		path, err := url.PathUnescape(r.URL.EscapedPath())
		if err == nil {
			err = describe().checkResponse(r.Method, path, rec.status, w.Header(), rec.body.Bytes())
		}
		if err != nil {
			x.t.Errorf("server: %s %s: %v", r.Method, r.URL, err)
		}
		p, _, _ := describe().operation(r.Method, path)
		x.mu.Lock()
		x.seen = append(x.seen, fmt.Sprintf("%s %s %d", r.Method, p.template, rec.status))
		x.mu.Unlock()
	})
}

// recorder keeps a copy of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.body.Write(p)
	return r.ResponseWriter.Write(p)
}

// Unwrap is found by http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// described lists what the document has: METHOD TEMPLATE STATUS.
func (d *description) described() (all []string) {
	for _, p := range d.paths {
		for method, op := range p.item {
			if method == "parameters" {
				continue
			}
			for status := range op.(map[string]any)["responses"].(map[string]any) {
				all = append(all, strings.ToUpper(method)+" "+p.template+" "+status)
			}
		}
	}
	slices.Sort(all)
	return all
}

func TestDescribedRoutesAreServed(t *testing.T) {
	var described, served []string
	for _, line := range describe().described() {
		described = append(described, line[:strings.LastIndexByte(line, ' ')])
	}
	for _, rt := range routes {
		served = append(served, rt.method+" "+rt.pattern)
	}
	slices.Sort(served)
	if described = slices.Compact(described); !slices.Equal(described, served) {
		t.Errorf("described %v, served %v", described, served)
	}
}
