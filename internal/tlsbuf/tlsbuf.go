// Package tlsbuf frees the input buffers of an idle tls.Conn.
//
// A tls.Conn keeps the buffer that its longest record and its longest handshake message
// needed, for the life of the connection: 3.5 KiB for the ClientHello of a browser, and up
// to 17 KiB once a long message came. On an edge with thousands of idle connections they
// are the largest part of what it occupies, and crypto/tls has no call that frees them.
//
// The fields are found by name and type, once. Where a version of Go has them no more,
// nothing is freed, and this package's test fails.
package tlsbuf

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// field is where a field of tls.Conn lies.
type field struct {
	offset uintptr
	found  bool
}

func find[T any](name string) field {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	return field{f.Offset, ok && f.Type == reflect.TypeFor[T]()}
}

// The buffers of crypto/tls conn.go.
var (
	rawInput  = find[bytes.Buffer]("rawInput") // records as they came
	input     = find[bytes.Reader]("input")    // what is left of an opened record, a part of rawInput's memory
	handshake = find[bytes.Buffer]("hand")     // handshake messages
)

// Free frees the input buffers of c, where they are empty: the next record makes new ones.
// Nobody may read from c meanwhile; somebody may write.
func Free(c *tls.Conn) {
	if !rawInput.found || !input.found || !handshake.found {
		return
	}
	in := at[bytes.Reader](c, input)
	if in.Len() > 0 {
		return
	}
	in.Reset(nil)
	for _, f := range []field{rawInput, handshake} {
		if b := at[bytes.Buffer](c, f); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
}

// at is the field f of c, whose type find has checked.
func at[T any](c *tls.Conn, f field) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(c), f.offset)) //nolint:gosec // G103: see the package
}
