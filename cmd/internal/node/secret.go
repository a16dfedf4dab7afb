package node

import (
	"bytes"
	"fmt"

	"epcscf/turncred"
)

// ReadSecret reads a key from a file of its own, without the line end that an editor
// leaves. It refuses a file that anybody but its owner may read or write, and a key that
// is too short; the error names the file and what to do.
func ReadSecret(name string) (turncred.Secret, error) {
	data, err := readPrivate(name, 0o077)
	if err != nil {
		return turncred.Secret{}, err
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) < turncred.MinSecretLen {
		return turncred.Secret{}, fmt.Errorf("%s: the key has %d bytes, want %d or more: openssl rand -hex 32 makes one", name, len(data), turncred.MinSecretLen)
	}
	return turncred.NewSecret(data), nil
}
