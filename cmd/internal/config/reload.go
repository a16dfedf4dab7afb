package config

import "slices"

// Changed compares with an older state of the file: what of the difference a reload takes,
// and what waits for a restart.
func (f *File) Changed(old *File) (taken, waiting []string) {
	var names []string
	for _, l := range keyLists {
		names = append(names, l.name)
	}
	for _, k := range table {
		names = append(names, k.name)
	}
	for _, n := range names {
		if f.raw[n] == old.raw[n] {
			continue
		}
		onHUP := keyListOf(n) != nil || slices.ContainsFunc(table, func(k key) bool { return k.name == n && k.onHUP })
		if onHUP {
			taken = append(taken, n)
		} else {
			waiting = append(waiting, n)
		}
	}
	return taken, waiting
}

// Keep takes for unchanged what waits for a restart, so that the next reload says it again.
func (f *File) Keep(old *File, waiting []string) {
	for _, n := range waiting {
		f.raw[n] = old.raw[n]
	}
}
