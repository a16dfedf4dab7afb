// Package config reads the operator's file, one strict YAML document:
//
//	epcscf.yaml --parse--> keys with line and column --table--> values --check--> node.Config
//	                                                   |
//	                                     epcscf config prints it
//
// The table of keys (keys.go) is the only place where a key stands: its name, its default,
// its one line of explanation and what it sets. Reading, the defaults, the printed file and
// the messages come from there.
//
// What is wrong is a Fault, with file, line, column and what to write instead. A secret
// never stands in the file: the file names another, whose mode and length are checked.
package config
