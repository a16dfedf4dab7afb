package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one mistake in the operator's file, or in a file that it names.
type Fault struct {
	File         string
	Line, Column int    // 0: the file as a whole
	Text         string // what is wrong, and what would be right

	check string // the command that lists all that is wrong
}

// Error returns FILE:LINE:COLUMN: TEXT.
func (f Fault) Error() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Text)
}

// Faults are all that is wrong, in the file's order.
type Faults []Fault

// Error returns the first, and says how many more there are.
func (f Faults) Error() string {
	if len(f) == 1 {
		return f[0].Error()
	}
	return fmt.Sprintf("%v (and %d more: %s -c %s lists them)", f[0], len(f)-1, cmp.Or(f[0].check, serveForm.check), f[0].File)
}

// sorted orders by position, each mistake once.
func (f Faults) sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.Compact(f)
}

// oneLine keeps a message on its line, whatever the file had in it.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
