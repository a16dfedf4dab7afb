package config

// Changed compares with an older state of the file: what of the difference a reload takes,
// and what waits for a restart.
func (f *File) Changed(old *File) (taken, waiting []string) {
	var names []string
	for _, l := range f.form.lists {
		names = append(names, l.name)
	}
	for _, k := range f.form.table {
		names = append(names, k.name)
	}
	for _, n := range names {
		if f.raw[n] == old.raw[n] {
			continue
		}
		if f.form.onHUP(n) && (n != relaysKey || !f.changedBeyondWeights(old)) {
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
