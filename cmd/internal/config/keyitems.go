package config

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"epcscf/turncred"
	"epcscf/turncred/token"
)

// keyItem is one of a list of keys, before its file is read.
type keyItem struct {
	turncred.Key
	algorithm token.Algorithm // of a token's key
	foreign   bool
	file      string
	at        value // where it stands
}

// set reads the list.
func (l *keyList) set(f *File, v value) error {
	if l.read != nil {
		return l.read(f, v)
	}
	if _, ok := v.node.(*ast.SequenceNode); !ok {
		return v.faultf("want a list of keys, each with kid and file, got %s", v.describe())
	}
	for _, item := range v.list() {
		k, err := l.parseItem(item)
		if err != nil {
			return err
		}
		all := l.to(f)
		if slices.ContainsFunc(*all, func(o keyItem) bool { return o.ID == k.ID }) {
			return item.faultf("kid %s is there twice: each key has a name of its own", k.ID)
		}
		*all = append(*all, k)
	}
	return nil
}

func (l *keyList) parseItem(v value) (keyItem, error) {
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		return keyItem{}, v.faultf("want kid and file, got %s", v.describe())
	}
	k := keyItem{at: v}
	for _, entry := range m.Values {
		word := entry.Key.GetToken().Value
		field := value{file: v.file, key: v.key + "." + word, node: entry.Value}
		if !slices.ContainsFunc(l.items, func(i itemKey) bool { return i.name == word }) {
			return k, unknownItem(l.items, word, field)
		}
		if err := k.set(word, field); err != nil {
			return k, err
		}
	}
	if k.ID == "" || k.file == "" {
		return k, v.faultf("want kid and file in each item, such as kid: k1 and file: secrets/k1.key")
	}
	if !k.NotAfter.IsZero() && !k.NotBefore.Before(k.NotAfter) {
		return k, v.faultf("not_before %s is not before not_after %s", k.NotBefore.Format(time.RFC3339), k.NotAfter.Format(time.RFC3339))
	}
	return k, nil
}

func (k *keyItem) set(word string, v value) (err error) {
	switch word {
	case "kid":
		s, err := v.text("a name")
		if err != nil {
			return err
		}
		if k.ID, err = turncred.ParseKeyID(s); err != nil {
			return v.faultf("want 1 to 16 letters and digits, such as k1, got %q", s)
		}
		return nil
	case "file":
		k.file, err = v.text("a file name")
		return err
	case "algorithm":
		s, err := v.text("A256GCM or A128GCM")
		if err != nil {
			return err
		}
		if k.algorithm, err = token.ParseAlgorithm(s); err != nil {
			return v.want("A256GCM or A128GCM")
		}
		return nil
	case "foreign":
		k.foreign, err = v.boolean()
		return err
	case "not_before":
		k.NotBefore, err = instant(v)
		return err
	case "not_after":
		k.NotAfter, err = instant(v)
		return err
	}
	panic("config: no setter for " + word)
}

func unknownItem(items []itemKey, word string, v value) error {
	if secretWord(word) {
		return v.faultf("a secret never stands in this file: put it into a file of mode 0600 and name that by file")
	}
	var words []string
	for _, i := range items {
		words = append(words, i.name)
	}
	return v.faultf("there is no such key in an item: use %s", strings.Join(words, ", "))
}

// instant reads an RFC 3339 time; "" is the zero time.
func instant(v value) (time.Time, error) {
	const what = "a time such as 2026-01-01T00:00:00Z"
	s, err := v.text(what)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, v.want(what)
	}
	return t, nil
}
