package config

import (
	"fmt"
	"strings"
)

// unknownKey says what may have been meant.
func (f *form) unknownKey(name string) string {
	section, word := "", name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		section, word = name[:i+1], name[i+1:]
	}
	if secretWord(word) {
		return fmt.Sprintf("there is no key %s; a secret never stands in this file: put it into a file of mode 0600 and name that (turn.deployment_secret_file, or file in an item of keys)", name)
	}
	names := f.keyNames()
	for _, n := range names {
		if n != name && n[strings.LastIndexByte(n, '.')+1:] == word {
			return fmt.Sprintf("there is no key %s; did you mean %s?", name, n)
		}
	}
	best, least := "", 1+len(word)/3
	for _, n := range names {
		if rest, ok := strings.CutPrefix(n, section); ok && !strings.Contains(rest, ".") {
			if d := distance(word, rest); d <= least {
				best, least = n, d-1
			}
		}
	}
	if best != "" {
		return fmt.Sprintf("there is no key %s; did you mean %s?", name, best)
	}
	return fmt.Sprintf("there is no key %s: %q prints all that there are", name, f.print)
}

func secretWord(word string) bool {
	switch word {
	case "shared_key", "secret", "password", "key", "km", "static_auth_secret", "deployment_secret", "flow_key":
		return true
	}
	return false
}

func (f *form) keyNames() (names []string) {
	for _, s := range f.sections {
		names = append(names, s.name)
	}
	for _, k := range f.table {
		names = append(names, k.name)
	}
	return names
}

// distance is Levenshtein's: how many letters must be changed, added or left out.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
