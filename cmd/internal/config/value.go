package config

import (
	"fmt"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// value is what stands behind a key, with where it stands. Its methods return what is
// wrong as a Fault that names the key, the place and an example.
type value struct {
	file, key string
	node      ast.Node
	example   string // what could stand there
}

func position(n ast.Node) (line, column int) {
	t := n.GetToken()
	// The token of a mapping in block style is its first colon: its place is its first key.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && t.Type == token.MappingValueType {
		t = m.Values[0].Key.GetToken()
	}
	return t.Position.Line, t.Position.Column
}

// faultf is a Fault at the value.
func (v value) faultf(format string, args ...any) Fault {
	line, column := position(v.node)
	return Fault{File: v.file, Line: line, Column: column, Text: v.key + ": " + oneLine(fmt.Sprintf(format, args...))}
}

// want says what should have stood here.
func (v value) want(what string) Fault {
	return v.faultf("want %s%s, got %s", what, v.such(), v.describe())
}

func (v value) such() string {
	if v.example == "" || v.example == "[]" {
		return ""
	}
	return ", such as " + v.example
}

func (v value) describe() string {
	switch n := v.node.(type) {
	case *ast.StringNode:
		return strconv.Quote(n.Value)
	case *ast.LiteralNode:
		return "a text of several lines"
	case *ast.IntegerNode, *ast.FloatNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return strconv.FormatBool(n.Value)
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode:
		return "keys of its own"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias, which this file does without"
	case *ast.TagNode:
		return "a tag, which this file does without"
	}
	return strconv.Quote(v.node.GetToken().Value)
}

// text returns a string that is written as one.
func (v value) text(what string) (string, error) {
	switch n := v.node.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return "", v.faultf("want %s; if %s is meant, write it in quotes: %q", what, n.GetToken().Value, n.GetToken().Value)
	case *ast.MappingNode:
		// The YAML library reads [10.0.0.5:443] as a list with a mapping in it.
		if len(n.Values) == 1 {
			return "", v.faultf("want %s%s: a text with a colon in [ ] or { } goes in quotes", what, v.such())
		}
	}
	return "", v.want(what)
}

// boolean reads true or false, and none of YAML's older spellings.
func (v value) boolean() (bool, error) {
	if n, ok := v.node.(*ast.BoolNode); ok && (n.GetToken().Value == "true" || n.GetToken().Value == "false") {
		return n.Value, nil
	}
	return false, v.faultf("want true or false, got %s", v.describe())
}

// integer reads a decimal number from least to most.
func (v value) integer(least, most int64) (int64, error) {
	if n, ok := v.node.(*ast.IntegerNode); ok {
		i, err := strconv.ParseInt(n.GetToken().Value, 10, 64)
		switch {
		case err != nil: // 0x10, 1_000
			return 0, v.faultf("want a whole number in decimal digits%s, got %s", v.such(), n.GetToken().Value)
		case i < least || i > most:
			return 0, v.faultf("%d is out of range: want %d to %d", i, least, most)
		}
		return i, nil
	}
	return 0, v.want("a whole number")
}

// list returns the items of a list; a value by itself is a list of one.
func (v value) list() []value {
	n, ok := v.node.(*ast.SequenceNode)
	if !ok {
		return []value{v}
	}
	items := make([]value, len(n.Values))
	for i, item := range n.Values {
		items[i] = value{file: v.file, key: v.key, node: item, example: v.example}
	}
	return items
}
