package node

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

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

// ReadBase64Secret reads a key that stands in its file in base64, as ReadSecret does, and
// decodes it. It must have least bytes then.
func ReadBase64Secret(name string, least int) (turncred.Secret, error) {
	data, err := readPrivate(name, 0o077)
	if err != nil {
		return turncred.Secret{}, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimRight(data, "\r\n")))
	if err != nil {
		return turncred.Secret{}, fmt.Errorf("%s: the key is not base64 on one line: openssl rand -base64 %d makes one", name, least)
	}
	if len(key) < least {
		return turncred.Secret{}, fmt.Errorf("%s: the key has %d bytes, want %d or more: openssl rand -base64 %d makes one", name, len(key), least, least)
	}
	return turncred.NewSecret(key), nil
}

// ReadPassword reads a person's password from a file of its own, without the line end that
// an editor leaves. It refuses a file that anybody but its owner may read or write.
func ReadPassword(name string) (turncred.Secret, error) {
	data, err := readPrivate(name, 0o077)
	if err != nil {
		return turncred.Secret{}, err
	}
	return turncred.NewSecret(bytes.TrimRight(data, "\r\n")), nil
}

// readPrivate reads a file of secrets, none of whose mode bits may be in forbidden.
func readPrivate(name string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, FileError(name, err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat() // of what is read, not of what stands there now
	switch {
	case err != nil:
		return nil, FileError(name, err)
	case st.IsDir():
		return nil, fmt.Errorf("%s: is a directory, want a file", name)
	case st.Mode().Perm()&forbidden != 0:
		return nil, modeError(name, st.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, FileError(name, err)
	}
	return data, nil
}

func modeError(name string, mode fs.FileMode) error {
	return fmt.Errorf("%s: mode %04o lets others read a secret: chmod 600 it", name, mode.Perm())
}

// ReplaceFile writes a file of mode 0600 in one step.
func ReplaceFile(name string, data []byte) error { return writeFile(name, data, 0o600) }

// FileError words why a file could not be read.
func FileError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no such file", name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: this user may not read it", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}
