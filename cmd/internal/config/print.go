package config

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the annotated default file of epcscf serve. It loads as it is printed, once
// the files that it names are there.
func Print(w io.Writer) error { return serveForm.write(w) }

// PrintRelay is Print for the file of epcscf relay.
func PrintRelay(w io.Writer) error { return relayForm.write(w) }

func (f *form) write(w io.Writer) error {
	var b strings.Builder
	b.WriteString(f.head)
	for _, s := range f.sections {
		depth := strings.Count(s.name, ".")
		in := strings.Repeat("  ", depth)
		if depth == 0 {
			b.WriteByte('\n')
		}
		word := s.name[strings.LastIndexByte(s.name, '.')+1:]
		fmt.Fprintf(&b, "%s# %s\n", in, s.doc)
		switch l := f.list(s.name); {
		case l == nil:
			fmt.Fprintf(&b, "%s%s:\n", in, word)
		case l.off:
			l.print(&b, in+"#")
			fmt.Fprintf(&b, "%s%s: []\n", in, word)
		default:
			fmt.Fprintf(&b, "%s%s:\n", in, word)
			l.print(&b, in)
		}
		for _, k := range f.table {
			if i := strings.LastIndexByte(k.name, '.'); k.name[:i] == s.name {
				k.print(&b, in+"  ", k.name[i+1:])
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (k key) print(b *strings.Builder, in, word string) {
	doc := k.doc
	switch k.kind {
	case must:
		doc += " Must be set."
	case sample:
		doc += " Without it: " + k.missing + "."
	}
	if k.onHUP {
		doc += " Takes effect on SIGHUP."
	}
	v := k.value
	if v == "" {
		v = "[]"
	}
	fmt.Fprintf(b, "%s# %s\n%s%s: %s\n", in, doc, in, word, v)
}

// print writes one item; in may comment it out.
func (l *keyList) print(b *strings.Builder, in string) {
	for i, item := range l.items {
		lead := "    "
		if i == 0 {
			lead = "  - "
		}
		fmt.Fprintf(b, "%s    # %s\n%s%s%s: %s\n", in, item.doc, in, lead, item.name, item.value)
	}
}
