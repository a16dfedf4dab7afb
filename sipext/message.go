package sipext

import (
	"iter"
	"slices"
	"strconv"
)

// Field is one header field row, folds undone.
type Field struct {
	ID    Name
	Name  string // in its long form; of an unknown field as written
	Value string
}

// Message is a message as Scan understood it, and as it is rewritten on its way.
type Message struct {
	Method string // "" where the message is a response
	URI    string
	Status int
	Phrase string // reason phrase of a response
	Fields []Field
	Body   []byte
}

// Get returns the first value of a header field.
func (m *Message) Get(n Name) (string, bool) {
	for i := range m.Fields {
		if m.Fields[i].ID == n {
			return m.Fields[i].Value, true
		}
	}
	return "", false
}

// First returns the first value of a header field, or "".
func (m *Message) First(n Name) string {
	v, _ := m.Get(n)
	return v
}

// Rows yields the values of the rows of a header field, in order.
func (m *Message) Rows(n Name) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range m.Fields {
			if m.Fields[i].ID == n && !yield(m.Fields[i].Value) {
				return
			}
		}
	}
}

// Elements yields the elements of a list over all its rows, as written.
func (m *Message) Elements(n Name) iter.Seq[string] { return elements(m.Rows(n)) }

func elements(rows iter.Seq[string]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for row := range rows {
			for e := range ListElements(row) {
				if e != "" && !yield(e) {
					return
				}
			}
		}
	}
}

// Add puts a row at the end.
func (m *Message) Add(n Name, value string) { m.Fields = append(m.Fields, Field{n, spelled[n], value}) }

// Prepend puts a row before all others.
func (m *Message) Prepend(n Name, value string) {
	m.Fields = slices.Insert(m.Fields, 0, Field{n, spelled[n], value})
}

// Rewrite asks change of each row whether it stays, and with what value.
func (m *Message) Rewrite(change func(f *Field) (stays bool)) {
	kept := m.Fields[:0]
	for _, f := range m.Fields {
		if change(&f) {
			kept = append(kept, f)
		}
	}
	m.Fields = kept
}

// Remove removes every row of a header field.
func (m *Message) Remove(n Name) {
	m.Rewrite(func(f *Field) bool { return f.ID != n })
}

// RemoveFirst removes the first row of a header field.
func (m *Message) RemoveFirst(n Name) {
	if i := slices.IndexFunc(m.Fields, func(f Field) bool { return f.ID == n }); i >= 0 {
		m.Fields = slices.Delete(m.Fields, i, i+1)
	}
}

// Append appends the message to b as it goes on the wire, written anew from what was
// understood: one header field a row, no folds, long names, no optional white space in Via,
// and the body's real length. Rows that are given stand before all others.
func (m *Message) Append(b []byte, before ...Field) []byte {
	if m.Method != "" {
		b = append(append(append(append(b, m.Method...), ' '), m.URI...), " SIP/2.0\r\n"...)
	} else {
		b = strconv.AppendInt(append(b, "SIP/2.0 "...), int64(m.Status), 10)
		b = append(append(append(b, ' '), m.Phrase...), "\r\n"...)
	}
	for i := range before {
		b = before[i].append(b)
	}
	for i := range m.Fields {
		if m.Fields[i].ID != ContentLength {
			b = m.Fields[i].append(b)
		}
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(m.Body)), 10)
	return append(append(b, "\r\n\r\n"...), m.Body...)
}

func (f *Field) append(b []byte) []byte {
	b = append(append(b, f.Name...), ": "...)
	return append(append(b, f.Value...), "\r\n"...)
}

// Bytes returns what Append writes.
func (m *Message) Bytes() []byte {
	size := len("SIP/2.0 Content-Length: \r\n\r\n\r\n") + len(m.Method) + len(m.URI) + len(m.Phrase) + len(m.Body) + 32
	for i := range m.Fields {
		size += len(m.Fields[i].Name) + len(m.Fields[i].Value) + len(": \r\n")
	}
	return m.Append(make([]byte, 0, size))
}
